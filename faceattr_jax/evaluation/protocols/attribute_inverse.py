"""The attribute-inverse GAN, section 3.3: table 1, FID and mean DFN, and figure 3, the boxes of DFN."""

from collections.abc import Mapping, Sequence

from faceattr_jax.evaluation import measures
from faceattr_jax.evaluation.protocol import Protocol, Step

_COLUMNS = ("No_Beard", "Mouth_Slightly_Open", "Eyeglasses", "Young", "Male")
_FID = {"paper": (18.8, 22.5, 16.6, 28.7, 21.1), "CycleGAN": (25.0, 28.5, 31.6, 38.1, 30.7)}
_DFN = {"paper": (0.9, 0.94, 0.94, 0.89, 0.91), "CycleGAN": (0.86, 0.81, 0.83, 0.79, 0.86)}


def _table(rows: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {method: dict(zip(_COLUMNS, numbers, strict=True)) for method, numbers in rows.items()}


PROTOCOL = Protocol(
    paper="Attribute-inverse GAN",
    images=2_000,
    balanced=True,
    configs=("attribute_inverse_128",),
    fine_print=(
        "The paper takes 1,000 test images with an attribute and 1,000 without, and a model for each: give all runs "
        "at once.",
        "FID: originals beside their inverted images, both directions together, Inception's 2048 features reduced by "
        "PCA to 1024; of what the components are it does not say: of the originals, and in a second row of both sets.",
        "DFN: which recogniser it does not say. That the interquartile range is smaller than CycleGAN's is in a "
        "figure.",
        "The paper's pictures have 128 px, Inception takes 299: resized bilinearly; 8-bit RGB, no compression.",
    ),
    measures=(
        *measures.distances(
            measures.originals, "Originals beside their inverted images.", _table(_FID), components=1024
        ),
        *measures.dfn(_table(_DFN)),
        measures.accuracy(),
        measures.directed_accuracy(),
        measures.cyclic(),
        measures.untouched(),
        measures.same_person(),
        measures.judge_accuracy(),
    ),
    steps=(
        Step("judge", "classifier_128", {"crop": "center178"}, "judge"),
        Step("recognizer", "recognizer_64", role="recognizer"),
        *(Step(name, "attribute_inverse_128", {"attributes": name}) for name in _COLUMNS),
    ),
)
