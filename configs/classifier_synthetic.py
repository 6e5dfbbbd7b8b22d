"""The judge of the quickstart's edits: a small classifier of drawn faces at 32 px, trained apart from the editor.

faceattr train --config=classifier_synthetic --workdir=runs/quickstart/judge
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import attgan_quickstart, classifier_128


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = classifier_128.get_config()
    config.attributes = attgan_quickstart.ATTRIBUTES
    config.image_size = 32
    config.crop = "center178"
    config.shift = 1
    config.model.widths = (16, 32, 64)
    config.model.fc = 128
    config.model.dropout = 0.2
    config.loss.balance = 0.5
    config.ema = 0.99
    config.train.iterations = 450
    config.optimizer.schedule = ("linear", 200, 450)
    config.train.checkpoint_every = 450
    config.train.evaluate_every = 0
    return config
