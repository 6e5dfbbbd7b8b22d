"""AttGAN with a slider for each attribute, at 64 px (section 3.2).

    faceattr train --config=attgan_intensity_64 --workdir=runs/attgan_intensity --config.data.path=CELEBA
    faceattr slide me.jpg --checkpoint=runs/attgan_intensity --attribute=Male --strengths=-1,-0.5,0,0.5,1

AttGAN of attgan_64 and what the extension adds to it. The paper shows pictures only, and gives neither the layer that
makes z_int nor its adversary. ``:synthetic`` is for drawn faces at 64 px on two cores, the network of the quickstart
with another level and half as wide:

    faceattr train --config=classifier_synthetic --workdir=runs/judge_64 --config.image_size=64
    faceattr train --config=attgan_intensity_64:synthetic --workdir=runs/intensity_synthetic
    faceattr evaluate --workdir=runs/intensity_synthetic --judge=runs/judge_64 --images=500

Seed 0, 2026-11-28 (2,500 iterations, 38 minutes beside up to three other trainings), on 500 test faces: Kolmogorov-
Smirnov distance of z_int from uniform .06 to .12, by attribute (untrained .49), Spearman's correlation of slider and
judge .87 to .99 (200 faces), edits seen on .885. With z_int = sigmoid(FC(z)), as it was first, and a weight of 5 the
distances were .09 to .20, and .22 to .38 with a critic of five updates of its own: z_int swung faster than it learned.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import attgan_64


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("synthetic",))
    config = attgan_64.get_config(variant)
    config.method = "attgan_intensity"
    del config.model["code"], config["b_distribution"]  # the decoder is fed b_int itself
    config.model.prior_critic = (256, 256)  # hidden units of the critic of z_int; the paper is silent
    config.opponent_updates = 5  # of that critic, each on a batch of its own, per generator update; the paper is silent
    config.loss.prior = 1.0  # of the generator's, for z_int to be uniform; the paper is silent
    if variant:
        # A critic moves one face's z_int by a gradient of norm 1 at most, all attributes together; classification
        # pulls each of them away from 0, where b and its opposite meet, about as hard. Measured on drawn faces alone.
        config.loss.prior = 10.0
    return config
