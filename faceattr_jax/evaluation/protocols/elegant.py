"""ELEGANT, section 4.3: table 1, FID of results per attribute."""

from faceattr_jax.evaluation import measures
from faceattr_jax.evaluation.protocol import Protocol, Step

_COLUMNS = ("Bangs", "Smiling", "Mustache", "Eyeglasses", "Male")
_ROWS = {
    "ELEGANT": (30.71, 31.12, 25.71, 24.88, 37.51, 49.13, 47.35, 60.71, 59.37, 56.80),
    "UNIT": (135.41, 137.94, 120.25, 125.04, 119.32, 131.33, 111.49, 139.43, 152.16, 154.59),
    "CycleGAN": (27.81, 33.22, 23.23, 22.74, 43.58, 55.49, 36.87, 48.82, 60.25, 46.25),
    "StarGAN": (59.68, 71.07, 51.36, 78.87, 99.03, 176.18, 70.40, 142.35, 70.14, 206.21),
    "DNA-GAN": (79.27, 76.89, 77.04, 72.35, 126.33, 127.66, 75.02, 75.96, 121.04, 118.67),
}
_CELLS = [f"{name}={value}" for name in _COLUMNS for value in (1, 0)]

PROTOCOL = Protocol(
    paper="ELEGANT",
    images=20_000,
    balanced=True,
    split="train",
    configs=("elegant_256", "elegant_128"),
    fine_print=(
        "The paper gives two FIDs per attribute under a header that its text has lost: taken as adding (=1), removing "
        "(=0).",
        "It does not say how many images: 10,000 with the attribute and 10,000 without, as far as there are so many, "
        "and a model for each: give all runs at once. Real images are those that have the value which the results "
        "got.",
        "The paper's pictures have 256 px, Inception takes 299: resized bilinearly; 8-bit RGB, no compression. Both "
        "move an FID.",
        "It trains on all of CelebA, without a hold-out: the faces are those of the train split, which the judge has "
        "seen, too. Which attributes were trained together it does not say.",
    ),
    measures=(
        *measures.distances(
            measures.targets,
            "Results beside the real faces that have the value which they got.",
            {method: dict(zip(_CELLS, numbers, strict=True)) for method, numbers in _ROWS.items()},
        ),
        measures.directed_accuracy(),
        measures.untouched(),
        measures.same_person(),
        measures.reconstruction(),
        measures.judge_accuracy(),
    ),
    steps=(
        Step("judge", "classifier_128", {"image_size": "256", "crop": "landmarks5"}, "judge"),
        # One attribute each, so that a round of all is one iteration.
        *(Step(name.lower(), "elegant_256", {"attributes": name, "train.iterations": "200000"}) for name in _COLUMNS),
    ),
)
