"""Editors and judges whose scores can be worked out by hand, on faces whose every pixel is known."""

import json
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.editing import (
    edits_grid,
    evaluate_editor,
    evaluate_editors,
    strength_curve,
    summarize,
)
from faceattr_jax.evaluation.editors import CopyingEditor

DIRECTIONS = ("adding", "removing")


def accuracies(result: dict[str, Any]) -> dict[str, list[float]]:
    return {name: [cells[d]["accuracy"] for d in DIRECTIONS] for name, cells in result["single"].items()}


def test_copying_scores_the_judges_error_per_direction(fake: ModuleType) -> None:
    source, indices = fake.Source(), np.arange(24)
    male = source.table.labels[:, 3]
    errs = [i for i in indices if male[i]][:3] + [i for i in indices if not male[i]][:4]
    judge = fake.Judge(errs=errs)
    found = evaluate_editor(CopyingEditor(fake.NAMES), judge, source, fake.NAMES, indices, batch_size=7)
    model = found["editors"]["model"]
    false_positives, false_negatives = 4 / (~male).sum(), 3 / male.sum()
    assert accuracies(model) == {
        "Black_Hair": [0, 0],
        "Blond_Hair": [0, 0],
        "Eyeglasses": [0, 0],
        "Male": [pytest.approx(false_positives), pytest.approx(false_negatives)],
    }
    assert model["accuracy"] == pytest.approx((false_positives + false_negatives) / 8)
    assert model["by_image"] == pytest.approx(7 / 24 / 4)
    # It changes nothing that the judge sees; of the labels it misses what the judge misses.
    assert model["untouched_change"] == 0
    assert model["untouched_error"] > 0
    assert model["change"] == 0
    assert model["reconstruction"] == {"psnr": None, "ssim": pytest.approx(1), "l1": 0}
    assert found["notes"] == [
        "model: a reconstruction equals its image, so the mean PSNR is infinite and given as null"
    ]
    json.dumps(found, allow_nan=False)


def test_a_copy_scores_the_same_when_it_is_a_new_array(fake: ModuleType) -> None:
    class Copy(CopyingEditor):
        def edit(self, images: Any, source: Any, target: Any, strength: float) -> Any:
            return images + 0

    arguments = fake.Judge(errs=[1, 5, 6]), fake.Source(), fake.NAMES, np.arange(24)
    one = evaluate_editor(Copy(fake.NAMES), *arguments, batch_size=8)
    other = evaluate_editor(CopyingEditor(fake.NAMES), *arguments, batch_size=8)
    assert one == other


def test_a_perfect_editor_scores_the_judges_accuracy_and_no_region_error(fake: ModuleType) -> None:
    source, indices = fake.Drawn(), np.arange(24)
    judge = fake.Judge(errs=[0, 1, 2])  # three faces, all of Male = 0
    labels = source.table.labels[:, 3]
    wrong = [(~labels)[:3].sum() / (~labels).sum(), labels[:3].sum() / labels.sum()]
    editor = fake.Perfect(source)
    found = evaluate_editor(editor, judge, source, fake.NAMES, indices, batch_size=10, region_faces=5)
    model = found["editors"]["model"]
    assert editor.shapes == {(10, 16, 16, 3)}, "one shape: one compilation"
    expected = {name: [1, 1] for name in fake.NAMES[:3]} | {"Male": [pytest.approx(1 - w) for w in wrong]}
    assert accuracies(model) == expected
    assert model["region"]["ratio"] == 0
    assert model["region"]["drift"] == 0
    assert model["single"]["Male"]["adding"]["region"]["faces"] == 5
    assert model["untouched_change"] == 0
    # Both of a pair right, unless the judge errs on Male.
    for row in model["multiple"]:
        share = 3 / 24 if "Male" in row["attributes"] else 0
        assert row["faces"] == 24
        assert row["accuracy"] == pytest.approx(1 - share)
        assert row["mean_accuracy"] == pytest.approx(1 - share / len(row["attributes"]))


def test_region_errors_by_hand(fake: ModuleType) -> None:
    # Eyeglasses are OFF = 50, or 200 in a face's own style and 240 or 180 in the redrawn ones.
    source, judge, n = fake.Drawn(), fake.Judge(), fake.NAMES.index("Eyeglasses")
    indices = np.arange(24)
    editors = {"model": fake.Constant(230), "copy": CopyingEditor(fake.NAMES), "style 1": fake.Perfect(source, style=1)}
    found = evaluate_editors(editors, judge, source, ("Eyeglasses",), indices, batch_size=5, region_faces=100)
    cells = {name: found["editors"][name]["single"]["Eyeglasses"] for name in editors}
    adding, removing = (cells["model"][d]["region"] for d in DIRECTIONS)
    # The nearest truth to 230 is 240, 190 away from the input; removed, the truth is 50 and the input 200.
    assert adding["ratio"] == pytest.approx(10 / 190)
    assert removing["ratio"] == pytest.approx(180 / 150)
    # The median of 200, 240 and 180 is 200, which is itself a truth; removing leaves nothing free.
    assert adding["floor"] == removing["floor"] == 0
    assert adding["faces"] + removing["faces"] == 24
    assert [cells["copy"][d]["region"]["ratio"] for d in DIRECTIONS] == [1, 1]
    assert [cells["style 1"][d]["region"]["ratio"] for d in DIRECTIONS] == [0, 0]
    assert found["editors"]["model"]["region"]["ratio"] == pytest.approx((10 / 190 + 180 / 150) / 2)
    # Outside, |230 - input| over the faces without eyeglasses; every pixel counts once.
    chosen = indices[~source.table.labels[:, n]]
    outside = np.ones((16, 16), bool)
    outside[fake.square(n)] = False
    drift = np.abs(230.0 - source.images(chosen)[:, outside]).mean()
    assert adding["drift"] == pytest.approx(drift, rel=1e-6)


def test_floor_of_styles_that_have_no_common_pixel(fake: ModuleType) -> None:
    class Patches(fake.Drawn):  # each style lights up another third of the square
        def counterfactual(self, indices: np.ndarray, labels: np.ndarray, style: int | None = None) -> np.ndarray:
            truth = super().counterfactual(indices, labels)
            rows, columns = fake.square(2)
            added = labels[:, 2] > self.table.labels[indices][:, 2]
            column = columns.start + (0 if style is None else style + 1)
            truth[added, rows, columns] = fake.OFF
            truth[added, rows, column] = 200
            return truth

    found = evaluate_editor(CopyingEditor(fake.NAMES), fake.Judge(), Patches(), ("Eyeglasses",), np.arange(24))[
        "editors"
    ]["model"]["single"]["Eyeglasses"]
    # No pixel is lit in most styles, so the best that hedges paints nothing: as bad as copying.
    assert found["adding"]["region"]["floor"] == 1
    assert found["adding"]["region"]["ratio"] == 1


def test_the_region_takes_in_what_conflicts_change(fake: ModuleType) -> None:
    # Blond hair on a black-haired face also unpaints the black hair, although the editor knows only Blond_Hair.
    source = fake.Drawn(np.tile(np.array([[True, False, False, False]]), (4, 1)))
    editor = fake.Perfect(source, names=("Blond_Hair",))
    found = evaluate_editor(editor, fake.Judge(), source, ("Blond_Hair",), np.arange(4), region_faces=4)
    adding = found["editors"]["model"]["single"]["Blond_Hair"]["adding"]["region"]
    assert adding == {"ratio": 0, "floor": 0, "drift": 0, "faces": 4}


def test_untouched_change_by_hand(fake: ModuleType) -> None:
    # A constant bright picture shows every attribute, on every face.
    source, indices = fake.Source(), np.arange(12)
    labels = source.table.labels[:12]
    found = evaluate_editor(fake.Constant(255), fake.Judge(), source, fake.NAMES, indices, batch_size=5)
    model = found["editors"]["model"]
    changed = pairs = 0
    for row in labels:
        for j in range(4):
            touched = {j} | ({1 - j} if j < 2 and not row[j] else set())
            pairs += 4 - len(touched)
            changed += sum(not row[k] for k in range(4) if k not in touched)
    assert model["untouched_change"] == model["untouched_error"] == changed / pairs
    assert accuracies(model) == {name: [1, 0] for name in fake.NAMES}
    assert (model["adding"], model["removing"], model["accuracy"]) == (1, 0, 0.5)
    assert model["worst"] == ["Black_Hair", "removing"]


def test_results_do_not_depend_on_the_batch_size(fake: ModuleType) -> None:
    def found(batch_size: int) -> dict[str, Any]:
        source = fake.Drawn()
        editors = {"model": fake.Perfect(source, style=0), "untrained": fake.Constant(130)}
        judge = fake.Judge(errs=[2, 3, 9])
        return evaluate_editors(
            editors, judge, source, fake.NAMES, np.arange(3, 22), strength=0.9, batch_size=batch_size
        )

    once = found(19)
    assert found(4) == found(7) == found(64) == once


def test_an_editor_of_one_attribute_touches_all_it_has(fake: ModuleType) -> None:
    source = fake.Drawn()
    editors = {"model": fake.Perfect(source, names=("Male",)), "copy": CopyingEditor(("Male",))}
    found = evaluate_editors(editors, fake.Judge(), source, ("Male",), np.arange(24))
    assert found["editors"]["model"]["multiple"] == []
    assert found["notes"][0] == (
        "every edit touches all attributes that the judge reads; there is no untouched change or error"
    )
    summary = summarize(found)
    assert (summary["attribute_accuracy"], summary["copy_attribute_accuracy"]) == (1, 0)
    assert summary["untouched_change"] is summary["untouched_error"] is None
    json.dumps(found, allow_nan=False)
    pictures, names = edits_grid(editors["model"], source.images(np.arange(2)), source.table.labels[:2, 3:], ("Male",))
    assert (pictures.shape, names) == ((2, 3, 16, 16, 3), ["Input", "Reconstruction", "Male"])


def test_no_change_asked_is_a_reconstruction(fake: ModuleType) -> None:
    source = fake.Drawn()
    found = evaluate_editor(
        fake.Perfect(source), fake.Judge(), source, fake.NAMES, np.arange(9), strength=0.0, region_faces=0
    )["editors"]["model"]
    assert found["accuracy"] == 0
    assert found["change"] == found["reconstruction"]["l1"] == 0
    assert found["region"] is None


def test_a_direction_without_faces_is_null_and_noted(fake: ModuleType) -> None:
    source = fake.Drawn(np.array([[True, False, True, False], [False, True, True, False]]))
    found = evaluate_editor(fake.Perfect(source), fake.Judge(), source, fake.NAMES, np.arange(2))
    model = found["editors"]["model"]
    assert model["single"]["Eyeglasses"]["adding"]["accuracy"] is None
    assert model["single"]["Male"]["removing"]["faces"] == 0
    assert model["accuracy"] == model["region"]["ratio"] + 1 == 1
    assert [note.partition(":")[0] for note in found["notes"]] == ["adding Eyeglasses", "removing Male", "model"]
    json.dumps(found, allow_nan=False)


def test_a_direction_that_changes_no_pixel_has_no_region_error(fake: ModuleType) -> None:
    class Hidden(fake.Drawn):
        def counterfactual(self, indices: np.ndarray, labels: np.ndarray, style: int | None = None) -> np.ndarray:
            return self.images(indices)

    source = Hidden()
    found = evaluate_editor(CopyingEditor(fake.NAMES), fake.Judge(), source, ("Male",), np.arange(24))
    assert found["editors"]["model"]["region"]["ratio"] is None
    assert "adding Male: changes no pixel of these faces; it has no region error" in found["notes"]


def test_summary_keys(fake: ModuleType) -> None:
    source = fake.Drawn()
    editors = {"model": fake.Perfect(source), "copy": CopyingEditor(fake.NAMES), "untrained": fake.Constant(255)}
    found = evaluate_editors(editors, fake.Judge(), source, fake.NAMES, np.arange(24), strength=0.8)
    found["judge"] = {name: {"balanced_accuracy": 1 - i / 8} for i, name in enumerate(fake.NAMES)}
    summary = summarize(found, {"path": "judge", "sha256": "00"})
    assert summary["judge_balanced_accuracy"] == 1 - 1.5 / 8
    assert summary["judge_balanced_accuracy_per_attribute"]["Male"] == 1 - 3 / 8
    assert (summary["attribute_accuracy"], summary["attribute_accuracy_worst"]) == (1, 1)
    assert (summary["copy_attribute_accuracy"], summary["untrained_attribute_accuracy"]) == (0, 0.5)
    assert (summary["untouched_change"], summary["copy_untouched_change"]) == (0, 0)
    assert 0 < summary["region_error_ratio"] <= 0.2
    assert {"region_error_floor", "reconstruction_psnr", "reconstruction_ssim"} <= summary.keys()
    assert (summary["strength"], summary["images"], summary["judge"]["sha256"]) == (0.8, 24, "00")
    alone = summarize(evaluate_editor(editors["model"], fake.Judge(), source, fake.NAMES, np.arange(4), region_faces=0))
    assert alone["copy_attribute_accuracy"] is alone["region_error_ratio"] is alone["judge_balanced_accuracy"] is None


def test_strength_curve(fake: ModuleType) -> None:
    source = fake.Drawn()
    rows = strength_curve(
        fake.Perfect(source), fake.Judge(), source, ("Male",), np.arange(24), strengths=(0, 0.5, 1), batch_size=12
    )
    # Half way from 50 to 200 is 125, below the judge's 127.5; half way back it is the same picture, judged absent.
    assert [(r["strength"], r["adding"], r["removing"]) for r in rows] == [(0, 0, 0), (0.5, 0, 1), (1, 1, 1)]
    assert [r["change"] for r in rows] == pytest.approx([0, 75 / 16, 150 / 16])


def test_grid(fake: ModuleType) -> None:
    source, faces = fake.Drawn(), np.array([3, 8])
    labels = source.table.labels[faces]
    pictures, names = edits_grid(fake.Perfect(source), source.images(faces), labels, ("Eyeglasses", "Blond_Hair"))
    assert names == ["Input", "Reconstruction", "Eyeglasses", "Blond Hair"]
    assert pictures.shape == (2, 4, 16, 16, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[:, 0], pictures[:, 1])
    flipped = labels.copy()
    flipped[:, 2] ^= True
    np.testing.assert_array_equal(pictures[:, 2], source.counterfactual(faces, flipped))


def test_edits_are_judged_as_they_are_saved(fake: ModuleType) -> None:
    seen = []

    class Watching(fake.Judge):
        def _classify(self, images: Any) -> Any:
            seen.append(images)
            return super()._classify(images)

    judge = Watching()
    judge.classify = judge._classify
    evaluate_editor(fake.Constant(300.4), judge, fake.Source(), ("Male",), np.arange(4), combinations=())
    for images in seen:
        np.testing.assert_array_equal(to_float(to_uint8(images)), images)


def test_bad_requests(fake: ModuleType) -> None:
    source, judge, some = fake.Source(), fake.Judge(), np.arange(4)
    copy = CopyingEditor(fake.NAMES)
    with pytest.raises(UserError, match="did you mean 'Male'"):
        evaluate_editor(copy, judge, source, ("Mael",), some)
    with pytest.raises(UserError, match="judge does not know the editor's attribute Male"):
        evaluate_editor(copy, fake.Judge(fake.NAMES[:3]), source, ("Eyeglasses",), some)
    with pytest.raises(UserError, match="no faces"):
        evaluate_editor(copy, judge, source, fake.NAMES, some[:0])
    with pytest.raises(UserError, match="no attribute to invert"):
        evaluate_editor(copy, judge, source, (), some)
    with pytest.raises(UserError, match="'a' and 'b' differ"):
        evaluate_editors({"a": copy, "b": CopyingEditor(["Male"])}, judge, source, ("Male",), some)
    with pytest.raises(UserError, match="editor 'model' returns pixels that are not finite when it inverts Black_Hair"):
        evaluate_editor(fake.Constant(float("nan")), judge, source, fake.NAMES, some)
    assert jnp.isfinite(judge.classify(to_float(jnp.asarray(source.images(some))))).all()
