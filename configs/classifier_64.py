"""The 40-way attribute classifier that judges edits, at 64 px and with the crop of attgan_64.

    faceattr train --config=classifier_64 --workdir=runs/judge_64 --config.data.path=CELEBA

Variant ``:mini`` is for the 10,000 training images of a small CelebA: regularised, and weighed towards the rare
value of each attribute.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import classifier_128


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("mini",))
    config = classifier_128.get_config()
    config.image_size = 64
    config.crop = "vaegan148"
    config.shift = 4
    if variant == "mini":
        config.model.widths = (16, 32, 64, 128)
        config.model.fc = 256
        config.loss.balance = 0.2
        config.loss.label_smoothing = 0.05
        config.ema = 0.995
        config.train.iterations = 2_500
        config.train.evaluate_every = 500
        config.train.checkpoint_every = 500
        config.optimizer.schedule = ("linear", 1_000, 2_500)
    return config
