"""MOON, the 40-way attribute classifier with which SL-GAN labels CASIA-WebFace and measures errors, at 224 px.

    faceattr train --config=classifier_moon --workdir=runs/moon --config.data.path=CELEBA
    faceattr data label CASIA-WEBFACE --judge=runs/moon --crop=center --out=CASIA-WEBFACE/labels.csv

VGG-16 whose 40 outputs are regressed to -1 and 1, each attribute weighed as if half of the faces had it (Rudd, Gunther
and Boult, "MOON", 2016; our weights follow from that aim, their own formula was not compared). SL-GAN says no more: its
17 attributes are `slgan_64`'s. 138 million parameters; it needs a GPU.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import classifier_128


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ())
    config = classifier_128.get_config()
    config.image_size = 224
    config.crop = "center178"
    config.model = ConfigDict(
        {
            "network": "vgg16",
            "width": 64,  # channels of the first block
            "fc": 4096,
            "weights": "",  # torchvision's vgg16-397923af.pth, or its folder, to start from; "": random numbers
        }
    )
    config.loss = ConfigDict(
        {
            "outputs": "signs",
            "target": 0.5,  # the rate that every attribute is weighed towards
            "l2": 0.0,
        }
    )
    # Choices of ours.
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = ("linear", 25_000, 50_000)
    return config
