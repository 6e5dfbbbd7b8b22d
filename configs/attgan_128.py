"""AttGAN at 128 px, as the paper's text and table 1 have it.

    faceattr train --config=attgan_128 --workdir=runs/attgan_128 --config.data.path=CELEBA

Variants: ``:released`` follows the authors' 2018 code (the one that STGAN's tables compare with), ``:released_v2``
their 2020 rewrite, ``:pytorch`` the port AttGAN-PyTorch, whose weights `faceattr convert` reads. The text gives neither
batch size, length, critic updates nor penalty weight: those are the 2018 code's. Cost at paper size: 189,400 iterations
of six updates of 32 images, 36 million images through the networks. They are of the train split alone; the paper's and
the code's first 182,000 are that and nearly all of valid.
"""

from ml_collections import ConfigDict

from faceattr_jax import attributes
from faceattr_jax.config import base, check_variant

ROUND = 182_000 // (32 * 6)  # the released code's "epoch": 947 iterations of 5 critic updates and 1 generator update
VARIANTS = ("released", "released_v2")


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, (*VARIANTS, "pytorch"))
    config = common("released" if variant == "pytorch" else variant)
    config.image_size = 128
    config.crop = "attgan170"
    # Table 1: (multiple of `width`, kernel, stride) for each layer.
    config.model.encoder = ((1, 4, 2), (2, 4, 2), (4, 4, 2), (8, 4, 2), (16, 4, 2))
    config.model.decoder = ((16, 4, 2), (8, 4, 2), (4, 4, 2), (2, 4, 2))
    config.model.rgb = (4, 2)
    config.model.discriminator = ((1, 4, 2), (2, 4, 2), (4, 4, 2), (8, 4, 2), (16, 4, 2))
    if variant == "pytorch":
        config.crop = "attgan170c"
        config.model.injections = 0  # its command line's default
        # PyTorch's own defaults, and ReLU in the heads.
        config.model.leak = 0.01
        config.model.fc_leak = 0.0
        config.model.epsilon = 1e-5  # of all norms
        config.model.batch_norm_momentum = 0.9  # PyTorch's 0.1
    return config


def common(variant: str) -> ConfigDict:
    """All of AttGAN but the layer tables."""
    check_variant(variant, VARIANTS)
    config = base()
    config.method = "attgan"
    config.attributes = attributes.ATTGAN
    config.flip = False  # the paper names no augmentation, and the 2018 code has none
    config.critic_updates = 5  # per generator update; the paper is silent, WGAN-GP and the code say 5
    config.sampler = "uniform"  # methods.base.SAMPLERS: "balanced" shows both values of every attribute equally often
    config.targets = "shuffled"  # methods.attgan.TARGETS: the paper draws b from p_attr, the code shuffles a
    # Empty: every b is asked for alike. Or a factor in [0, 2] for each attribute of each face, by
    # methods.attgan.STRENGTHS: an option of the code's v1, which according to its author does not improve it.
    config.b_distribution = ""
    config.model = ConfigDict(
        {
            "width": 64,  # channels of the first layer; the tables below count in it
            "fc": 16,  # hidden units of the heads, in widths: 1024
            "encoder": (),
            "decoder": (),
            "rgb": (),  # kernel and stride of the decoder's last layer
            "discriminator": (),
            # Of encoder and decoder. "layer" normalises each face by itself: a small batch's statistics are noisy.
            "generator_norm": "batch",
            "norm": "layer",  # of the discriminator's convolutions; the code has "instance"
            "fc_norm": True,  # layer norm in the heads, too; the code has none
            "code": "zero_one",  # what the decoder is fed: 0/1; the code has -0.5/0.5 ("half"), then -1/1 ("one")
            "skips": 0,  # decoder layers joined by the encoder's output of their size
            "injections": 0,  # decoder layers, beyond the first, that are given the code
            # Deviation of the noise on what D and C see in training. The paper has none; it keeps a decoder from
            # satisfying a small C by changes that nobody can see, and for that it must not fall to 0 in the end.
            "instance_noise": 0.0,
            "batch_norm_momentum": 0.999,  # the paper is silent; TF slim's default
        }
    )
    # The weights belong to means over elements, as in the code; the text writes sums over attributes and a norm.
    config.loss = ConfigDict(
        {
            "reconstruction": 100.0,  # lambda 1
            "generator_classification": 10.0,  # lambda 2
            "critic_classification": 1.0,  # lambda 3
            "trace_classification": 0.0,  # of edits by their source's attributes, in C's update; the paper has none
            "gradient_penalty": 10.0,  # the paper cites WGAN-GP, whose weight this is
        }
    )
    config.train.iterations = 200 * ROUND
    config.evaluation.validator = "validation.edits"
    config.evaluation.best = "score"
    if variant:
        config.model.norm = "instance"
        config.model.fc_norm = False
        config.model.skips = 1
        config.model.injections = 1
    if variant == "released":
        config.model.code = "half"
        config.optimizer.schedule = ("step", 100 * ROUND, 0.1)
    if variant == "released_v2":
        config.model.code = "one"
        config.flip = True
        # 60 epochs of 5,687 updates, one in six the generator's; linear decay after 30 epochs. Its alignment by 68
        # landmarks and random crop from 143 px are not reproduced.
        config.train.iterations = 60 * 5687 // 6
        config.optimizer.schedule = ("linear", 29 * 5687 // 6, 60 * 5687 // 6)
    return config
