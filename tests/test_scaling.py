"""`faceattr benchmark --scaling` and `--against=torch`."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from faceattr_jax import benchmark, cli, scaling
from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.methods import base
from faceattr_jax.training.step import Executor
from tests import checks, runs


def test_flops_grow_linearly(faces, tmp_path, monkeypatch):
    """With the batch, beside what a step costs without pictures, and with the devices that have the same each."""
    config = runs.classifier(faces, image_size=16)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    with checks.quickly():
        found = scaling.scaling(config, {"batch": (8, 16, 32, 64), "devices": (1,), "size": (1,)}, rounds=1)
    flops = {(row["axis"], row["value"]): row["flops"] for row in found["rows"]}
    step = flops["batch", 32] - flops["batch", 16]  # XLA fuses fewer pictures otherwise
    assert step > 0.3 * flops["batch", 16]
    assert flops["batch", 64] - flops["batch", 32] == pytest.approx(2 * step, rel=1e-3)
    assert flops["batch", 8] == pytest.approx(2 * flops["devices", 1], rel=0.02)
    assert [row["moved_bytes"] > 0 for row in found["rows"]] == [True, True, True, True, False]
    # What the networks do not take is left out, and said.
    assert [text.split(":")[0] for text in found["left_out"]] == ["size 1 is left out"]
    assert "devices 1" in scaling.table(found)
    pytest.importorskip("matplotlib")
    paths = scaling.plot(found, tmp_path / "out")
    assert len(paths) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_what_is_measured_where_nothing_is_said(faces):
    config = runs.attgan(faces, batch_size=32)
    assert scaling.points(config, []) == {
        "batch": (8, 16, 32, 64),
        "width": (1, 2),
        "size": (16, 32),
        "devices": (1, 2, 4, 8),
    }
    assert scaling.points(config, ["batch=8,24"]) == {"batch": (8, 24)}
    assert "width" not in scaling.points(runs.classifier(faces), [])
    for texts, reason in (
        (["bach"], "--scaling=bach: it can be batch, width, size, devices"),
        (["batch=many"], "write batch=VALUE,VALUE, in whole numbers"),
    ):
        with pytest.raises(UserError, match=reason):
            scaling.points(config, texts)
    with pytest.raises(UserError, match=r"a classifier config has no model\.width"):
        scaling.points(runs.classifier(faces), ["width"])
    with pytest.raises(UserError, match="--scaling=devices=9: there are 8"):
        scaling.scaling(config, {"devices": (9,)})


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_operations_are_those_of_all_devices(backend, monkeypatch):
    """Of a convolution, by hand; on a GPU by the program before compilation, which any backend has."""
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    images = jax.device_put(np.ones((8, 6, 6, 3), np.float32), NamedSharding(mesh, PartitionSpec("data")))
    kernel = jax.device_put(np.ones((3, 3, 3, 5), np.float32), NamedSharding(mesh, PartitionSpec()))
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=layout))
    lowered = convolve.lower(images, kernel)
    program = benchmark.Program(lowered, lowered.compile())
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert benchmark.operations(program, 2) == pytest.approx(2 * 8 * 4 * 4 * 5 * 3 * 3 * 3, rel=1e-3)


def test_several_iterations_in_one_call_are_timed(faces):
    own = benchmark.setting(runs.classifier(faces, image_size=16, data__resident="on"), checks.one_device())
    with checks.quickly():
        executor = Executor(own.method, own.stage, seed=0, mesh=own.mesh, scan=True)
        found = benchmark._input(own, executor, checks.fresh(own.method))
    assert found["iterations_per_call"] == 10
    assert found["iteration_seconds_in_one_call"] > 0


def test_the_torch_oracles_are_in_a_clone_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "site-packages" / "faceattr_jax" / "benchmark.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", "--config=attgan_64", "--against=torch"]) == 2
    assert "call it in a clone of the repository" in capsys.readouterr().err


CONFIGS = {
    "attgan": runs.attgan,
    "attribute_inverse": runs.attribute_inverse,
    "diat": runs.diat,
    "elegant": runs.elegant,
    "slgan": runs.slgan,
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in CONFIGS), ("attribute_inverse", {"model.skips": "full", "model.norm": "layer"})],
)
def test_inference_is_pytorchs(name, changes, faces, torch):
    """Of the same weights, batch statistics that have moved among them."""
    from tests.oracles import benchmark_torch

    config = CONFIGS[name](faces, **changes)
    method = base.build(config)
    state = runs.random_editor(config)
    peer = benchmark_torch.PEERS[name](config, state.variables)
    rng = np.random.default_rng(0)
    with checks.quickly():
        verb, found = benchmark_torch.inference_in_turns(method, state.variables, peer, rng, 4, 2, exact=True)
    assert verb == ("swap" if name == "elegant" else "edit")
    assert 0 < found["difference"] < 1e-5, found["difference"]
    assert len(found["seconds"]["ours"]) == len(found["seconds"]["torch"]) == 2
    assert found["ratio"] > 0


def test_what_the_torch_oracles_cover(torch):
    with pytest.raises(UserError, match="no PyTorch implementation of classifier, but of attgan, attribute_inverse, "):
        benchmark.torch_oracle(configs.load("classifier_64"))
    with pytest.raises(UserError, match=r"needs --config\.model\.generator_norm=batch"):
        benchmark.torch_oracle(configs.load("attgan_quickstart"))
    with pytest.raises(UserError, match=r"needs --config\.task=transfer"):
        benchmark.torch_oracle(configs.load("diat_hallucination"))
    papers = ("attgan_64", "attgan_128", "attribute_inverse_128", "diat_128", "elegant_128", "elegant_256", "slgan_64")
    for spec in papers:
        benchmark.torch_oracle(configs.load(spec))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attgan", "elegant", "slgan"])  # of the last the oracle is a generator alone
def test_against_torch(name, faces, tmp_path, torch, capsys):
    config = json.loads(json.dumps(CONFIGS[name](faces).to_dict()))
    out = tmp_path / "benchmark.json"
    spec = {"attgan": "attgan_quickstart", "elegant": "elegant_128", "slgan": "slgan_64"}[name]
    keys = ["image_size", "batch_size", "crop", "model.width", "model.encoder", "model.discriminator"]
    keys += ["model.decoder", "model.skips", "model.injections", "critic_updates"] if name == "attgan" else []
    covered = {"attgan": ["model.generator_norm=batch", "model.instance_noise=0", "loss.trace_classification=0"]}
    flags = [f"--config.{change}" for change in covered.get(name, [])]
    flags += [f"--config.data.path={faces}", f"--config.attributes={','.join(runs.ATTRIBUTES)}"]
    for key in keys:
        parent, _, last = key.rpartition(".")
        flags.append(f"--config.{key}={(config[parent] if parent else config)[last]}")
    assert cli.main(["benchmark", f"--config={spec}", *flags, "--against=torch", "--rounds=2", f"--out={out}"]) == 0
    found = json.loads(Path(out).read_text())["torch"]
    assert len(found["inference"]) == 2
    assert ("iteration" in found) == (name != "slgan")
    if name != "slgan":
        assert max(found["differences"]["float64"].values()) < 1e-9
        assert found["iteration"]["ratio"] > 0
    assert "of PyTorch" in capsys.readouterr().out
