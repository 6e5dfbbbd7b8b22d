"""Face hallucination by DIAT: faces of 16 px drawn at 128 px.

    faceattr train --config=diat_hallucination --workdir=runs/hallucination --config.data.path=CELEBA \
        --config.face.path=vgg_face.h5
    faceattr evaluate --workdir=runs/hallucination --images=2000

DIAT without a mask, with a reconstruction loss (section III-D); for the face network see diat_128. The paper's PSNR and
SSIM on 2,000 test faces: bicubic 29.68/.606, U-Net 30.12/.672, DIAT 28.85/.643, which looks better.

Variants: ``:unet`` is the paper's baseline, T alone with the reconstruction loss. ``:synthetic`` and
``:unet_synthetic`` are for drawn faces at 64 px (from 8), on two cores; with a judge for the Frechet distance:

    faceattr train --config=recognizer_64:synthetic --workdir=runs/recognizer_synthetic
    faceattr train --config=classifier_synthetic --workdir=runs/judge_64 --config.image_size=64
    faceattr train --config=diat_hallucination:synthetic --workdir=runs/hallucination_synthetic \
        --config.face.path=runs/recognizer_synthetic
    faceattr train --config=diat_hallucination:unet_synthetic --workdir=runs/unet_synthetic
    faceattr evaluate --workdir=runs/hallucination_synthetic --judge=runs/judge_64 --images=500
    faceattr evaluate --workdir=runs/unet_synthetic --judge=runs/judge_64 --images=500

Seed 0 on 500 test faces, 2026-11-28, trained by commit 8d812a3 (a recogniser of faces up to 20 pixels off the
centre, a judge of eight attributes, 45 and 19 minutes of one core beside other trainings):

              PSNR   SSIM   gradient energy   Frechet distance by the judge
    bicubic   20.82  .501   .05 of the truth  50.3
    U-Net     23.15  .636   .43               15.8
    DIAT      20.29  .518   .69               15.5 (untrained 161)

As in the paper DIAT is sharper than the U-Net, and its PSNR below bicubic's; its faces are noisy.
"""

from ml_collections import ConfigDict

from faceattr_jax.config import check_variant
from faceattr_jax.configs import diat_128


def get_config(variant: str = "") -> ConfigDict:
    check_variant(variant, ("unet", "synthetic", "unet_synthetic"))
    config = diat_128.common()
    config.task = "hallucination"
    config.scale = 8
    config.loss.reconstruction = 0.01  # beta, of the squared error summed over a picture in [0, 1]; no scale is given
    config.loss.perceptual = 0.0  # eq. 20 has no such term, though the text takes away the mask's alone
    config.evaluation.validator = "validation.restorations"
    if variant.endswith("synthetic"):
        diat_128.small(config)
    if variant.startswith("unet"):
        config.task = "unet"
        # The paper is silent: as many updates of T as DIAT has for something else than smoothness.
        config.train.iterations = config.pretrain.iterations + config.steps.transfer * config.train.iterations
        if config.optimizer.schedule:
            config.optimizer.schedule = ("linear", 2 * config.train.iterations // 5, config.train.iterations)
        for key in ("face", "denoiser", "noise", "loss", "steps", "pretrain"):
            del config[key]
        for key in ("discriminator_width", "discriminator", "fc", "denoiser"):
            del config.model[key]
    return config
