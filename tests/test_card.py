"""Model cards say what is in the checkpoint, the run and its reports."""

import json
import shutil

import pytest

import faceattr_jax as fj
from faceattr_jax import cli
from faceattr_jax import config as configs
from faceattr_jax.card import card
from faceattr_jax.editor import hash_variables
from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import safetensors_file
from tests import runs


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "attgan", tmp_path / "run")


def report(run, **changes):
    content = {
        "images": 1500, "strength": 2.0, "judge": {"path": "runs/judge", "sha256": "abc"}, "attribute_accuracy": 0.65,
        "per_attribute": {"Male": 0.1}, "missing": None,
        "protocol": {"model": str(fj.load(run).path), "data": "celeba_64, test split, 1500 images"}, **changes,
    }  # fmt: skip
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(content))


def test_a_run(run, faces, capsys, tmp_path):
    text = card(run)
    editor = fj.load(run)
    assert text.startswith("# attgan, 32 px: Bangs, Eyeglasses, Male\n\nAttGAN: facial attribute editing")
    assert "It can classify, edit, reconstruct." in text
    assert f"`{hash_variables(editor.variables)}`" in text
    step = int(editor.path.name)
    assert f"| checkpoint | `{editor.path.relative_to(run)}` |" in text
    assert f"| iterations | {step} of 6, batches of 8, seed 0 |" in text
    assert f"The train split of `{faces}`. If its pictures are CelebA's: CelebA may be used for **non-com" in text
    assert "None: `faceattr evaluate` has not measured this run." in text
    assert "On a person who has not agreed to it" in text

    report(run)
    text = card(run)
    assert "| attribute accuracy | 0.6500 |\n" in text
    assert "| images | 1,500 |\n" in text
    assert "- judge: runs/judge, sha256 abc" in text
    assert "another checkpoint" not in text
    assert "per attribute" not in text
    assert cli.main(["card", str(run), f"--out={tmp_path / 'CARD.md'}"]) == 0
    assert (tmp_path / "CARD.md").read_text() == text
    assert capsys.readouterr().out == f"{tmp_path / 'CARD.md'}\n"
    (tmp_path / "CARD.md").write_text("my own")
    assert cli.main(["card", str(run), f"--out={tmp_path / 'CARD.md'}"]) == 2
    assert "CARD.md: this file would be overwritten; move it, or give another name." in capsys.readouterr().err
    assert (tmp_path / "CARD.md").read_text() == "my own"
    assert cli.main(["card", str(run)]) == 0
    assert capsys.readouterr().out == text + "\n"


def test_scores_of_another_checkpoint_say_so(run):
    report(run, protocol={"model": "runs/attgan/checkpoints/77"})
    assert "**Of another checkpoint of this run**, `checkpoints/77`:" in card(run)
    (run / "evaluation" / "evaluation.json").write_text("[1]")
    with pytest.raises(UserError, match=r"evaluation.json' is no report of an evaluation"):
        card(run)


def test_borrowed_networks_are_named(run):
    (run / "frozen.json").write_text(json.dumps({"face": {"network": "dlib", "sha256": "f00"}}))
    assert "Its losses saw the face network `dlib`, sha256 `f00`, trained elsewhere." in card(run)


@pytest.mark.parametrize("data", ["drawn", "celeba", "prepared"])
def test_the_data(data, trained, tmp_path):
    """Of a file, whose run is elsewhere."""
    editor = fj.load(trained / "judge")
    folder = tmp_path / "data"
    folder.mkdir()
    if data == "celeba":
        (folder / "list_attr_celeba.txt").write_text("")
    if data == "prepared":
        about = {"version": 1, "size": 32, "crop": "none", "attributes": [], "source": "synthetic:9"}
        (folder / "prepared.json").write_text(json.dumps({**about, "counts": {"train": 9000, "valid": 0}}))
    config = configs.from_json(configs.to_json(editor.config))
    config.data.path = "synthetic:99" if data == "drawn" else str(folder)
    path = tmp_path / "model.safetensors"
    safetensors_file.write(path, config, editor.variables)
    text = card(path)
    if data == "celeba":
        assert f"The train split of `{folder}`. CelebA may be used for **non-commercial research** only" in text
        assert "Commercially" in text
    else:
        assert "Drawn faces only: no photograph" in text
        assert "On photographs, whose faces it has never seen" in text
        assert "CelebA" not in text
    assert ("prepared from `synthetic:9`: 9,000 train, 0 valid" in text) == (data == "prepared")
    assert "| iterations |" not in text
    assert ", ".join(runs.ATTRIBUTES) in text
