"""PyTorch's files, against PyTorch that writes them, and what is refused."""

import collections
import os
import pickle
import types
import zipfile

import numpy as np
import pytest

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import state_dict, torch_file

FORMATS = pytest.mark.parametrize("zipped", [True, False])


def save(torch, value, path, zipped):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@FORMATS
def test_every_dtype_and_layout(zipped, tmp_path, torch):
    torch.manual_seed(0)
    base = torch.randn(6, 5, 4, 3)
    tensors = {
        "plain": base,
        "transposed": base.permute(3, 2, 0, 1),
        "slice": base[1:5, ::2],  # an offset and steps, in the storage of `plain`
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "expanded": torch.arange(3.0).expand(2, 3),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        **{
            str(dtype): (torch.randn(5, 2) * 9).to(dtype)
            for dtype in (
                torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                torch.uint8, torch.bool,
            )
        },
    }  # fmt: skip
    found = torch_file.read(save(torch, tensors, tmp_path / "all.pth", zipped))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix("torch.")
        assert found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.double().numpy())
    assert np.shares_memory(found["plain"], found["slice"])
    assert not found["plain"].flags.writeable


@FORMATS
def test_a_checkpoint_with_more_than_tensors(zipped, tmp_path, torch):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    held = {
        "G": network.state_dict(),
        "parameters": dict(network.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "names": ["Male", ("Bangs", 1.5, None, True)],
    }
    found = torch_file.read(save(torch, held, tmp_path / "run.pth", zipped))
    assert (found["epoch"], found["names"]) == (3, held["names"])
    assert list(found["G"]) == list(held["G"])
    for name, tensor in held["G"].items():
        np.testing.assert_array_equal(found["G"][name], tensor.numpy())
    np.testing.assert_array_equal(found["parameters"]["0.weight"], network[0].weight.detach().numpy())
    np.testing.assert_array_equal(
        found["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


@FORMATS
def test_what_a_pickle_may_not_ask_for(zipped, tmp_path, torch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, name in (
        ({"w": torch.zeros(2), "x": Attack()}, f"{os.system.__module__}.system"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"args": types.SimpleNamespace(lr=0.1)}, "types.SimpleNamespace"),
        ({"w": torch.zeros(2).to_sparse()}, "torch._utils._rebuild_sparse_tensor"),
    ):
        path = save(torch, value, tmp_path / "bad.pth", zipped)
        with pytest.raises(UserError) as caught:
            torch_file.read(path)
        assert str(caught.value) == (
            f"'{path}' asks for {name}, which no file of weights needs; save the tensors alone, as "
            "torch.save(model.state_dict(), ...) does"
        )
    assert not (tmp_path / "attacked").exists()
    # A bare pickle, such as other libraries write, is refused the same way before anything is called.
    path = tmp_path / "bare.pth"
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(UserError, match=r"bare.pth' asks for \w+.system, which"):
        torch_file.read(path)
    assert not (tmp_path / "attacked").exists()


@FORMATS
def test_a_truncated_file_is_said_to_be_damaged(zipped, tmp_path, torch):
    path = save(torch, {"a": torch.zeros(40), "b": torch.ones(40)}, tmp_path / "net.pth", zipped)
    content = path.read_bytes()
    for end in (0, 1, 20, len(content) // 3, len(content) - 200, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"net.pth' is damaged, or no file of PyTorch's \(.+\)$"):
            torch_file.read(path)
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="is damaged, or no file"):
        torch_file.read(path)
    with pytest.raises(UserError, match=r"/none.pth' cannot be read \(No such file or directory\)$"):
        torch_file.read(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"holds a list, where a dict of tensors should be"):
        torch_file.read(save(torch, [torch.zeros(2)], path, zipped))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (9, (), ())]
)
def test_no_tensor_reaches_outside_its_storage(offset, shape, strides):
    tensor = torch_file._Tensor(torch_file._Storage("float32", "0"), offset, shape, strides)
    with pytest.raises(ValueError):  # noqa: PT011 - the words are NumPy's
        torch_file._arrays(tensor, lambda storage: bytes(16))


def test_odd_archives_are_refused(tmp_path, torch):
    path = save(torch, {"a": torch.zeros(4000)}, tmp_path / "net.pth", True)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def rewrite(changes, packed=False):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
            for name, content in {**parts, **changes}.items():
                if content is not None:
                    archive.writestr(name, content)

    rewrite({})
    assert torch_file.read(path)["a"].shape == (4000,)
    for changes, packed, reason in (
        ({}, True, "a packed storage"),
        ({"net/byteorder": b"big"}, False, "written by a big-endian machine"),
        ({"net/data/0": bytes(8)}, False, ""),
        ({"net/data/0": None}, False, "no item named 'net/data/0'"),
        ({"net/data.pkl": None}, False, ""),
    ):
        rewrite(changes, packed)
        with pytest.raises(UserError, match=rf"is damaged, or no file of PyTorch's \(.*{reason}"):
            torch_file.read(path)


def test_variables_are_named_and_turned(tmp_path, torch):
    network = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, (1, 5)), "bn": torch.nn.BatchNorm2d(4)})
    network["fc"] = torch.nn.Linear(4, 2).half()
    path = save(torch, network.state_dict(), tmp_path / "net.pth", True)

    def shape(*sizes):
        return np.zeros(sizes, np.float32)

    shapes = {
        "params": {
            "a": {"conv": {"kernel": shape(1, 5, 3, 4), "bias": shape(4)}},
            "bn": {"scale": shape(4), "bias": shape(4)},
            "fc": {"kernel": shape(4, 2)},
        },
        "batch_stats": {"bn": {"mean": shape(4), "var": shape(4)}},
    }
    found = state_dict.read(path, shapes, lambda name: name.removeprefix("a."))
    held = network.state_dict()
    params = found["params"]
    np.testing.assert_array_equal(params["a"]["conv"]["kernel"], held["conv.weight"].permute(2, 3, 1, 0).numpy())
    np.testing.assert_array_equal(params["fc"]["kernel"], held["fc.weight"].float().T.numpy())
    np.testing.assert_array_equal(params["bn"]["scale"], held["bn.weight"].numpy())
    np.testing.assert_array_equal(found["batch_stats"]["bn"]["var"], held["bn.running_var"].numpy())
    assert params["fc"]["kernel"].dtype == np.float32
    shapes["params"]["fc"]["kernel"] = shape(4, 3)
    with pytest.raises(UserError) as caught:
        state_dict.read(path, shapes, lambda name: name.removeprefix("a."))
    assert str(caught.value) == f"'{path}' should have a tensor 'fc.weight' of (3, 4), and has one of (2, 4)"
    with pytest.raises(UserError, match=r"should have a tensor 'a.conv.bias' of \(4,\), and has none$"):
        state_dict.read(path, {"params": {"a": shapes["params"]["a"]}})


def test_an_ordered_dict_keeps_what_is_in_it(tmp_path, torch):
    held = collections.OrderedDict(a=torch.ones(2))
    held._metadata = collections.OrderedDict(version=1)  # as state dicts have it
    assert list(torch_file.read(save(torch, held, tmp_path / "net.pth", True))) == ["a"]
