"""ELEGANT at 256 px, as the paper's text has it.

    faceattr train --config=elegant_256 --workdir=runs/elegant_256 --config.data.path=CELEBA

Variant: ``:released`` follows the authors' code. An iteration is one update of the discriminators and one of the
generator on 16 faces with an attribute and 16 without, the attributes in turn. The code counts a round of all
attributes as one step and makes 200,000: with other attributes than the two below, give `train.iterations` as well
(and the schedule in ``:released``). The paper's table has models of Bangs, Smiling, Mustache, Eyeglasses and Male;
which attributes it trained together it does not say. Cost at paper size: 400,000 iterations, 12.8 million faces, each
through the encoder twice and through decoder and discriminators three times.

The paper cuts faces out of CelebA's unaligned pictures by five landmarks, and so does the crop `landmarks5`, where the
folder CELEBA has `img_celeba/` and `list_landmarks_celeba.txt`; of the aligned pictures, with their own list, it makes
the same, enlarged. Decoding and turning once saves a core or two while training:

    faceattr data prepare CELEBA --crop=landmarks5 --size=256 --out=ALIGNED

Then `--config.data.path=ALIGNED`. Training takes the train split; the code takes all of CelebA.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import base, check_variant

STEPS = 200_000  # rounds of all attributes
VARIANTS = ("released",)


def get_config(variant: str = "") -> ConfigDict:
    config = common(variant)
    config.image_size = 256
    return config


def common(variant: str) -> ConfigDict:
    """All of ELEGANT but the size."""
    check_variant(variant, VARIANTS)
    config = base()
    config.method = "elegant"
    config.attributes = ("Bangs", "Mustache")  # the example of the code's README
    config.crop = "landmarks5"  # see above
    config.flip = False  # the paper names no augmentation, and the code has none
    config.batch_size = 16  # of each class; the paper is silent, the code's
    config.model = ConfigDict(
        {
            "width": 64,  # channels of the first layers; the paper gives no widths, the code's
            # Layers in widths. Their number is the paper's; the kernel of 3 and stride of 2 are the code's. The
            # decoder mirrors the encoder.
            "encoder": (1, 2, 4, 8, 8),
            "discriminator": (1, 2, 4, 8, 8),  # the paper has five layers, the code four: the fifth's width is a guess
            "decoder_activation": "leaky_relu",  # the code has "relu"
            # The paper has "5 layers of Deconv-Norm-LeakyReLU" and yet ends in 2 tanh. A norm over three colours would
            # change all pixels by the same amount, so it is left out, as in the code.
            "rgb_norm": False,
            # The paper is silent; the code's, whose biases are PyTorch's default.
            "kernel_deviation": 0.02,
            "bias_bound": 1.0,  # of the uniform initial biases, in 1 / sqrt(fan in)
        }
    )
    # The weights belong to sums over A and B of means over elements. The paper has no weights.
    config.loss = ConfigDict(
        {
            "reconstruction": 1.0,
            "distance": "l1",  # of faces from what is to be them; the paper names no norm, the code has "l2", squared
            "adversarial": (1.0, 1.0),  # of the generator, at full and at half size
            "discriminators": (1.0, 1.0),  # of the discriminators' own losses
            # Terms that the paper does not have, for the reference's style to be taken over (see elegant_128).
            "own_part": 0.0,  # of A's distance from C decoded with A's own part of the code, and B's from D
            "change": 0.0,  # of |C - A| and |D - B|, in L1
            "neutral": 0.0,  # of B's distance from B decoded with another such face's part of the code
        }
    )
    # The probability that a pair exchanges another attribute beside the iteration's; the paper has one at a time.
    config.exchange_others = 0.0
    config.optimizer.weight_decay = 0.0  # L2, through Adam's direction; the paper is silent
    config.train.iterations = STEPS * len(config.attributes)
    config.train.checkpoint_every = 2_000 * len(config.attributes)  # the code's
    config.evaluation.validator = "validation.swaps"
    if variant == "released":
        config.model.discriminator = (1, 2, 4, 8)
        config.model.decoder_activation = "relu"
        config.loss.reconstruction = 5.0
        config.loss.distance = "l2"
        config.loss.adversarial = (1.0, 0.5)
        config.loss.discriminators = (0.25, 0.125)
        config.optimizer.weight_decay = 1e-5
        config.optimizer.schedule = ("exponential", 3_000 * len(config.attributes), 0.97)
    return config
