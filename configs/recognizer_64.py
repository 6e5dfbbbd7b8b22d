"""The face recogniser at 64 px: for identity losses and, trained on other people than the editor's, as their judge.

    faceattr train --config=recognizer_64 --workdir=runs/recognizer --config.data.path=CELEBA

Needs CelebA's identities (identity_CelebA.txt), or a folder for each person as CASIA-WebFace has them. Scored on people
of the valid split, none of whom it is trained on.

Variant ``:mini`` is for the 1,943 people of a small CelebA, ``:synthetic`` for drawn faces:

    faceattr train --config=recognizer_64:synthetic --workdir=runs/recognizer_synthetic
"""

from ml_collections import ConfigDict

from faceattr_jax.config import base, check_variant


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("mini", "synthetic"))
    config = base()
    config.method = "recognizer"
    config.attributes = ()
    config.image_size = 64
    # The closest crop: a recogniser can look at its own square in pictures of a wider crop, but not the other way.
    config.crop = "vaegan148"
    config.batch_size = 128
    config.per_person = 2  # pictures in a row of each person of a batch
    config.shift = 4  # training images move by up to so many pixels
    config.model = ConfigDict(
        {
            "widths": (32, 64, 128, 256),
            "embedding": 128,
            "dropout": 0.3,
            "batch_norm_momentum": 0.99,
            "people": 8_192,  # of the training split, at most
        }
    )
    config.loss = ConfigDict({"scale": 20.0, "margin": 0.1})  # of CosFace's softmax over cosines
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b1 = 0.9
    config.optimizer.weight_decay = 0.0
    config.train.iterations = 60_000
    config.optimizer.schedule = ("linear", 30_000, 60_000)
    config.train.evaluate_every = 5_000
    config.ema = 0.999
    config.evaluation.validator = "validation.people"
    config.evaluation.images = 2_000
    config.evaluation.best = "verification"
    if variant:
        config.batch_size = 64
        config.model.widths = (16, 32, 64, 128)
        config.ema = 0.99
        config.train.checkpoint_every = 500
        config.train.evaluate_every = 500
        config.evaluation.images = 1_000
        config.train.iterations = 3_000
        config.optimizer.schedule = ("linear", 1_000, 3_000)
    if variant == "mini":
        config.model.people = 1_943
        config.model.dropout = 0.5
    if variant == "synthetic":
        config.crop = "center178"  # what the faces are drawn for
        config.model.people = 2_000
    return config
