"""How well a judge reads attributes."""

from types import ModuleType

import numpy as np
import pytest

from faceattr_jax.evaluation import labelling


def test_a_judge_that_errs_on_seven_of_24_faces(fake: ModuleType) -> None:
    """By hand: Male is wrong on three that have it and on four that lack it, whatever the batches."""
    source, indices = fake.Source(), np.arange(24)
    male = source.table.labels[:, 3]
    judge = fake.Judge(errs=[i for i in indices if male[i]][:3] + [i for i in indices if not male[i]][:4])
    rows = labelling.evaluate_judge(judge, source, indices, ("Male", "Eyeglasses"), batch_size=7)
    assert list(rows) == ["Male", "Eyeglasses"]
    assert rows["Male"] == {
        "accuracy": pytest.approx(17 / 24),
        "balanced_accuracy": pytest.approx(1 - (4 / (~male).sum() + 3 / male.sum()) / 2),
        "majority": pytest.approx(max(male.mean(), 1 - male.mean())),
        "rate": pytest.approx(male.mean()),
    }
    assert rows["Eyeglasses"]["accuracy"] == rows["Eyeglasses"]["balanced_accuracy"] == 1
    assert labelling.mean(rows, "accuracy") == pytest.approx((17 / 24 + 1) / 2)
    assert list(labelling.evaluate_judge(judge, source, indices)) == list(fake.NAMES)


def test_no_balanced_accuracy_of_one_value(fake: ModuleType) -> None:
    source = fake.Drawn(np.array([[True, False, True, False], [False, True, True, False]]))
    rows = labelling.evaluate_judge(fake.Judge(), source, np.arange(2))
    assert rows["Eyeglasses"]["balanced_accuracy"] is None
    assert (rows["Eyeglasses"]["accuracy"], rows["Eyeglasses"]["majority"]) == (1, 1)
    assert labelling.mean(rows, "balanced_accuracy") == 1
