"""AttGAN whose latent must not tell the attributes, at 64 px: the ablation of section 4.2, three runs.

    faceattr train --config=attgan_independent_64 --workdir=runs/both --config.data.path=CELEBA
    faceattr train --config=attgan_independent_64 --workdir=runs/attgan --config.data.path=CELEBA \
        --config.loss.independence=0
    faceattr train --config=attgan_independent_64 --workdir=runs/independent --config.data.path=CELEBA \
        --config.loss.generator_classification=0

That is both constraints, AttGAN's alone, and the independent latent alone. `faceattr evaluate` tells of each how well a
probe reads the attributes off z, and how well faces are reconstructed and edited. No skip connections: past them z
need not tell anything. ``:synthetic`` is for drawn faces at 64 px on two cores; no whole run has been measured yet:

    faceattr train --config=classifier_synthetic --workdir=runs/judge_64 --config.image_size=64
    faceattr train --config=attgan_independent_64:synthetic --workdir=runs/both
    faceattr evaluate --workdir=runs/both --judge=runs/judge_64 --images=500
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import attgan_64


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("synthetic",))
    config = attgan_64.get_config(variant)
    config.method = "attgan_independent"
    # Hidden units of what reads a off z; the paper is silent, "like Fader Networks" it says.
    config.model.latent_discriminator = (512,)
    config.opponent_updates = 5  # of it, each on a batch of its own, per generator update; the paper is silent
    # Fader's weight, 1e-4 beside a reconstruction of weight 1, and ramp, over a good part of training.
    config.loss.independence = 1e-4 * config.loss.reconstruction
    config.loss.independence_ramp = config.train.iterations // 2  # iterations
    if variant:
        config.model.skips = 0
        # Large beside Fader's: a short run on six attributes is to show what the constraint does. Not tuned.
        config.loss.independence = 1.0
    return config
