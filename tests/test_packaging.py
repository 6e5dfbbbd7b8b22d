"""What is in the repository is in the installed package, and the scripts say what they do."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_every_subpackage_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in ROOT.glob("faceattr_jax/**/__init__.py")}
    assert listed == found | {"faceattr_jax.configs"}


def test_configs_are_importable_without_the_repository(tmp_path: Path) -> None:
    program = "import faceattr_jax.configs as c, pathlib; print(pathlib.Path(c.__file__).parent.resolve())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    if "No module named 'faceattr_jax" in done.stderr:
        pytest.skip("the package is not installed: pip install -e .")
    installed = Path(done.stdout.strip())
    assert {path.name for path in installed.glob("*.py")} == {path.name for path in (ROOT / "configs").glob("*.py")}


@pytest.mark.parametrize("script", sorted(ROOT.glob("launch/[!_]*.sh")), ids=lambda path: path.name)
def test_every_script_explains_itself(script: Path) -> None:
    done = subprocess.run(["bash", script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert script.name in done.stdout.splitlines()[0]
