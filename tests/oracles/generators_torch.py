"""The generators of the attribute inverse, DIAT and SL-GAN in PyTorch, written from the papers: inference alone.

Each class takes a config and our variables, makes its faces of uint8 images (`pictures`), edits them, and turns what
it made into our pixels (`unmirrored`). Batch norms use their running averages.

Imports PyTorch: import this module inside a test that has the `torch` fixture.
"""

from collections.abc import Mapping
from typing import Any

import flax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

LEAK = 0.2
Tensors = dict[str, torch.Tensor]


def to_torch(
    variables: Mapping[str, Mapping[str, Any]],
    network: str,
    *,
    transposed: tuple[str, ...] = (),
    mirrored: bool = False,
) -> dict[str, np.ndarray]:
    """Parameters and statistics of one of our networks as "layer/name" -> PyTorch's layout.

    transposed: what the names of transposed convolutions begin with. mirrored: for pictures mirrored in both
    directions, which lets a stride-2 convolution of a 5x5 kernel pad 2 and 2 for our 1 and 2 (see `attgan_torch`).
    """

    def convert(path: str, a: np.ndarray) -> np.ndarray:
        if a.ndim < 4:
            return a.T
        up = path.startswith(transposed)
        if up != mirrored:  # PyTorch flips the kernel of a transposed convolution, ours does not
            a = a[::-1, ::-1]
        return a.transpose((2, 3, 0, 1) if up else (3, 2, 0, 1))

    trees = [flax.core.unfreeze(held[network]) for held in variables.values() if network in held]
    flat = {k: a for tree in trees for k, a in flax.traverse_util.flatten_dict(tree, sep="/").items()}
    return {path: convert(path, np.asarray(a)) for path, a in flat.items()}


def tensors(arrays: Mapping[str, np.ndarray]) -> Tensors:
    return {path: torch.from_numpy(np.array(a, order="C")) for path, a in arrays.items()}


class Generator:
    """What the papers' classes share."""

    mirrored = False

    def pictures(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S) in [-1, 1]."""
        faces = self.unmirrored(torch.from_numpy(images).permute(0, 3, 1, 2))
        return faces.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1

    def unmirrored(self, made: torch.Tensor) -> torch.Tensor:
        return made.flip(2, 3) if self.mirrored else made


class AttributeInverse(Generator):
    """G: a U-Net whose skips pass 1x1 filters, if it has some, or stay whole."""

    def __init__(self, config: ConfigDict, variables: Mapping[str, Mapping[str, Any]]):
        self.norm, self.depth = config.model.norm, len(config.model.generator)
        self.params = tensors(to_torch(variables, "generator", transposed=("up", "rgb")))

    @torch.inference_mode()
    def edit(self, images: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        inverts = (source != target).any(1)
        return torch.where(inverts[:, None, None, None], self.invert(images), images)

    def invert(self, images: torch.Tensor) -> torch.Tensor:
        p, down = self.params, [images]
        for i in range(self.depth):
            x = F.conv2d(down[-1], p[f"down{i}/kernel"], p.get(f"down{i}/bias"), stride=2, padding=1)
            down.append(F.leaky_relu(self._normed(f"down{i}_norm", x), LEAK, inplace=True))
        x = down[-1]
        for i in reversed(range(self.depth - 1)):
            x = F.conv_transpose2d(x, p[f"up{i}/kernel"], stride=2, padding=1)
            x = F.relu_(self._normed(f"up{i}_norm", x))
            skip = down[i + 1]
            if f"skip{i}/kernel" in p:
                skip = F.conv2d(skip, p[f"skip{i}/kernel"], p[f"skip{i}/bias"])
            x = torch.cat([x, skip], dim=1)
        return F.conv_transpose2d(x, p["rgb/kernel"], p["rgb/bias"], stride=2, padding=1).tanh_()

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if f"{name}/scale" not in self.params:  # neither the first layer's nor one pixel
            return x
        scale, bias = self.params[f"{name}/scale"], self.params[f"{name}/bias"]
        return F.group_norm(x, {"layer": 1, "instance": x.shape[1]}[self.norm], scale, bias, eps=1e-6)


class DIAT(Generator):
    """F(x) = M(x) T(x) + (1 - M(x)) x: T of table I and M of table II."""

    def __init__(self, config: ConfigDict, variables: Mapping[str, Mapping[str, Any]]):
        self.value = config.value
        self.depth, self.mask_depth = len(config.model.transform), len(config.model.mask) + 1
        # Every map of T is moved to space, or joins one that is: all have the order of channels that `pixel_shuffle`
        # wants, c * 4 + place, where ours is place * C + c. What reads a map before it is moved reads that order, too.
        transform = {}
        for path, a in to_torch(variables, "transform").items():
            layer = int(path.split("/")[0].removeprefix("conv").removeprefix("norm"))
            if layer < 2 * self.depth:
                a = _shuffled(a, 0)
            if a.ndim == 4 and 1 < layer <= self.depth:
                a = _shuffled(a, 1)
            transform[path] = a
        self.transform, self.mask = tensors(transform), tensors(to_torch(variables, "mask"))
        bell = torch.exp(-0.5 * (torch.arange(-2, 3) / 1.6) ** 2)
        bell /= bell.sum()
        self.blur = torch.outer(bell, bell)[None, None]

    @torch.inference_mode()
    def edit(self, images: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = self.region(images)
        made = torch.lerp(images, self.redraw(images), mask)
        wanted = (target == self.value) & (source != self.value)
        return torch.where(wanted[:, :, None, None], made, images)

    def redraw(self, images: torch.Tensor) -> torch.Tensor:
        """T(x)."""
        p, maps = self.transform, [images]
        for i in range(1, self.depth + 1):
            x = F.conv2d(maps[-1], p[f"conv{i}/kernel"], stride=2, padding=1)
            maps.append(F.leaky_relu_(_batch_norm(p, f"norm{i}", x), LEAK))
        x = maps[-1]
        for i in range(self.depth + 1, 2 * self.depth):
            x = F.conv2d(F.pixel_shuffle(x, 2), p[f"conv{i}/kernel"], padding=1)
            x = F.relu_(_batch_norm(p, f"norm{i}", x)).add_(maps[2 * self.depth - i])
        last = f"conv{2 * self.depth}"
        return F.conv2d(F.pixel_shuffle(x, 2), p[f"{last}/kernel"], p[f"{last}/bias"], padding=2).tanh_()

    def region(self, images: torch.Tensor) -> torch.Tensor:
        """M(x), (B, 1, S, S)."""
        p, x = self.mask, images
        for i in range(1, self.mask_depth + 1):
            x = _batch_norm(p, f"norm{i}", F.conv2d(x, p[f"conv{i}/kernel"], stride=2 if i <= 2 else 1, padding=1))
            if i < self.mask_depth:
                x = F.relu_(x)
        binary = (x > 0).to(x.dtype)  # there the sigmoid is over 1/2
        return F.conv2d(F.pad(F.interpolate(binary, scale_factor=4), (2, 2, 2, 2), mode="replicate"), self.blur)


class SLGAN(Generator):
    """Dec(z, y) with z the mean that Enc gives: VAE/GAN's layers."""

    mirrored = True

    def __init__(self, config: ConfigDict, variables: Mapping[str, Mapping[str, Any]]):
        self.encoder_depth, self.decoder_depth = len(config.model.encoder), len(config.model.decoder)
        encoder = to_torch(variables, "encoder", mirrored=True)
        decoder = to_torch(variables, "decoder", transposed=("deconv",), mirrored=True)
        # Fully connected layers that read and make a map, ours with channels last.
        a = encoder["fc/kernel"]
        side = config.image_size // 2**self.encoder_depth
        encoder["fc/kernel"] = a.reshape(len(a), side, side, -1)[:, ::-1, ::-1].transpose(0, 3, 1, 2).reshape(a.shape)
        a = decoder["fc/kernel"]
        self.side = config.image_size // 2**self.decoder_depth
        a = a.reshape(self.side, self.side, -1, a.shape[1])[::-1, ::-1].transpose(2, 0, 1, 3).reshape(a.shape)
        decoder["fc/kernel"] = a
        self.encoder, self.decoder = tensors(encoder), tensors(decoder)

    @torch.inference_mode()
    def edit(self, images: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(images), target)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        p, x = self.encoder, images
        for i in range(self.encoder_depth):
            x = F.relu_(_batch_norm(p, f"norm{i}", F.conv2d(x, p[f"conv{i}/kernel"], stride=2, padding=2)))
        x = F.relu_(_batch_norm(p, "fc_norm", F.linear(x.flatten(1), p["fc/kernel"])))
        return F.linear(x, p["mean/kernel"], p["mean/bias"])

    def decode(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        p = self.decoder
        x = F.linear(torch.cat([latents, labels], dim=1), p["fc/kernel"]).unflatten(1, (-1, self.side, self.side))
        x = F.relu_(_batch_norm(p, "fc_norm", x))
        for i in range(self.decoder_depth):
            x = F.conv_transpose2d(x, p[f"deconv{i}/kernel"], stride=2, padding=2, output_padding=1)
            x = F.relu_(_batch_norm(p, f"norm{i}", x))
        return F.conv2d(x, p["rgb/kernel"], p["rgb/bias"], padding=2).tanh_()


def _batch_norm(p: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, scale, bias = (p[f"{name}/{part}"] for part in ("mean", "var", "scale", "bias"))
    return F.batch_norm(x, mean, var, scale, bias, eps=1e-3)


def _shuffled(a: np.ndarray, axis: int) -> np.ndarray:
    """From our order of the channels in `axis`, place * C + c, to PyTorch's, c * 4 + place."""
    count = a.shape[axis]
    return a.take(np.arange(count).reshape(4, -1).T.ravel(), axis)
