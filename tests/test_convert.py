"""Other programs' weights, against PyTorch builds of the networks that have the published names."""

import collections

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import numpy as safetensors

import faceattr_jax as fj
from faceattr_jax import cli
from faceattr_jax import config as configs
from faceattr_jax.convert import convert
from faceattr_jax.data.images import to_uint8
from faceattr_jax.editor import hash_variables
from faceattr_jax.errors import UserError
from faceattr_jax.export import to_safetensors
from faceattr_jax.methods.base import build
from faceattr_jax.pretrained import attgan_pytorch, elegant_pytorch, safetensors_file
from faceattr_jax.pretrained.state_dict import StateDict
from faceattr_jax.training import loop
from faceattr_jax.training.checkpoint import Checkpoints
from faceattr_jax.training.state import start
from tests import runs
from tests.checks import one_device

NAMES = {"attributes": "Bangs,Eyeglasses,Male"}
SIZE = 32


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    """The suite's compilation cache is on already; a command would move it to the home folder."""
    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


def to_torch(torch, images):
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)


def attgan(torch, path, *, heads=True, norm="batch", skips=1, injections=0, prefix=""):
    """A narrow model in AttGAN-PyTorch's file, and its networks."""
    from tests.oracles import published_torch as published

    networks = {"G": published.AttGANGenerator((4, 8, 16), 3, skips, injections, norm)}
    if heads:
        networks["D"] = published.AttGANDiscriminators((4, 8, 16), 12, 3, SIZE)
    held = {}
    for seed, (name, network) in enumerate(networks.items()):
        state = published.randomize(network, seed).state_dict()
        held[name] = collections.OrderedDict((prefix + key, tensor) for key, tensor in state.items())
    held["optim_G"] = torch.optim.Adam(networks["G"].parameters()).state_dict()
    torch.save(held, path)
    return networks, held


@pytest.mark.parametrize(
    "shape", [{}, {"injections": 2, "skips": 2, "prefix": "module."}, {"norm": "instance", "skips": 0}]
)
def test_attgan_pytorch(shape, images, tmp_path, torch):
    networks, _ = attgan(torch, tmp_path / "weights.pth", **shape)
    config = convert([tmp_path / "weights.pth"], tmp_path / "run", NAMES)
    model = config.model
    assert (config.image_size, config.crop, model.width, model.fc) == (SIZE, "attgan170c", 4, 3)
    assert (model.skips, model.injections) == (shape.get("skips", 1), shape.get("injections", 0))
    editor = fj.load(tmp_path / "run")
    x = to_torch(torch, images)
    with torch.no_grad():
        _, logits = networks["D"](x)
        reconstructed = networks["G"](x, (logits > 0).float() - 0.5).permute(0, 2, 3, 1).numpy()
        # The port's edits, too, give the edited attribute twice the 0.5 of the others.
        expected = networks["G"](x, torch.tensor([[0.5, 1.0, 0.5]] * 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(editor.classify(images), torch.sigmoid(logits).numpy(), atol=1e-4)
    found = editor.edit(images, {"Eyeglasses": 1}, source=[[1, 0, 1]] * 2, strength=2.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(editor.reconstruct(images), reconstructed, atol=1e-4)


def test_a_generator_alone_edits_but_does_not_train(images, tmp_path, torch, faces, trained, capsys):
    """What AttGAN-PyTorch's training script saves."""
    networks, _ = attgan(torch, tmp_path / "weights.pth", heads=False)
    told = {"image_size": str(SIZE), "crop": "none", "data.path": str(faces)}
    config = convert([tmp_path / "weights.pth"], tmp_path / "run", {**NAMES, **told})
    editor = fj.load(tmp_path / "run")
    found = editor.edit(images, {"Male": 1}, source=np.zeros((2, 3)))
    with torch.no_grad():
        expected = networks["G"](to_torch(torch, images), torch.tensor([[-0.5, -0.5, 0.5]] * 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    with pytest.raises(UserError, match="this attgan model cannot read attributes off a face"):
        editor.edit(images, {"Male": 1})
    with pytest.raises(UserError, match="attgan model cannot classify; it can edit, reconstruct"):
        editor.classify(images)
    with pytest.raises(UserError, match="has no discriminator"):
        loop.train(config, tmp_path / "run")

    flags = [str(faces / "000.png"), f"--checkpoint={tmp_path / 'run'}", "--set=Male=1", f"--out={tmp_path}"]
    flags.append("--aligned")
    assert cli.main(["edit", *flags, "--source=Bangs=0,Eyeglasses=1,Male=0"]) == 0
    with Image.open(tmp_path / "000.edited.png") as picture, Image.open(faces / "000.png") as face:
        edited = editor.edit(np.asarray(face), {"Male": 1}, source=[0, 1, 0])
        np.testing.assert_array_equal(np.asarray(picture), to_uint8(edited))
    assert cli.main(["edit", str(faces / "001.png"), *flags[1:], "--source=Male=0"]) == 2
    assert "so give those that it cannot; Bangs, Eyeglasses are missing" in capsys.readouterr().err
    judged = ["evaluate", f"--workdir={tmp_path / 'run'}", f"--judge={trained / 'judge'}", "--images=4"]
    assert cli.main(judged) == 0
    assert "attribute_accuracy " in capsys.readouterr().out


def test_a_converted_run_is_where_training_starts(tmp_path, torch):
    attgan(torch, tmp_path / "weights.pth")
    config = convert([tmp_path / "weights.pth"], tmp_path / "run", NAMES)
    loop.claim(tmp_path / "run", config, {}, {})  # as `train` with the same config does
    checkpoints = Checkpoints(tmp_path / "run", config, keep=1)
    state = loop.start_state(build(config), 0, one_device(), checkpoints)
    checkpoints.close()
    assert state.step == 0
    jax.tree.map(np.testing.assert_array_equal, state.variables, fj.load(tmp_path / "run").variables)
    assert state.opt_states.keys() == {"critic", "generator"}


def test_a_tensor_that_does_not_fit_is_named(tmp_path, torch):
    path, run = tmp_path / "weights.pth", tmp_path / "run"
    _, held = attgan(torch, path)

    def refused(network, changes, message):
        state = {**held[network], **changes}
        torch.save({**held, network: {name: t for name, t in state.items() if t is not None}}, path)
        with pytest.raises(UserError, match=message):
            convert([path], run, NAMES)
        assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]

    has = r"weights.pth' should have a tensor '{}' of {}, and has {}$"
    name = "enc_layers.1.layers.0.weight"
    refused("G", {name: None}, has.format(name, "4 axes", "none"))
    refused("G", {name: torch.zeros(8, 4, 3, 3)}, has.format(name, r"\(8, 4, 4, 4\)", r"one of \(8, 4, 3, 3\)"))
    name = "dec_layers.1.layers.1.running_var"
    refused("G", {name: torch.zeros(3)}, has.format(name, r"\(8,\)", r"one of \(3,\)"))
    refused("D", {"fc_cls.1.layers.0.bias": None}, has.format("fc_cls.1.layers.0.bias", r"\(3,\)", "none"))
    refused("D", {"fc_adv.0.layers.0.weight": torch.zeros(12, 77)}, "reads 77 numbers, no square of 16 channels")
    refused(
        "D", {"fc_adv.2.weight": torch.zeros(2)}, r"has a tensor 'fc_adv.2.weight' that the model has no place for$"
    )
    refused("G", {"a": torch.zeros(2), "b": torch.zeros(2)}, r"tensor 'a' that the model has no place for, and 1 more$")
    torch.save(held, path)
    with pytest.raises(UserError, match=r"has 3 attributes, and the config 13 \(Bald, .*--config.attributes=A,B"):
        convert([path], run)
    with pytest.raises(UserError, match="is a model by itself"):
        convert([path, path], run, NAMES)
    torch.save({"state": held["G"]}, path)
    with pytest.raises(UserError, match="has neither AttGAN-PyTorch's tensors"):
        convert([path], run, NAMES)
    torch.save({"G": held["G"], "args": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match=r"asks for torch.nn.modules.linear.Linear, which no file of weights needs"):
        convert([path], run, NAMES)
    refused(
        "G", {"enc_layers.0.layers.0.weight": torch.zeros(0, 3, 4, 4)}, r"of 4 axes, and has one of \(0, 3, 4, 4\)$"
    )
    torch.save(held, path)
    with pytest.raises(UserError, match=r"weights.pth/run: this folder cannot be written \(Not a directory\)"):
        convert([path], path / "run", NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]


def test_nothing_is_left_half_written(tmp_path, torch, monkeypatch):
    def full(checkpoints):
        raise UserError("the disk is full")

    path = tmp_path / "weights.pth"
    attgan(torch, path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "wait", full)
        with pytest.raises(UserError, match="the disk is full"):
            convert([path], tmp_path / "runs" / "run", NAMES)
    assert list((tmp_path / "runs").iterdir()) == []
    convert([path], tmp_path / "runs" / "run", NAMES)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["run"]


def elegant(torch, folder, *, heads=True):
    """A narrow model in the files of ELEGANT's code, and its networks by their names there."""
    from tests.oracles import published_torch as published

    folder.mkdir(exist_ok=True)
    widths = (4, 8, 16)
    networks = {"Enc": published.ELEGANTEncoder(widths), "Dec": published.ELEGANTDecoder(widths)}
    if heads:
        networks["D1"] = published.ELEGANTDiscriminator((4, 8), 3, SIZE)
        networks["D2"] = published.ELEGANTDiscriminator((4, 8), 3, SIZE // 2)
    for seed, (name, network) in enumerate(networks.items()):
        torch.save(published.randomize(network, seed).state_dict(), folder / f"{name}_iter_000002.pth")
    return networks, sorted(folder.iterdir())


@pytest.mark.parametrize("heads", [True, False])
def test_elegant(heads, images, tmp_path, torch):
    networks, paths = elegant(torch, tmp_path / "model", heads=heads)
    config = convert(paths, tmp_path / "run", {**NAMES, "image_size": str(SIZE)})
    assert (config.image_size, config.crop, config.model.encoder) == (SIZE, "landmarks5", (1, 2, 4))
    assert config.model.discriminator == ((1, 2) if heads else ())
    editor = fj.load(tmp_path / "run")
    x = to_torch(torch, images)
    with torch.no_grad():
        features = networks["Enc"](x)
        new = features[-1].clone()
        new[:, 5:11] = new[:, 5:11].flip(0)  # the second third of 16 channels: from 5.33 to 10.67
        residual = networks["Dec"](new, features)
        expected = torch.clamp(x + residual, -1, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(editor.swap(images, images[::-1], ["Eyeglasses"]), expected, atol=1e-4)
    assert residual.std() > 0.05
    method, variables = editor.method, editor.variables
    if not heads:
        with pytest.raises(UserError, match="this elegant model has no discriminator"):
            _ = method.stages
        return
    labels = np.array([[0, 1, 0], [1, 0, 1]], np.float32)
    for name, seen in (("1", x), ("2", torch.nn.functional.avg_pool2d(x, 2))):
        with torch.no_grad():
            logits = networks[f"D{name}"](seen, torch.tensor(labels)).numpy()
        own = {"params": variables["params"][f"discriminator{name}"]}
        found = method.networks[f"discriminator{name}"].apply(own, images, labels)
        np.testing.assert_allclose(found, logits, atol=1e-4)


def test_elegant_files_that_are_no_model(tmp_path, torch):
    _, paths = elegant(torch, tmp_path / "model")
    d1, d2, dec, enc = paths

    def refused(paths, message, names=NAMES):
        with pytest.raises(UserError, match=message):
            convert(paths, tmp_path / "run", names)
        assert not (tmp_path / "run").exists()

    refused([enc, dec, d1], "both of D1_iter_N.pth and D2_iter_N.pth or neither; '.*Enc_iter_000002.pth', .* is not")
    refused([enc, d1, d2], "an ELEGANT model is Enc_iter_N.pth and Dec_iter_N.pth")
    refused([enc, dec, dec], "both are ELEGANT's decoder")
    refused(paths, "has 3 attributes, and the config 2", {})
    torch.save({"main.0.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    refused([enc, tmp_path / "other.pth"], "has neither AttGAN-PyTorch's tensors")
    state = dict(torch.load(dec))
    has = "Dec_iter_000002.pth' should have a tensor '{}' of {}, and has {}$"
    torch.save({**state, "main.1.1.alpha": torch.ones(4)}, dec)
    refused(paths, has.format("main.1.1.alpha", r"\(1,\)", r"one of \(4,\)"))
    torch.save({**state, "main.2.1.alpha": torch.ones(1)}, dec)
    refused(paths, "has a tensor 'main.2.1.alpha' that the model has no place for$")
    del state["main.0.0.bias"]
    torch.save(state, dec)
    refused(paths, has.format("main.0.0.bias", r"\(8,\)", "none"))
    torch.save(dict(torch.load(d1)) | {"conv.3.weight": torch.zeros(2)}, d1)
    refused(paths, "D1_iter_000002.pth' should have a tensor 'conv.3.weight' of 4 axes, and has one of")


def test_the_command(tmp_path, torch, capsys, faces):
    attgan(torch, tmp_path / "weights.pth")
    run = tmp_path / "run"
    command = ["convert", str(tmp_path / "weights.pth"), f"--to={run}", "--config.attributes=Bangs,Eyeglasses,Male"]
    assert cli.main([*command, "--config.crop=none"]) == 0
    assert capsys.readouterr().out == f"{run}: attgan, 32 px, cut with none; Bangs, Eyeglasses, Male\n"
    edit = ["edit", str(faces / "000.png"), f"--checkpoint={run}", "--set=Male=1", "--aligned", f"--out={tmp_path}"]
    assert cli.main(edit) == 0
    assert (tmp_path / "000.edited.png").is_file()
    assert cli.main(command) == 2
    assert "something is there already; give a new or empty folder" in capsys.readouterr().err
    assert cli.main([*command, f"--to={tmp_path / 'other'}", "--config.atributes=A"]) == 2
    assert "did you mean 'attributes'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["attgan", "judge"])
def test_safetensors_bit_by_bit(name, trained, images, tmp_path, capsys):
    path = tmp_path / "models" / "model.safetensors"
    assert cli.main(["export", str(trained / name), "--to", "safetensors", str(path)]) == 0
    assert cli.main(["convert", str(path), "--to", str(tmp_path / "run")]) == 0
    before, after = fj.load(trained / name), fj.load(tmp_path / "run")
    assert configs.to_json(after.config) == configs.to_json(before.config)
    assert hash_variables(after.variables) == hash_variables(before.variables)
    jax.tree.map(np.testing.assert_array_equal, after.variables, before.variables)
    np.testing.assert_array_equal(after.classify(images), before.classify(images))
    assert safetensors.load_file(path).keys() == safetensors_file.flatten(before.variables).keys()
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    capsys.readouterr()
    assert cli.main(["export", str(trained / name), "--to", "safetensors", str(path)]) == 2
    assert "model.safetensors: this file would be overwritten; move it" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_safetensors_hold_the_average_that_inference_uses(trained, tmp_path, faces):
    config = runs.attgan(faces, ema=0.5)
    state = start(build(config), fj.load(trained / "attgan").variables)
    state = state.replace(ema=jax.tree.map(lambda a: a + 0.25, state.ema))
    checkpoints = Checkpoints(tmp_path / "run", config, keep=1)
    checkpoints.save(1, state)
    checkpoints.wait()
    checkpoints.close()
    path = tmp_path / "model.safetensors"
    to_safetensors(tmp_path / "run", path)
    changed = convert([path], tmp_path / "again", {"data.path": "elsewhere"})
    assert changed.data.path == "elsewhere"
    jax.tree.map(np.testing.assert_array_equal, fj.load(tmp_path / "again").variables, dict(state.inference_variables))


def test_safetensors_that_are_no_model(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    to_safetensors(trained / "judge", path)
    config, state = safetensors_file.read(path)
    tensors, content = dict(state.tensors), path.read_bytes()
    text = configs.to_json(config)

    def refused(message):
        with pytest.raises(UserError, match=message):
            convert([path], tmp_path / "run")
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]

    name, *_ = tensors
    for changed, message in (
        ({key: a for key, a in tensors.items() if key != name}, rf"should have a tensor '{name}' of \(.*and has none$"),
        ({**tensors, name: np.zeros(77)}, rf"should have a tensor '{name}' of \(.*and has one of \(77,\)$"),
        ({**tensors, "params/extra": np.zeros(2)}, "has a tensor 'params/extra' that the model has no place for$"),
    ):
        safetensors.save_file(changed, path, {safetensors_file.CONFIG: text})
        refused(message)
    for metadata, message in (
        (None, "has no 'faceattr_jax.config' in its metadata"),
        ({safetensors_file.CONFIG: "{"}, "holds no config of ours"),
        ({safetensors_file.CONFIG: '{"method": "none"}'}, "holds a config of no model that this version knows"),
    ):
        safetensors.save_file(tensors, path, metadata)
        refused(message)
    for end in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:end])
        refused("model.safetensors' is damaged, or no safetensors file")
    with pytest.raises(UserError, match="convert one at a time"):
        convert([path, path], tmp_path / "run")
    path.unlink()
    with pytest.raises(UserError, match=r"model.safetensors' cannot be read"):
        convert([path], tmp_path / "run")


def test_the_published_sizes(tmp_path, torch):
    """At full width, by shapes alone: the programs' default files mean the very configs that read them."""
    from tests.oracles import published_torch as published

    widths = (64, 128, 256, 512, 1024)
    with torch.device("meta"):
        files = {
            attgan_pytorch: {
                "G": published.AttGANGenerator(widths, 13, 1, 0),
                "D": published.AttGANDiscriminators(widths, 1024, 13, 128),
            },
            elegant_pytorch: {
                "encoder": published.ELEGANTEncoder((64, 128, 256, 512, 512)),
                "decoder": published.ELEGANTDecoder((64, 128, 256, 512, 512)),
                "discriminator1": published.ELEGANTDiscriminator((64, 128, 256, 512), 2, 256),
                "discriminator2": published.ELEGANTDiscriminator((64, 128, 256, 512), 2, 128),
            },
        }
    for module, networks in files.items():
        states = {
            name: StateDict(tmp_path, {k: np.broadcast_to(np.float32(0), t.shape) for k, t in n.state_dict().items()})
            for name, n in networks.items()
        }
        config = configs.load(module.CONFIG)
        assert module.settle(config, states) == len(config.attributes)
        assert configs.differences(config, configs.load(module.CONFIG)) == []
        method = build(config)
        shapes = jax.eval_shape(lambda m=method: m.init(jax.random.key(0)))
        found = module.places(config)
        paths = {"/".join(key.key for key in keys) for keys, _ in jax.tree_util.tree_leaves_with_path(shapes)}
        assert found.keys() == paths
        theirs = {(n, k) for n, s in states.items() for k in s.tensors if not k.endswith("num_batches_tracked")}
        assert {(place.network, place.name) for place in found.values()} == theirs
        for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            place = found["/".join(key.key for key in keys)]
            assert states[place.network].tensors[place.name].shape == place.layout.shape(leaf.shape)
