"""The attribute classifier that judges DIAT's edits, at 128 px.

    faceattr train --config=classifier_diat --workdir=runs/judge_diat --config.data.path=CELEBA

The paper: two convolutions, three residual blocks, two fully connected layers, trained on CelebA's training set.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import classifier_128


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = classifier_128.get_config()
    config.crop = "center178"  # that of diat_128
    # The paper is silent on all numbers. Convolutions of 4x4 with stride 2 are those of its other networks; a pooling
    # after each block leaves 4x4 for the fully connected layer.
    config.model = ConfigDict(
        {
            "network": "residual",
            "widths": (64, 128),
            "blocks": 3,
            "fc": 256,
            "dropout": 0.5,
            "batch_norm_momentum": 0.99,
        }
    )
    return config
