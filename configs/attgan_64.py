"""AttGAN at 64 px, as the paper's table 2 has it: the size at which it is compared with VAE/GAN and IcGAN.

    faceattr train --config=attgan_64 --workdir=runs/attgan_64 --config.data.path=CELEBA

Variants as in attgan_128. Five-pixel kernels and VAE/GAN's crop are the paper's, not an oversight.
"""

from ml_collections import ConfigDict

from faceattr_jax.configs.attgan_128 import common


def get_config(variant: str = "") -> ConfigDict:
    config = common(variant)
    config.image_size = 64
    config.crop = "vaegan148"
    # Table 2.
    config.model.encoder = ((1, 5, 2), (2, 5, 2), (4, 5, 2), (8, 5, 2))
    config.model.decoder = ((8, 5, 2), (4, 5, 2), (2, 5, 2), (1, 5, 2))
    config.model.rgb = (5, 1)
    config.model.discriminator = ((1, 3, 1), (1, 5, 2), (2, 5, 2), (4, 5, 2), (8, 5, 2), (8, 3, 1))
    return config
