"""The 40-way attribute classifier that judges edits, at 128 px.

    faceattr train --config=classifier_128 --workdir=runs/judge_128 --config.data.path=CELEBA

Widths 16-16-32-32-64-64-128-128-256-256 and 512 hidden units, L2 1e-4: the AttGAN authors' word in their repository,
as STGAN's code has it. The paper's own judge reaches a mean accuracy of 90.89 % on CelebA's test set.
"""

from ml_collections import ConfigDict

from faceattr_jax import attributes
from faceattr_jax.config import base, check_variant


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = base()
    config.method = "classifier"
    config.attributes = attributes.CELEBA
    config.image_size = 128
    config.crop = "attgan170"
    config.batch_size = 64
    config.shift = 8  # training images move by up to so many pixels
    config.model = ConfigDict(
        {"widths": (16, 32, 64, 128, 256), "fc": 512, "dropout": 0.5, "batch_norm_momentum": 0.99}
    )
    config.loss = ConfigDict(
        {
            "l2": 1e-4,
            "balance": 0.0,  # 0: plain cross entropy; 1: both values of an attribute weigh the same in total
            "label_smoothing": 0.0,
        }
    )
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b1 = 0.9
    config.train.iterations = 50_000
    config.optimizer.schedule = ("linear", 25_000, 50_000)
    config.train.evaluate_every = 2_500
    config.evaluation.validator = "validation.labels"
    config.evaluation.images = 20_000
    config.evaluation.best = "balanced_accuracy"
    return config
