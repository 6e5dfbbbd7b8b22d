"""The attribute-inverse GAN at 128 px, for Eyeglasses. One model inverts one attribute: the paper also trains
No_Beard, Mouth_Slightly_Open, Young and Male.

    faceattr train --config=attribute_inverse_128 --workdir=runs/inverse --config.data.path=CELEBA

No code was published, and the text gives losses, weights, skips, crop and oversampling, but no layer table, optimizer,
batch size or length: those follow the works that it builds on. The paper's scores on 1,000 + 1,000 test images (FID /
mean DFN): beard 18.8/.90, mouth 22.5/.94, glasses 16.6/.94, age 28.7/.89, gender 21.1/.91. Cost at paper size: 305,190
iterations of one update of D and one of G, 16 images each.

Variant ``:mini`` is for a small CelebA (docs/results.md has what 3,000 iterations make of one), ``:synthetic`` for
drawn faces at 64 px: 8,000 iterations, 53 minutes of one core beside two other trainings. With its judge:

    faceattr train --config=classifier_synthetic --workdir=runs/judge_64 \
        --config.image_size=64 --config.attributes=Eyeglasses
    faceattr train --config=attribute_inverse_128:synthetic --workdir=runs/inverse_synthetic
    faceattr evaluate --workdir=runs/inverse_synthetic --judge=runs/judge_64 --images=500

Seed 0 on 500 test faces, 2026-11-27: glasses come and go on .994 (the worse direction .990), cyclic PSNR 30.0, region
error ratio .621 (floor .129; .765 of glasses that come, .477 of those that go; by the truths of 2026-11-28): the frame
is G's own and not the truth's, and edges of hair are noisy. Noise of .02 had 1.000 and .633. By the former truths,
whose ratio of this was .618: without noise on what G's second pass sees, 4,000 iterations had .677 with a change of 30
and .667 with 120; without `loss.change`, too, (another network, other rates) hair and backgrounds changed their hue,
which the second pass undid, and that ratio was .924. A penalty of 40 on the root of the change came to .611 in 8,000
iterations with that noise (1.000 seen): not worth its code.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import base, check_variant

EPOCH = 162_770 // 16  # iterations for as many pictures as CelebA's training split has


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("synthetic", "mini"))
    config = base()
    config.method = "attribute_inverse"
    config.attributes = ("Eyeglasses",)
    config.image_size = 128
    config.crop = "center178"  # "the center part"; the paper is silent on how much that is
    config.flip = True  # the paper is silent on augmentation
    # The paper oversamples the rarer class to balance the two; that every batch is half and half is not its word.
    config.sampler = "balanced"
    config.model = ConfigDict(
        {
            # The paper gives no layer table: G is pix2pix's U-Net and D is StarGAN's, the works that it cites. Channels
            # of the stride-2 convolutions, in widths; each halves the size, to one pixel in G and to two in D.
            "width": 64,
            "generator": (1, 2, 4, 8, 8, 8, 8),
            "norm": "instance",  # of G; the paper is silent
            "skips": "filtered",  # by 1x1 convolutions, as the paper has it; "full": the plain U-Net
            # The finest skips keep a quarter of their maps, the others half. The paper says "low-level" of the former.
            "fine_skips": 3,
            "discriminator": (1, 2, 4, 8, 16, 32),
            "leak": 0.01,  # slope of D's leaky ReLUs; the paper is silent, StarGAN's code has it
            # Deviation of the noise on what D, C and G's second pass see in training; the paper has none.
            "instance_noise": 0.0,
        }
    )
    # The weights belong to means over elements; eq. 4 writes a norm.
    config.loss = ConfigDict(
        {
            "adversarial": "saturating",  # G minimises eq. 1, as the paper has it; or "nonsaturating"
            "generator_classification": 1.0,  # lambda 1
            "reconstruction": 10.0,  # lambda 2
            "feature_matching": 1.0,  # lambda 3
            # N_i of eq. 5: every "element" of a layer, or, as the text has it, every "pixel". The latter makes the
            # deepest layer weigh 2,048 times more.
            "feature_matching_per": "element",
            "discriminator_classification": 1.0,  # lambda 4
            "change": 0.0,  # of |G(x) - x|, a mean over elements; the paper has no such term
        }
    )
    # The paper is silent on the optimizer, too: Adam with the 2e-4, 0.5 and 0.999 of `base`, and 20 epochs before 10
    # of decay.
    config.batch_size = 16
    config.train.iterations = 30 * EPOCH
    config.optimizer.schedule = ("linear", 20 * EPOCH, 30 * EPOCH)
    config.train.evaluate_every = EPOCH
    config.evaluation.validator = "validation.edits"
    # One attribute has no untouched ones to weigh its accuracy against, so the last checkpoint is the run's.
    config.evaluation.best = ""
    if variant:
        config.image_size = 64
        config.model.width = 16
        # A quarter of the finest maps holds the picture's 2 x 2 x 3 values of each place.
        config.model.generator = (4, 2, 4, 8, 8, 8)
        config.model.discriminator = (1, 2, 4, 8, 16)
        # Precautions: eq. 1's generator has no gradient where D is certain, and noise keeps a small C from being
        # fooled by changes that nobody can see, as in attgan_64:mini, and G from hiding the first face in them.
        config.loss.adversarial = "nonsaturating"
        config.model.instance_noise = 0.05
        config.optimizer.learning_rate = 1e-3
        config.ema = 0.999
        # Nothing in the paper's loss forbids a hue that the second pass takes back, and in few iterations G finds one.
        # Measured on drawn faces alone: in 4,000 iterations region error ratio .770 by 5, .717 by 15, .677 by 30.
        config.loss.change = 60.0
        config.train.iterations = 8_000
        config.optimizer.schedule = ("linear", 3_000, 8_000)
        config.train.checkpoint_every = 500
        config.train.evaluate_every = 1_000
    if variant == "mini":
        config.crop = "vaegan148"  # of the judge classifier_64:mini
    return config
