"""AttGAN at 64 px, as the paper's table 2 has it: the size at which it is compared with VAE/GAN and IcGAN.

    faceattr train --config=attgan_64 --workdir=runs/attgan_64 --config.data.path=CELEBA

Variants as in attgan_128, and ``:mini``, a small network for a small CelebA on a CPU: a quarter of the width, three
critic updates, and batches and targets in which rare attributes are as frequent as common ones. Five-pixel kernels and
VAE/GAN's crop are the paper's, not an oversight. ``:synthetic`` is for drawn faces at 64 px: the
quickstart's network with another level and half as wide. attgan_intensity_64 and attgan_independent_64 build on it.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import attgan_quickstart
from faceattr_jax.configs.attgan_128 import VARIANTS, common


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, (*VARIANTS, "mini", "synthetic"))
    if variant == "synthetic":
        return synthetic()
    config = common("" if variant == "mini" else variant)
    config.image_size = 64
    config.crop = "vaegan148"
    # Table 2.
    config.model.encoder = ((1, 5, 2), (2, 5, 2), (4, 5, 2), (8, 5, 2))
    config.model.decoder = ((8, 5, 2), (4, 5, 2), (2, 5, 2), (1, 5, 2))
    config.model.rgb = (5, 1)
    config.model.discriminator = ((1, 3, 1), (1, 5, 2), (2, 5, 2), (4, 5, 2), (8, 5, 2), (8, 3, 1))
    if variant == "mini":
        config.model.width = 16
        config.model.batch_norm_momentum = 0.99
        config.model.instance_noise = 0.15
        config.model.skips = 1
        config.model.injections = 1
        config.batch_size = 16  # twice the updates for the same time
        config.optimizer.learning_rate = 4e-4
        config.critic_updates = 3
        # A 1-Lipschitz critic moves an image by a gradient of norm 1, a mean over pixels by one of 1 / sqrt(their
        # number): the weight that is balanced at 128 px drowns the critic at 64.
        config.loss.reconstruction = 40.0
        config.sampler = "balanced"
        config.targets = "inverted"
        config.flip = True
        config.ema = 0.999
        config.train.iterations = 20_000
        config.train.checkpoint_every = 500
        config.train.evaluate_every = 2_000
        config.evaluation.images = 300
        config.evaluation.strength = 2.0
    return config


def synthetic() -> ConfigDict:
    """The quickstart at 64 px; half as wide, or it would take four times as long."""
    config = attgan_quickstart.get_config()
    config.image_size = 64
    config.model.width = 16
    config.model.fc = 8
    config.model.encoder = ((1, 4, 2), (2, 4, 2), (4, 4, 2), (8, 4, 2))
    config.model.decoder = ((8, 4, 2), (4, 4, 2), (2, 4, 2), (1, 4, 2))
    config.model.discriminator = ((1, 4, 2), (2, 4, 2), (4, 4, 2), (8, 4, 2))
    config.train.iterations = 2_500
    config.optimizer.schedule = ("linear", 1_000, 2_500)
    return config
