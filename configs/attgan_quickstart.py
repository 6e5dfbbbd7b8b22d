"""AttGAN in five minutes: 32 px drawn faces, six attributes, three layers. What launch/quickstart.sh runs.

    faceattr train --config=attgan_quickstart --workdir=runs/quickstart/attgan

The paper's networks and losses at a size that two CPU cores train while a person watches; two critic updates, and
targets that ask for every attribute equally often.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs.attgan_128 import common

ATTRIBUTES = ("Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Eyeglasses", "Male", "Pale_Skin")


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = common("")
    config.attributes = ATTRIBUTES
    config.image_size = 32
    config.crop = "center178"
    config.flip = True
    config.ema = 0.99
    config.critic_updates = 2
    config.targets = "inverted"
    config.model.width = 32
    config.model.fc = 4
    config.model.encoder = ((1, 4, 2), (2, 4, 2), (4, 4, 2))
    config.model.decoder = ((4, 4, 2), (2, 4, 2))
    config.model.rgb = (4, 2)
    config.model.discriminator = ((1, 4, 2), (2, 4, 2), (4, 4, 2))
    config.model.batch_norm_momentum = 0.98
    config.optimizer.learning_rate = 5e-4
    config.train.iterations = 2_400
    config.optimizer.schedule = ("linear", 1_400, 2_400)
    config.train.checkpoint_every = 300
    config.train.log_every = 20
    return config
