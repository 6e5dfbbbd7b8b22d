"""Training learns: short runs on drawn faces beat what no untrained model reaches."""

import jax
import pytest

from faceattr_jax import config as configs
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.training import distributed
from faceattr_jax.training.loop import train

TRAINS_LONG = True  # optimise
ATTRIBUTES = "Black_Hair,Blond_Hair,Pale_Skin"


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    one = distributed.mesh(jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "mesh", lambda: one)
        yield learn(tmp_path_factory)


def learn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    common = {"attributes": ATTRIBUTES, "data.path": "synthetic:1800", "evaluation.images": "64"}
    judge = {"train.iterations": "120", "optimizer.schedule": "()", "train.log_every": "40"}
    judge["model.batch_norm_momentum"] = "0.9"  # the averages of a short run
    train(configs.load("classifier_synthetic", {**common, **judge}), folder / "judge")
    # Weights that favour edits over fine detail, for which so short a run has no time.
    editor = {"model.width": "16", "train.iterations": "350", "optimizer.schedule": "()"}
    editor |= {"loss.reconstruction": "25.0", "model.instance_noise": "0.3"}
    train(configs.load("attgan_quickstart", {**common, **editor}), folder / "attgan")
    return folder


def test_the_judge_reads_attributes(learned, tmp_path):
    assert evaluate(learned / "judge", tmp_path)["balanced_accuracy"] > 0.9  # chance, untrained: 0.5


def test_the_editor_edits(learned, tmp_path):
    """An untrained decoder gives everybody the same values: right in one direction, wrong in the other."""
    found = evaluate(learned / "attgan", tmp_path, judge=str(learned / "judge"), images=150)
    assert found["attribute_accuracy"] > 0.7
    assert found["untrained_attribute_accuracy"] < 0.55
    assert found["copy_attribute_accuracy"] < 0.1
    assert found["untouched_change"] < 0.15 < found["untrained_untouched_change"]
    assert found["reconstruction_psnr"] > 18
