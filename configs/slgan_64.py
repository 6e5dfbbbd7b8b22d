"""SL-GAN at 64 px: faces from the prior, and modified faces.

    faceattr train --config=slgan_64 --workdir=runs/slgan --config.data.path=CELEBA

No code was published, and the text gives losses, stages and the size of the pictures, but no layers, weights, optimizer
or length, nor the names of its 17 attributes: the layers are VAE/GAN's, on which it builds. Cost at paper size: 63,575
iterations of three updates of 64 images each; the paper's took 9 to 11 hours on a GTX 1080.

Variants: narrow ones for two cores, ``:mini`` for a small CelebA (docs/results.md), and ``:synthetic`` for six
attributes of drawn faces; with its judge:

    faceattr train --config=classifier_synthetic --workdir=runs/judge_64 --config.image_size=64
    faceattr train --config=slgan_64:synthetic --workdir=runs/slgan_synthetic
    faceattr evaluate --workdir=runs/slgan_synthetic --judge=runs/judge_64 --images=500

Seed 0 on 500 test faces, 2026-11-27, 88 minutes of one core beside two other processes: .919 of the edits are seen (the
worst, to black hair, .625), untouched change .006, reconstruction 20.3 dB; faces drawn from the prior have .949 of
their attributes, a Frechet distance (the judge's features) of 13.7 (untrained 112, the data's halves 2) and a variance
ratio of .88. Faces are rough: the region error ratio is .905, above 1 for sex (by the truths of 2026-11-28). With a
recognition of 1 Dec heard y too little, for z knows the hair, too: .446 of the edits were seen, .844 of what was drawn,
Frechet distance 21. Ten times the pixels' weight, 100 for the recognition of y alone and half the batch did not
reconstruct better in 1,000 iterations.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import base, check_variant

EPOCH = 162_770 // 64  # iterations for as many pictures as CelebA's training split has

# All that the text names are among them; which 17 "with relatively balanced annotations" it took it does not say.
ATTRIBUTES = (
    "Arched_Eyebrows", "Bags_Under_Eyes", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Brown_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Pale_Skin", "Rosy_Cheeks", "Smiling",
    "Wavy_Hair", "Young",
)  # fmt: skip


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("synthetic", "mini"))
    config = base()
    config.method = "slgan"
    config.attributes = ATTRIBUTES
    config.image_size = 64
    config.crop = "vaegan148"  # the paper is silent; VAE/GAN's
    config.flip = True  # the paper is silent on augmentation
    config.sampler = "uniform"
    # The paper gives no layers: VAE/GAN's code. Channels in widths; every kernel is 5 x 5.
    config.model = ConfigDict(
        {
            "width": 64,
            "latents": 128,  # dimensions of z
            "encoder": (1.0, 2.0, 4.0),  # each halves the size
            "fc": 16.0,  # hidden units of the encoder
            "decoder_start": 4.0,  # the map that the decoder's fully connected layer makes
            "decoder": (4.0, 2.0, 0.5),  # each doubles the size
            "discriminator": (0.5, 2.0, 4.0, 4.0),  # all but the first halve the size
            "discriminator_fc": 8.0,
            "batch_norm_momentum": 0.99,
        }
    )
    # The paper says that every term of eqs. 5 and 7 may have a weight, and gives none: 1.
    config.loss = ConfigDict(
        {
            # Dec maximises log D(Dec(z, y)); "saturating": minimises log(1 - D), eq. 1 as it stands.
            "adversarial": "nonsaturating",
            "recognition": 1.0,  # lambda 1
            "feature_reconstruction": 1.0,  # lambda 2, of a mean over elements
            # Eq. 3 leaves pixels to the encoder; the decoder sees D_l alone. Of a sum over an image's pixels.
            "decoder_pixels": 0.0,
        }
    )
    config.batch_size = 64
    config.train.iterations = 25 * EPOCH
    config.train.evaluate_every = EPOCH
    config.evaluation.validator = "validation.edits"
    config.evaluation.best = "score"
    if variant:
        config.model.width = 16
        config.model.latents = 32
        config.loss.decoder_pixels = 0.1
        # Beside pixels of that weight, which say nothing about other labels. Measured on drawn faces alone.
        config.loss.recognition = 20.0
        config.batch_size = 32
        config.ema = 0.999
        config.optimizer.learning_rate = 5e-4
        config.train.iterations = 2_500
        config.optimizer.schedule = ("linear", 1_200, 2_500)
        config.train.checkpoint_every = 500
    if variant == "synthetic":
        config.attributes = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Male", "Pale_Skin")
        config.crop = "center178"
    return config
