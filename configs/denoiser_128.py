"""DIAT's denoising network by itself: faces under Gaussian noise of 15 levels (table IV).

    faceattr train --config=denoiser_128 --workdir=runs/denoiser --config.data.path=CELEBA
    faceattr train --config=diat_128 --workdir=runs/diat --config.denoiser=runs/denoiser ...

DIAT trains one in its first stage unless it is given a run of this config, which several DIATs may share.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import base, check_variant


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("synthetic",))
    config = base()
    config.method = "denoiser"
    config.image_size = 128
    config.noise = 15.0  # deviation, in 8-bit levels
    config.model = ConfigDict({"denoiser": (64, 64, 64, 64, 64)})  # channels of all convolutions but the last
    # As DIAT's, on which the paper's text is silent for this network.
    config.optimizer = ConfigDict({"learning_rate": 5e-5, "decay": 0.99, "epsilon": 1e-8, "schedule": ()})
    config.batch_size = 50
    config.train.iterations = 2 * (162_770 // 50)
    config.evaluation.validator = "validation.restorations"
    config.evaluation.best = "psnr"
    if variant == "synthetic":
        config.image_size = 64
        config.model.denoiser = (16, 16, 16)
        config.batch_size = 32
        config.optimizer.learning_rate = 5e-4
        config.train.iterations = 500
    return config
