"""The files hold the numbers that were found, and are never half written."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from faceattr_jax.evaluation import labelling, page, report, run
from faceattr_jax.evaluation.editing import evaluate_editors, strength_curve, summarize
from faceattr_jax.evaluation.editors import CopyingEditor

PROTOCOL = {"data": "fake, test split", "crop": "none to 16 px"}


@pytest.fixture
def found(fake: ModuleType) -> dict[str, Any]:
    """A perfect editor, a copying one and a constant one on faces of which none lacks Eyeglasses."""
    source = fake.Drawn()
    indices = np.flatnonzero(source.table.labels[:, 2])
    editors = {"model": fake.Perfect(source), "copy": CopyingEditor(fake.NAMES), "untrained": fake.Constant(255)}
    judge = fake.Judge(errs=indices[:1])
    found = evaluate_editors(editors, judge, source, fake.NAMES, indices)
    return {**found, "judge": labelling.evaluate_judge(judge, source, np.arange(24), fake.NAMES)}


def test_files(found: dict[str, Any], fake: ModuleType, tmp_path: Path) -> None:
    source = fake.Drawn()
    curve = strength_curve(fake.Perfect(source), fake.Judge(), source, ("Male",), np.arange(8), strengths=(0, 1))
    summary = summarize(found, {"path": "runs/judge", "sha256": "abc"})
    out = tmp_path / "new" / "folder"
    report.write_report(out, summary, found, protocol=PROTOCOL, curve=curve)
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "evaluation.md"]
    tree = json.loads((out / "evaluation.json").read_text())
    assert tree == {**summary, "protocol": PROTOCOL, "evaluation": found, "strength_curve": curve}
    assert tree["attribute_accuracy"] == pytest.approx((6 + 5 / 6) / 7)  # Eyeglasses can only be removed


def test_tables(found: dict[str, Any]) -> None:
    text = report.markdown(summarize(found, {"path": "runs/judge"}), found, protocol=PROTOCOL)
    # 12 faces, 6 of them Male or not; the judge errs on one without Male, which copying then gets right.
    assert "| Eyeglasses | 0 | - | - | - | 12 | 1.000 | 0.000 | 0.000 |" in text
    assert "| Male | 6 | 0.833 | 0.167 | 1.000 | 6 | 1.000 | 0.000 | 0.000 |" in text
    assert "## Against the drawn truth" in text
    assert "## By strength" not in text
    wrong, faces = 1, found["judge"]["Male"]
    assert f"| Male | {faces['balanced_accuracy']:.3f} | {1 - wrong / 24:.3f} | {faces['majority']:.3f} |" in text
    for line in ("* data: fake, test split", "* judge path: runs/judge", "* adding Eyeglasses: no face here lacks it"):
        assert line in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_scores() -> None:
    rows = {"Male": {"accuracy": 0.5, "commoner_class": 0.25}, "mean": {"accuracy": 1.0, "commoner_class": None}}
    assert report.scores("Reading", rows).splitlines() == [
        "# Reading",
        "",
        "|  | accuracy | commoner class |",
        "| --- | --- | --- |",
        "| Male | 0.500 | 0.250 |",
        "| mean | 1.000 | - |",
    ]


def test_the_chart_has_the_model_and_a_copy(found: dict[str, Any], monkeypatch, tmp_path: Path) -> None:
    asked: dict[str, dict[str, float]] = {}
    monkeypatch.setattr(page, "bars", lambda title, series: asked.update(series) or [page.Picture(b"chart", title)])
    run._save_chart(tmp_path, found)
    assert (tmp_path / "evaluation.png").read_bytes() == b"chart"
    assert list(asked) == ["model, adding", "model, removing", "copy, adding", "copy, removing"]
    assert "Eyeglasses" not in asked["model, adding"], "no face lacks them"
    assert (asked["model, removing"]["Eyeglasses"], asked["copy, removing"]["Eyeglasses"]) == (1, 0)
