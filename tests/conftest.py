"""Eight CPU devices, a persistent compilation cache, and the optional ingredients of some tests.

JAX reads XLA_FLAGS when it first starts a backend, so they are set before anything imports it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

FLAGS = (
    # Compiling is most of the tests' time, and what they compile runs for a moment.
    "--xla_backend_optimization_level=1",
    # Eight devices share few cores: a collective may well wait longer than XLA's 40 s before it aborts the process.
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_collective_timeout_seconds=1200",
    "--xla_cpu_collective_call_terminate_timeout_seconds=1200",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["FACEATTR_OFFLINE"] = "1"  # no test downloads weights

from faceattr_jax import cpu  # noqa: E402

cpu.convolve_by_eigen()

import jax  # noqa: E402
import pytest  # noqa: E402

from faceattr_jax.training import compilation_cache  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# Eight devices on two cores: programs that wait for each other's collectives must not crowd each other out.
jax.config.update("jax_cpu_enable_async_dispatch", False)
compilation_cache.enable(compilation_cache.folder())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that two processes end together."""
    items.sort(key=lambda item: item.path.parent.name != "methods" and item.path.name != "test_learning.py")


@pytest.fixture(autouse=True, scope="module")
def _compiled_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Not where the training itself takes the time."""
    from tests import checks

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "TRAINS_LONG", False):
            checks.share_compiled(patch)
        yield


@pytest.fixture
def strict_promotion() -> Iterator[None]:
    """Implicit mixing of dtypes is an error. Not in every test: optax's Adam itself mixes int32 and float."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained here is not sharded."""
    from tests import checks

    mesh = checks.one_device()
    monkeypatch.setattr("faceattr_jax.training.distributed.mesh", lambda *_: mesh)


@pytest.fixture(scope="session")
def celeba_mini() -> Path:
    """A small CelebA in its own layout: $FACEATTR_CELEBA, or ../shared/celeba-mini beside the clone."""
    folder = Path(os.environ.get("FACEATTR_CELEBA") or ROOT.parent / "shared" / "celeba-mini")
    if not (folder / "list_attr_celeba.txt").is_file():
        pytest.skip(f"no CelebA at {folder}: set FACEATTR_CELEBA to a folder in CelebA's layout")
    return folder


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch as an oracle; never a requirement (`FACEATTR_TORCH=1 ./launch/test.sh` installs it)."""
    module = pytest.importorskip("torch", reason="PyTorch is not installed: FACEATTR_TORCH=1 ./launch/test.sh")
    # Its idle threads spin: beside other processes several are far slower than one.
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], object]], Path]:
    """once(name, make): a folder that the first of the processes to ask for it makes, while the others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with (root / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if not lock.read():
                make(root / name)
                lock.write("made")
        return root / name

    return folder


@pytest.fixture(scope="session")
def faces(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder of 32 px pictures with a labels.csv, from which three attributes can be learned; not to be changed."""
    from tests import runs

    return once("faces", runs.make_faces)


@pytest.fixture(scope="session")
def trained(faces: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with the runs `attgan` and `judge`, trained for a few iterations on `faces`; not to be changed."""
    from faceattr_jax.training import distributed
    from faceattr_jax.training.loop import train
    from tests import checks, runs

    def train_both(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            one = checks.one_device()
            patch.setattr(distributed, "mesh", lambda: one)
            checks.share_compiled(patch)
            train(runs.classifier(faces), folder / "judge")
            train(runs.attgan(faces, evaluation__judge=str(folder / "judge")), folder / "attgan")

    return once("runs", train_both)
