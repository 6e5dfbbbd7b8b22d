"""What a batch's size changes besides, and the table of it."""

import json

import pytest

from faceattr_jax import batch_curve
from faceattr_jax import config as configs


@pytest.mark.parametrize(("rule", "rate"), [("constant", 7e-4), ("square_root", 14e-4), ("linear", 28e-4)])
def test_as_many_images_are_seen_at_any_batch(rule, rate):
    config = configs.load("attgan_quickstart")
    changed = batch_curve.changes(config, 64, rule)
    for key, value in changed.items():
        configs.override(config, key, str(value))  # of the keys' own types
    assert config.batch_size * config.train.iterations == 16 * 2300
    assert config.optimizer.learning_rate == pytest.approx(rate)
    assert config.optimizer.schedule == ("linear", 250, 575)
    assert config.ema == pytest.approx(0.99**4)


def test_a_curve_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """By a stand-in for the commands, whose accuracy is a tenth of the logarithm of the batch over 2."""
    calls = []

    def stand_in(arguments):
        flags = dict(argument.split("=", 1) for argument in arguments[1:])
        calls.append(arguments[0])
        if arguments[0] == "train" and "--config.batch_size" in flags:
            batches[flags["--workdir"]] = int(flags["--config.batch_size"])
        if arguments[0] == "evaluate":
            scores = dict.fromkeys(batch_curve.SCORES, 0.1 * (batches[flags["--workdir"]].bit_length() - 1))
            path = tmp_path / flags["--out"] / "evaluation.json"
            path.parent.mkdir()
            path.write_text(json.dumps({**scores, "region_error_ratio": None}))

    batches: dict[str, int] = {}
    monkeypatch.setattr(batch_curve, "run_faceattr", stand_in)
    arguments = [str(tmp_path), "--batches=16,32", "--seeds=2", "--judge=judge", "--config.model.width=16"]
    assert batch_curve.main(arguments) == 0
    assert calls == ["train", "evaluate"] * 8  # the config's batch, and another by three rules, by two seeds
    assert batch_curve.main(arguments) == 0
    assert len(calls) == 16
    found = json.loads((tmp_path / "batch_curve.json").read_text())
    assert {(row["rule"], row["batch_size"], row["attribute_accuracy"]) for row in found.values()} == {
        ("constant", 16, 0.4), ("constant", 32, 0.5), ("square_root", 32, 0.5), ("linear", 32, 0.5),
    }  # fmt: skip
    text = capsys.readouterr().out
    assert "0.5000 ± 0.0000" in text
    assert text.count("(the config's)") == 2  # once each time
    assert batch_curve.main([*arguments, "--config.sed=1"]) == 2
    assert "no key 'sed' (did you mean 'seed'?)" in capsys.readouterr().err
