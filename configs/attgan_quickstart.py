"""AttGAN in a few minutes: drawn faces of 32 px, six attributes. What launch/quickstart.sh runs.

    faceattr train --config=attgan_quickstart --workdir=runs/quickstart/attgan

The paper's losses at a size that two CPU cores train while a person watches: three layers and two skips, small batches
and hence layer norm, targets that ask for every attribute equally often, and a C that looks for traces of the source.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs.attgan_128 import common

# Every hair colour that is drawn but red: "none of them" then means one thing, and what an edit restores is known.
ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Male", "Pale_Skin")


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = common("")
    config.attributes = ATTRIBUTES
    config.image_size = 32
    config.crop = "center178"
    config.flip = True
    config.batch_size = 16
    config.ema = 0.99
    config.critic_updates = 2
    config.targets = "inverted"
    config.loss.trace_classification = 0.15
    config.model.width = 32
    config.model.fc = 4
    config.model.encoder = ((1, 4, 2), (2, 4, 2), (4, 4, 2))
    config.model.decoder = ((4, 4, 2), (1, 4, 2), (1, 4, 2))
    config.model.rgb = (3, 1)
    config.model.discriminator = ((1, 4, 2), (2, 4, 2), (4, 4, 2))
    config.model.skips = 2
    config.model.injections = 2
    config.model.instance_noise = 0.1
    config.model.generator_norm = "layer"
    config.optimizer.learning_rate = 7e-4
    config.train.iterations = 2_300
    config.optimizer.schedule = ("linear", 1_000, 2_300)
    config.train.checkpoint_every = 500
    return config
