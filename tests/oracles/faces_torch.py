"""dlib's face ResNet and VGG-Face, written for PyTorch from their own definitions; NCHW, outputs of every block."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]


def _tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))


def _conv(x: torch.Tensor, p: Mapping[str, Any], stride: int = 1, padding: int = 0) -> torch.Tensor:
    return F.conv2d(x, _tensor(p["kernel"]).permute(3, 2, 0, 1), _tensor(p["bias"]), stride, padding)


def _affine(x: torch.Tensor, p: Mapping[str, Any]) -> torch.Tensor:
    return x * _tensor(p["scale"])[:, None, None] + _tensor(p["bias"])[:, None, None]


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """dlib's add_prev: the sum is as large as the larger in each axis, and what is missing counts as zero."""
    out = torch.zeros([max(a, b) for a, b in zip(x.shape, y.shape, strict=True)])
    for part in (x, y):
        out[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
    return out


def dlib(params: Mapping[str, Any], levels: np.ndarray | torch.Tensor) -> Tensors:
    """alevel4 to alevel0 of dlib's dnn_face_recognition_ex, from images of 0 to 255 (B, 150, 150, 3)."""
    mean = torch.tensor([122.782, 117.001, 104.298])[:, None, None]
    x = (_tensor(levels).permute(0, 3, 1, 2) - mean) / 256
    x = F.max_pool2d(F.relu(_affine(_conv(x, params["conv"], 2), params["affine"])), 3, 2)
    found = {}
    for i, down in enumerate("---d---d--d--d"):
        p = params[f"block{i}"]
        y = _conv(x, p["conv0"], *((2, 0) if down == "d" else (1, 1)))
        y = _affine(_conv(F.relu(_affine(y, p["affine0"])), p["conv1"], 1, 1), p["affine1"])
        x = F.relu(_add(y, F.avg_pool2d(x, 2, 2) if down == "d" else x))
        found[f"block{i}"] = x
    found["fc"] = F.adaptive_avg_pool2d(x, 1).flatten(1) @ _tensor(params["fc"]["kernel"])
    return found


def vgg_face(params: Mapping[str, Any], levels: np.ndarray | torch.Tensor) -> Tensors:
    """Configuration D of Simonyan and Zisserman; the fully connected layers as the convolutions of Keras's file."""
    mean = torch.tensor([129.1863, 104.7624, 93.5940])[:, None, None]
    x = _tensor(levels).permute(0, 3, 1, 2) - mean
    found = {}
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for j in range(count):
            name = f"conv{block}_{j + 1}"
            x = found[name] = F.relu(_conv(x, params[name], 1, 1))
        x = F.max_pool2d(x, 2, 2)
    for name, side in (("fc6", x.shape[-1]), ("fc7", 1)):
        kernel = np.asarray(params[name]["kernel"])
        x = F.relu(_conv(x, {"kernel": kernel.reshape(side, side, -1, kernel.shape[-1]), "bias": params[name]["bias"]}))
        found[name] = x.flatten(1)
    return found
