"""ELEGANT at 128 px: the paper's layers on faces of half the size, for a quarter of the cost.

    faceattr train --config=elegant_128 --workdir=runs/elegant_128 --config.data.path=CELEBA

Variants: ``:released`` as in elegant_256, and ``:synthetic``, two attributes of drawn faces at 64 px in a small
network, meant for two CPU cores and half an hour but not yet tried:

    faceattr train --config=elegant_128:synthetic --workdir=runs/elegant_synthetic

The paper has no such sizes: D1 sees 128 px and D2 64, and the codes are 4x4.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs.elegant_256 import VARIANTS, common


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, (*VARIANTS, "synthetic"))
    config = common("released" if variant == "synthetic" else variant)
    config.image_size = 128
    if variant == "synthetic":
        config.attributes = ("Eyeglasses", "Bangs")
        config.image_size = 64
        config.crop = "center178"  # how faces are drawn
        config.flip = True
        config.batch_size = 8
        config.ema = 0.999
        config.model.width = 24
        # One layer less: the codes are 4x4 again.
        config.model.encoder = (1, 2, 4, 8)
        config.optimizer.learning_rate = 4e-4
        config.optimizer.schedule = ()
        config.train.iterations = 12_000
        config.train.checkpoint_every = 500
        config.train.evaluate_every = 2_000
    return config
