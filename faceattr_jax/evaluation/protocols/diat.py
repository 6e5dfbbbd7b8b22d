"""DIAT, section IV: tables V (accuracy), VI (verification) and VII (hallucination), and cyclic PSNR."""

from faceattr_jax.evaluation import measures
from faceattr_jax.evaluation.protocol import Protocol, Step

# Task -> the share of the picture that its mask is to cover.
_TASKS = {
    "Mouth_Slightly_Open=1": "0.16",
    "Mouth_Slightly_Open=0": "0.16",
    "Eyeglasses=0": "0.32",
    "Male=0": "0.62",
    "Young=1": "0.62",
}
_ACCURACY = (0.821, 0.806, 0.763, 0.684, 0.702)
_VERIFIED = (0.912, 0.903, 0.872)


def _step(task: str, share: str) -> Step:
    name, value = task.split("=")
    return Step(task, "diat_128", {"attributes": name, "value": value, "loss.share": share})


PROTOCOL = Protocol(
    paper="DIAT",
    images=2_000,
    configs=("diat_128", "diat_hallucination"),
    fine_print=(
        "The paper takes 2,000 random images without the reference attribute from CelebA's test partition; here as "
        "many, spread over those. One model gives one attribute one value: give all runs at once.",
        "Its judge has two convolutions, three residual blocks and two fully connected layers (classifier_diat).",
        "It verifies with OpenFace at .99, for local tasks alone. Cyclic PSNR takes the mouth's two models.",
        "Hallucination: 16 px by bicubic interpolation to 128 px. RGB or Y it does not say: both.",
    ),
    measures=(
        measures.directed_accuracy({"DIAT": dict(zip(_TASKS, _ACCURACY, strict=True))}),
        measures.verification({"DIAT": dict(zip(_TASKS, _VERIFIED, strict=False))}),
        # "First perform mouth open to the images with mouth close, and then perform reverse mouth close."
        measures.cyclic({"DIAT": {"Mouth_Slightly_Open=1": 33.27}}),
        *measures.restored(
            {
                "psnr": {"DIAT": {"input": 29.68, "unet": 30.12, "hallucination": 28.85}},
                "ssim": {"DIAT": {"input": 0.606, "unet": 0.672, "hallucination": 0.643}},
            }
        ),
        measures.same_person(),
        measures.untouched(),
        measures.judge_accuracy(),
    ),
    steps=(
        Step("judge", "classifier_diat", role="judge"),
        *(_step(task, share) for task, share in _TASKS.items()),
        Step("hallucination", "diat_hallucination"),
        Step("unet", "diat_hallucination:unet"),
    ),
)
