"""SL-GAN, section 4: Inception Scores (figure 4) and attribute errors (figure 3) of new faces, and the user study."""

from faceattr_jax.evaluation import measures
from faceattr_jax.evaluation.protocol import Protocol, Step

STUDY = {
    "SL-GAN": (4.37, 4.20, 4.45, 0.750),
    "Attrib2img": (3.02, 4.01, 4.43, 0.300),
    "icGAN": (4.10, 3.83, 4.30, 0.654),
}

PROTOCOL = Protocol(
    paper="SL-GAN",
    images=20_000,
    configs=("slgan_64",),
    fine_print=(
        "The paper does not say of how many images; here a new face for every one of up to 20,000 test faces, 10 "
        "parts.",
        "Its attribute errors and Inception Scores are figures 3 and 4, without numbers. Its judge is MOON.",
        "The user study: 10 students, 100 images, scales of five points; the guess is one of four attributes (chance "
        ".25).",
    ),
    measures=(
        measures.variety(),
        measures.attribute_error(),
        measures.generated(),
        measures.elsewhere(
            "User study",
            "Saliency, quality and similarity from 1 to 5, and the share of right guesses of what was modified.",
            {
                method: dict(zip(("saliency", "quality", "similarity", "guess"), numbers, strict=True))
                for method, numbers in STUDY.items()
            },
            "people rate pictures: `faceattr study ask` writes the questionnaire, `study count` the table",
        ),
        measures.accuracy(),
        measures.untouched(),
        measures.same_person(),
        measures.reconstruction(),
        measures.judge_accuracy(),
    ),
    steps=(
        Step("judge", "classifier_moon", {"crop": "vaegan148"}, role="judge"),
        Step("slgan", "slgan_64"),
    ),
)
