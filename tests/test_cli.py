"""Commands end to end, and what they say when something is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceattr_jax import cli, load
from faceattr_jax.data.source import open_source
from faceattr_jax.evaluation import embedders, labelling, opening
from faceattr_jax.evaluation.editors import Compiled
from tests import runs


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    """The suite's compilation cache is on already; a command would move it to the home folder."""
    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def narrow(faces: Path) -> list[str]:
    return [
        f"--config.data.path={faces}", f"--config.attributes={','.join(runs.ATTRIBUTES)}", "--config.crop=none",
        "--config.batch_size=8", "--config.model.width=2", "--config.train.iterations=2",
        "--config.evaluation.images=4",
    ]  # fmt: skip


def test_train_evaluate_edit_slide(faces, trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert cli.main(["train", "--config=attgan_quickstart", f"--workdir={workdir}", *narrow(faces)]) == 0

    evaluate = ["evaluate", f"--workdir={workdir}", f"--judge={trained / 'judge'}", "--images=6", "--curve"]
    assert cli.main([*evaluate, f"--out={tmp_path / 'report'}"]) == 0
    summary = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert summary["images"] == 6
    assert summary["strength"] == 1.0
    assert summary["judge"]["path"].startswith(str(trained / "judge"))
    source, judge = open_source(str(faces), size=32, crop="none"), load(trained / "judge")
    whole = source.table.indices("test")
    reading = labelling.evaluate_judge(Compiled(judge.method, judge.variables), source, whole, runs.ATTRIBUTES)
    assert len(whole) > 6, "the judge's own accuracy is of more than was edited"
    assert summary["evaluation"]["judge"] == reading
    assert [row["strength"] for row in summary["strength_curve"]] == [0, 0.5, 1, 1.5, 2]
    for name in ("evaluation.md", "evaluation.png", "grid.png"):
        assert (tmp_path / "report" / name).stat().st_size > 0
    assert "attribute_accuracy " in capsys.readouterr().out

    picture = faces / "000.png"
    edit = ["edit", str(picture), f"--checkpoint={workdir}", f"--out={tmp_path}", "--set=Eyeglasses=1,Male=0"]
    edit.append("--aligned")
    assert cli.main(edit) == 0
    assert opened(tmp_path / "000.edited.png").size == (32, 32)
    slide = ["slide", str(picture), f"--checkpoint={workdir}", f"--out={tmp_path}", "--attribute=Male"]
    assert cli.main([*slide, "--strengths=0,1", "--source=Male=1"]) == 0
    assert opened(tmp_path / "000.slide.png").size[0] > 3 * 32


def test_evaluate_by_a_protocol(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embedders, "faces", lambda crop, *names, recognizer="": "no weights of a face network here")
    argv = ["evaluate", "--workdir", str(trained / "attgan"), f"--judge={trained / 'judge'}", "--images=6", "--curve"]
    assert cli.main([*argv, "--protocol=attgan", f"--out={tmp_path / 'out'}"]) == 0
    assert "Attribute accuracy: mean" in capsys.readouterr().out
    tree = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [row["strength"] for row in tree["curves"][0]] == [0, 0.5, 1, 1.5, 2]
    skipped = {measure["title"]: measure["skipped"] for measure in tree["measures"]}
    assert skipped["Same person"] == "no weights of a face network here"
    assert skipped["Attribute accuracy"] is None

    for wrong, message in (
        (["--protocol=atgan"], "unknown protocol 'atgan' (did you mean 'attgan'?)"),
        (["--workdir", str(trained / "attgan")], "belong to a --protocol"),
    ):
        assert cli.main([*argv, *wrong, f"--out={tmp_path / 'bad'}"]) == 2
        assert message in capsys.readouterr().err
    assert (
        cli.main(["evaluate", "--workdir", str(trained / "judge"), "--protocol=attgan", f"--out={tmp_path / 'bad'}"])
        == 2
    )
    assert "a classifier model edits no faces" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_compare_two_methods(trained, faces, tmp_path, capsys, monkeypatch):
    """A trained one, and one by exemplar that was never trained."""
    fresh = runs.fresh(runs.elegant(faces))
    load = opening.load
    monkeypatch.setattr(opening, "load", lambda path: fresh if str(path) == "fresh" else load(path))
    monkeypatch.setattr(embedders, "faces", lambda crop, *names: "no weights here")
    argv = ["compare", str(trained / "attgan"), "fresh", f"--judge={trained / 'judge'}", "--images=8"]
    assert cli.main([*argv, f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [run["style"] for run in found["runs"]] == ["free", "of a reference"]
    assert found["runs"][0]["shared"]["region_ratio"] is None
    assert "comparison.json" in capsys.readouterr().out


def test_evaluate_a_judge(trained, capsys, tmp_path):
    assert cli.main(["evaluate", str(trained / "judge"), f"--out={tmp_path}"]) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(report["attributes"]) == set(runs.ATTRIBUTES)
    assert 0 <= report["balanced_accuracy"] <= 1
    assert "| Male |" in (tmp_path / "evaluation.md").read_text()
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert {f"accuracy: {name}" for name in runs.ATTRIBUTES} < set(printed)
    assert float(printed["accuracy: Male"]) == pytest.approx(report["attributes"]["Male"]["accuracy"], abs=1e-4)


def test_what_an_evaluation_lacks(trained, capsys, tmp_path):
    for argv, message in (
        ([], "say which run: faceattr evaluate RUN, or --workdir=RUN"),
        ([str(trained / "judge"), "--workdir", str(trained / "judge")], "several runs and --recognizer belong to"),
    ):
        assert cli.main(["evaluate", *argv, f"--out={tmp_path / 'out'}"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_commands(faces, tmp_path, capsys):
    assert cli.main(["data", "check", str(faces)]) == 0
    assert "Eyeglasses" in capsys.readouterr().out
    out = tmp_path / "prepared"
    assert cli.main(["data", "prepare", str(faces), f"--out={out}", "--size=16", "--crop=none"]) == 0
    assert np.load(out / "images.npy").shape == (runs.COUNT, 16, 16, 3)
    broken = shutil.copytree(faces, tmp_path / "broken")
    (broken / "003.png").write_bytes(b"not a picture")
    assert cli.main(["data", "check", str(broken)]) == 2
    captured = capsys.readouterr()
    assert "003.png" in captured.out
    assert "1 problem" in captured.err


def test_benchmark(faces, tmp_path, capsys):
    out = tmp_path / "benchmark.json"
    flags = ["--config=attgan_quickstart", *narrow(faces), "--config.critic_updates=3", "--rounds=1", f"--out={out}"]
    assert cli.main(["benchmark", *flags]) == 0
    found = json.loads(out.read_text())
    assert set(found["phase_seconds"]) == set(found["compile_seconds"]) == {"critic", "generator"}
    updates = 3 + 1
    assert found["images_per_second"] == pytest.approx(updates * 8 / found["iteration_seconds"])
    assert found["input_images_per_second"] > 0
    assert found["peak_host_bytes"] > 2**20
    for name, seconds in found["phase_seconds"].items():
        assert found["phase_flops"][name] > 1e5
        assert found["phase_bytes"][name] > 1e5
        devices = len(found["devices"])
        share = found["phase_flops"][name] / seconds / found["peak_flops_per_second"] / devices
        assert found["phase_peak_share"][name] == pytest.approx(share)
        assert found["warm_compile_seconds"][name] > 0  # how much less than cold ones is a matter of the machine
        assert found["phase_moved"][name]["all-reduce"]["operations"] > 0  # the tests' eight devices
    inference = found["inference"]
    assert (inference["verb"], set(inference["batch_seconds"])) == ("edit", {"1", "8"})
    assert inference["images_per_second"] == max(int(n) / s for n, s in inference["batch_seconds"].items())
    assert "trace and compile" in capsys.readouterr().out


TRAIN = ["train", "--config=attgan_quickstart", "--workdir={tmp}/w"]
EDIT = ["edit", "{faces}/000.png", "--checkpoint={runs}/attgan", "--out={tmp}", "--aligned"]
EVALUATE = ["evaluate", "--workdir={runs}/attgan", "--out={tmp}"]
BAD = {
    "unknown flag": ([*TRAIN, "--wokdir=x"], "--wokdir=x: there is no such argument (did you mean '--workdir'?)"),
    "unknown key": ([*TRAIN, "--config.model.widht=2"], "no key 'model.widht' (did you mean 'model.width'?)"),
    "key without value": ([*TRAIN, "--config.seed"], "write --config.seed=VALUE"),
    "unknown config": (["train", "--config=atgan_64", "--workdir=w"], "no such config (did you mean 'attgan_64'?)"),
    "config key elsewhere": ([*EVALUATE, "--config.seed=1"], "--config.seed=1: there is no such argument"),
    "missing folder": ([*TRAIN, "--config.data.path={tmp}/absent"], "there is no folder"),
    "empty folder": ([*TRAIN, "--config.data.path={tmp}"], "is empty"),
    "odd batch": ([*TRAIN, "--config.data.path={faces}", "--config.batch_size=7"], "7"),
    "absent attribute": ([*TRAIN, "--config.data.path={faces}", "--config.crop=none"], "unknown attribute"),
    "unknown crop": ([*TRAIN, "--config.data.path={faces}", "--config.crop=center187"], "did you mean 'center178'?"),
    "unknown attribute": ([*EDIT, "--set=Eyeglases=1"], "did you mean 'Eyeglasses'?"),
    "not an edit": ([*EDIT, "--set=Eyeglasses"], "'Eyeglasses'"),
    "contradiction": ([*EDIT, "--set=Male=1,Male=0"], "sets Male to both 0 and 1"),
    "missing picture": (["edit", "{tmp}/no.jpg", *EDIT[2:], "--set=Male=1"], "no.jpg"),
    "checkpoint of another method": (
        ["edit", "{faces}/000.png", "--checkpoint={runs}/judge", "--out={tmp}", "--set=Male=1", "--aligned"],
        "a classifier model cannot edit",
    ),
    "no checkpoint": (
        ["edit", "{faces}/000.png", "--checkpoint={tmp}", "--out={tmp}", "--set=Male=1"],
        "there is no checkpoint here",
    ),
    "judge that is not there": ([*EVALUATE, "--judge={tmp}/none"], "there is no checkpoint here"),
    "unknown split": ([*EVALUATE, "--split=tset"], "did you mean 'test'?"),
    "prepared in the way": (["data", "prepare", "{faces}", "--out={faces}", "--size=16", "--crop=none"], "exists"),
    "nothing to convert": (["data", "tfds", "--from={faces}", "--data-dir={tmp}/t"], "exactly CelebA's 40 attributes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(name, faces, trained, tmp_path, capsys):
    argv, message = BAD[name]
    places = {"tmp": tmp_path, "faces": faces, "runs": trained}
    assert cli.main([part.format(**places) for part in argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("faceattr: ")
    assert message in error
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, "nothing half-written stays behind"


PICTURES = {
    "truncated": lambda p: p.write_bytes(_jpeg("RGB")[:600]),
    "not a picture": lambda p: p.write_text("hello"),
    "10 x 10": lambda p: Image.new("RGB", (10, 10)).save(p),
    "20,000 x 20,000": lambda p: _huge(p),
}


def _jpeg(mode: str) -> bytes:
    import io

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG")
    return file.getvalue()


def _huge(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


@pytest.mark.parametrize("kind", PICTURES)
def test_bad_pictures_are_named(kind, trained, tmp_path, capsys):
    path = tmp_path / ("bad.png" if "20,000" in kind else "bad.jpg")
    PICTURES[kind](path)
    argv = ["edit", str(path), f"--checkpoint={trained / 'attgan'}", f"--out={tmp_path}", "--set=Male=1"]
    argv.append("--aligned")
    assert cli.main(argv) == 2
    assert path.name in capsys.readouterr().err
    assert not list(tmp_path.glob("*.edited.png"))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_pictures_of_every_mode_are_edited(mode, trained, tmp_path):
    path = tmp_path / ("face.jpg" if mode in ("L", "CMYK") else "face.png")
    Image.new("RGB", (48, 40), (90, 120, 150)).convert(mode).save(path)
    argv = ["edit", str(path), f"--checkpoint={trained / 'attgan'}", f"--out={tmp_path}", "--set=Male=1"]
    argv.append("--aligned")
    assert cli.main(argv) == 0
    assert opened(tmp_path / "face.edited.png").mode == "RGB"


def test_nothing_is_overwritten(faces, trained, tmp_path, capsys):
    argv = ["edit", str(faces / "000.png"), f"--checkpoint={trained / 'attgan'}", f"--out={tmp_path}", "--set=Male=1"]
    argv.append("--aligned")
    assert cli.main(argv) == 0
    before = (tmp_path / "000.edited.png").read_bytes()
    assert cli.main(argv) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "000.edited.png").read_bytes() == before
