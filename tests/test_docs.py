"""What the README and the guide show works: Python is run, commands are parsed by the command line's own parser."""

import ast
import configparser
import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import faceattr_jax as fj
from faceattr_jax import cli, methods
from faceattr_jax import config as configs
from faceattr_jax import editor as editor_module
from faceattr_jax.data.source import open_source
from faceattr_jax.methods.base import build
from faceattr_jax.training.loop import train
from tests import runs
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "sixth_paper.md"


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    got = [Block(page, text.count("\n", 0, m.start()) + 2, m[1], m[2] or "", m[3]) for m in found]
    assert len(got) == text.count("```") / 2, f"{page}: a block that this test cannot read"
    return got


BLOCKS = [block for page in PAGES for block in blocks(page)]


def write_tutorial(folder: Path) -> dict[str, Path]:
    """The tutorial's files, by their names in the repository; what has the same title follows on."""
    texts: dict[str, str] = {}
    for block in blocks(TUTORIAL):
        if block.title:
            texts[block.title] = "\n\n".join(filter(None, (texts.get(block.title, "").rstrip(), block.text)))
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {name: folder / name for name in texts}


@pytest.fixture(scope="module")
def place(faces, trained, tmp_path_factory):
    """A folder as a reader has it who did all that the guide says: runs, their reports and exports, and pictures."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(trained, folder / "runs")
    (folder / "faces").symlink_to(faces)
    for name in ("face.png", "other.png"):
        shutil.copy(faces / "000.png", folder / name)
    report = '{"attribute_accuracy": 0.9, "untouched_change": 0.1, "protocol": {"data": "faces"}}'
    (folder / "runs/attgan/evaluation").mkdir()
    (folder / "runs/attgan/evaluation/evaluation.json").write_text(report)
    write_tutorial(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page, place, monkeypatch):
    monkeypatch.chdir(place)
    own = [block for block in blocks(page) if block.language == "python" and not block.title]
    if any(".stablehlo" in block.text for block in own) and not (place / "attgan.stablehlo").exists():
        pytest.importorskip("flatbuffers")
        from faceattr_jax.export import to_stablehlo

        to_stablehlo("runs/attgan", Path("attgan.stablehlo"))
    # What the README's lines take for granted.
    images = np.zeros((2, 32, 32, 3), np.float32)
    names = {"images": images, "source": np.zeros((2, 3), np.float32), "target": np.ones((2, 3), np.float32)}
    for block in own:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda block: block.place)
def test_commands(block, place, monkeypatch):
    monkeypatch.chdir(place)
    for words in commands(block.text):
        check_command([word for i, word in enumerate(words) if i or not re.fullmatch(r"[A-Z_]+=\S*", word)])


def check_command(words: list[str]) -> None:
    program, *rest = words
    if program == "faceattr":
        if "--help" in rest:
            with pytest.raises(SystemExit, match="0"):
                cli.parse(rest)
            return
        cli.parse(rest)
    elif program.startswith("./"):
        assert os.access(ROOT / program, os.X_OK)
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
    elif program == "pip":
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        for extras in re.findall(r"^\.\[(.*)\]$", "\n".join(rest), re.MULTILINE):
            assert set(extras.split(",")) <= set(setup["options.extras_require"])
    else:
        pytest.fail(f"{program}: nothing here checks this command")


def test_every_block_is_of_a_kind_that_is_checked():
    assert {block.language for block in BLOCKS} <= {"sh", "python", "csv"}
    inline = [text for page in PAGES for text in re.findall(r"`(faceattr [^`]+)`", page.read_text())]
    for text in inline:
        verb, *rest = text.split()[1:]
        choices = next(a for a in cli._parser()._actions if a.choices).choices
        assert verb in choices, text
        known = {flag for action in cli._actions(choices[verb]) for flag in action.option_strings}
        given = {word.split("=")[0] for word in rest if word.startswith("--") and not word.startswith("--config.")}
        assert given <= known, text


def test_the_labels_that_the_guide_shows_are_read(tmp_path):
    (block,) = (block for block in BLOCKS if block.language == "csv")
    (tmp_path / "labels.csv").write_text(block.text)
    for line in block.text.splitlines()[1:]:
        Image.new("RGB", (40, 40)).save(tmp_path / line.split(",")[0])
    table = open_source(str(tmp_path), size=16, crop="center").table
    assert table.attributes == ("Eyeglasses", "Smiling")
    np.testing.assert_array_equal(table.labels, [[1, 0], [0, 1]])
    assert [len(table.indices(split)) for split in ("train", "valid", "test")] == [1, 1, 0]


def test_the_tutorial_is_a_method_like_any_other(faces, tmp_path, monkeypatch):
    written = write_tutorial(tmp_path)
    method, config_file = (written[name] for name in ("faceattr_jax/methods/stargan.py", "configs/stargan_128.py"))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(method.parent)])
    monkeypatch.delitem(sys.modules, "faceattr_jax.methods.stargan", raising=False)
    small = {"image_size": "16", "model.width": "2", "model.blocks": "1", "model.layers": "2", "critic_updates": "2"}
    data = {"data.path": str(faces), "attributes": ",".join(runs.ATTRIBUTES), "crop": "none", "batch_size": "8"}
    short = {"optimizer.schedule": "()", "train.iterations": "2", "evaluation.images": "4"}
    train(configs.load(str(config_file), {**small, **data, **short}), tmp_path / "run")
    editor = fj.load(tmp_path / "run")
    faces_ = np.zeros((2, 16, 16, 3), np.uint8)
    assert editor.edit(faces_, {"Male": 1}).shape == faces_.shape
    assert editor.classify(faces_).shape == (2, 3)
    full = build(configs.load(str(config_file)))  # at the paper's size, by shapes alone
    shapes = jax.eval_shape(full.init, jax.random.key(0))["params"]
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["generator"])) == 8_430_528
    assert shapes["discriminator"]["conv5"]["kernel"].shape == (4, 4, 1024, 2048)


@pytest.fixture(scope="module")
def shown(trained, faces):
    """What the examples in `Editor`'s docstrings call editor and faces, by the capability that they show."""
    elegant = {"image_size": 16, "model.width": 2, "model.encoder": (1, 2), "model.discriminator": (1, 1)}
    editor = fj.load(trained / "attgan")
    exchanger = runs.random_editor(runs.changed("elegant_128:released", elegant, faces, {}))
    return {
        "swap": exchanger, "linear": exchanger, "matrix": exchanger, "generate": runs.random_editor(runs.slgan(faces)),
        "": editor,
    }  # fmt: skip


EXAMPLES = [test for test in doctest.DocTestFinder().find(editor_module) if test.examples]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name.split(".")[-1])
def test_docstrings(test, shown, place, monkeypatch):
    monkeypatch.chdir(place)
    editor = shown.get(test.name.split(".")[-1], shown[""])
    names = {"editor": editor, "faces": np.zeros((8, editor.size, editor.size, 3), np.uint8), "fj": fj}
    test.globs.update(names)
    assert not doctest.DocTestRunner().run(test).failed


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_commands_of_examples(path):
    text = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    found = commands("\n".join(re.findall(r"^ {4}.*$", text, re.MULTILINE)))
    assert ["python", f"examples/{path.name}"] in [words[:2] for words in found]
    for words in found:
        check_command(words)


def test_examples_are_short():
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path


def test_attribute_direction(trained, tmp_path):
    module = example("attribute_direction")
    module.main(str(trained / "attgan"), str(trained / "judge"), "Male", str(tmp_path / "directions.png"), steps=2)
    assert (tmp_path / "directions.png").stat().st_size > 0
    editor, judge = fj.load(trained / "attgan"), fj.load(trained / "judge")
    faces = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)), jnp.float32)
    direction = module.find_direction(editor, judge, faces, "Male", 2)
    features, signs = module.encoded(editor, faces)
    moved = [*features[:-1], features[-1] + direction]
    before, after = (judge.classify(editor.method.decode(editor.variables, f, signs)) for f in (features, moved))
    assert after[:, 2].mean() > before[:, 2].mean()


def test_borrow_discriminator(tmp_path):
    module = example("borrow_discriminator")
    before, after = (module.main(str(tmp_path / "sharp.png"), steps=n, batch=4)["sharpened"] for n in (0, 20))
    assert 0 < after < 0.8 * before  # 0.23 and 0.14


def test_augment_classifier(trained, faces, tmp_path):
    out = tmp_path / "augmented"
    example("augment_classifier").main([str(trained / "attgan"), "Eyeglasses", str(out), "--count=3"])
    before, after = (open_source(str(folder), size=32, crop="none").table for folder in (faces, out))
    assert len(after) == len(before) + 3
    assert len(after.indices("train")) == len(before.indices("train")) + 3
    added = [i for i, name in enumerate(after.names) if name.endswith(".Eyeglasses.png")]
    assert after.labels[added, 1].all()
    assert not before.labels[[int(after.names[i][:6]) for i in added], 1].any()


def test_the_documentation_builds_without_warnings(tmp_path):
    """In this environment, or in the one whose Python is $FACEATTR_DOCS."""
    python = os.environ.get("FACEATTR_DOCS") or sys.executable
    if subprocess.run([python, "-c", "import zensical, mkdocstrings"], capture_output=True).returncode:
        pytest.skip("zensical is not installed: pip install -e .[docs]")
    # It builds beside its configuration.
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "faceattr_jax").symlink_to(ROOT / "faceattr_jax")
    command = [python, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "faceattr_jax.editor.Editor.edit" in (tmp_path / "site/reference/editor.html").read_text()
