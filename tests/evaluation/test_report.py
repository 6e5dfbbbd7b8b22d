"""The three files hold the numbers that were found, and are never half written."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.evaluation import report
from faceattr_jax.evaluation.editing import evaluate_editors, strength_curve, summarize
from faceattr_jax.evaluation.editors import CopyingEditor

PROTOCOL = {"data": "fake, test split", "crop": "none to 16 px"}


@pytest.fixture
def found(fake: ModuleType) -> dict[str, Any]:
    """A perfect editor, a copying one and a constant one on faces of which none lacks Eyeglasses."""
    source = fake.Drawn()
    indices = np.flatnonzero(source.table.labels[:, 2])
    editors = {"model": fake.Perfect(source), "copy": CopyingEditor(fake.NAMES), "untrained": fake.Constant(255)}
    return evaluate_editors(editors, fake.Judge(errs=indices[:1]), source, fake.NAMES, indices)


def test_files(found: dict[str, Any], fake: ModuleType, tmp_path: Path) -> None:
    source = fake.Drawn()
    curve = strength_curve(fake.Perfect(source), fake.Judge(), source, ("Male",), np.arange(8), strengths=(0, 1))
    summary = summarize(found, {"path": "runs/judge", "sha256": "abc"})
    out = tmp_path / "new" / "folder"
    report.write_report(out, summary, found, protocol=PROTOCOL, curve=curve)
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "evaluation.md", "evaluation.png"]
    tree = json.loads((out / "evaluation.json").read_text())
    assert tree == {**summary, "protocol": PROTOCOL, "evaluation": found, "strength_curve": curve}
    assert tree["attribute_accuracy"] == pytest.approx((6 + 5 / 6) / 7)  # Eyeglasses can only be removed
    with Image.open(out / "evaluation.png") as image:
        assert image.size[0] == 640


def test_tables(found: dict[str, Any]) -> None:
    text = report.markdown(summarize(found, {"path": "runs/judge"}), found, protocol=PROTOCOL)
    # 12 faces, 6 of them Male or not; the judge errs on one without Male, which copying then gets right.
    assert "| Eyeglasses | 0 | - | - | - | 12 | 1.000 | 0.000 | 0.000 |" in text
    assert "| Male | 6 | 0.833 | 0.167 | 1.000 | 6 | 1.000 | 0.000 | 0.000 |" in text
    assert "## Against the drawn truth" in text
    assert "## By strength" not in text
    for line in ("* data: fake, test split", "* judge path: runs/judge", "* adding Eyeglasses: no face here lacks it"):
        assert line in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_chart_bars_have_the_length_of_the_accuracy() -> None:
    cells = {d: {"accuracy": a} for d, a in (("adding", 0.5), ("removing", None))}
    image = report.chart({"strength": 1.0, "images": 9, "editors": {"model": {"single": {"Male": cells}}}})
    pixels = np.asarray(image).astype(int)
    blue = (pixels[:, :, 2] - pixels[:, :, 0] > 80)[70]  # a row through the first bar
    assert abs(blue.sum() - 200) <= 2
