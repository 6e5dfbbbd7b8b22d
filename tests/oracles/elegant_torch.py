"""ELEGANT in PyTorch, written from the paper's text and its code's layer table: an oracle of numbers.

The convolutions use PyTorch's own padding arguments (1, and output padding 1), and the discriminators real
probabilities and binary cross entropy, where ours have logits.

Imports PyTorch: import this module inside a test that has the `torch` fixture.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

Tensors = dict[str, torch.Tensor]
NETWORKS = {"discriminators": ("discriminator1", "discriminator2"), "generator": ("encoder", "decoder")}


def to_torch(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters of one of our networks, or their gradients, as "layer/name" -> PyTorch's layout."""
    flat = flax.traverse_util.flatten_dict(flax.core.unfreeze(tree), sep="/")
    widths = {path.split("/")[0]: a.shape[-1] for path, a in flat.items() if a.ndim == 4}

    def convert(path: str, a: np.ndarray) -> np.ndarray:
        if a.ndim == 4 and path.startswith(("deconv", "rgb")):
            return a[::-1, ::-1].transpose(2, 3, 0, 1)
        if a.ndim == 4:
            return a.transpose(3, 2, 0, 1)
        if path == "fc/kernel":  # it reads the last convolution's pixels, channels last in ours
            channels = widths[max(name for name in widths if name.startswith("conv"))]
            side = round((len(a) // channels) ** 0.5)
            return a.reshape(side, side, channels).transpose(2, 0, 1).reshape(1, -1)
        return a

    return {path: np.ascontiguousarray(convert(path, np.asarray(a))) for path, a in flat.items()}


class Faces(NamedTuple):
    """A batch with an attribute or without: images (B, 3, S, S) in [-1, 1] and labels (B, n)."""

    images: torch.Tensor
    labels: torch.Tensor


class ELEGANT:
    """Networks, losses and the training iteration. config: of configs/elegant_*.py; variables: ours."""

    def __init__(self, config: ConfigDict, variables: Mapping[str, Mapping[str, Any]]):
        self.config = config
        self.params: dict[str, Tensors] = {
            network: {k: torch.tensor(v, requires_grad=True) for k, v in to_torch(tree).items()}
            for network, tree in variables["params"].items()
        }
        self.dtype = self.params["decoder"]["rgb/bias"].dtype
        options = config.optimizer
        self.optimizers = {
            name: torch.optim.Adam(
                [p for network in networks for p in self.params[network].values()],
                options.learning_rate,
                (options.b1, options.b2),
                weight_decay=options.weight_decay,
            )
            for name, networks in NETWORKS.items()
        }
        self.schedulers = []
        if options.schedule:
            _, every, factor = options.schedule
            self.schedulers = [torch.optim.lr_scheduler.StepLR(o, every, factor) for o in self.optimizers.values()]

    def faces(self, leaf: Mapping[str, np.ndarray]) -> Faces:
        """From uint8 images (B, S, S, 3) and labels (B, n)."""
        images = torch.from_numpy(leaf["images"]).permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1
        return Faces(images, torch.from_numpy(leaf["labels"]).to(self.dtype))

    # Networks.

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        params = self.params["encoder"]
        outputs, x = [], images
        for i in range(len(self.config.model.encoder)):
            x = F.conv2d(x, params[f"conv{i}/kernel"], params[f"conv{i}/bias"], stride=2, padding=1)
            x = F.leaky_relu(_norm(params, i, x), 0.2)
            outputs.append(x)
        return outputs

    def residual(self, new: torch.Tensor, own: torch.Tensor, skips: Sequence[torch.Tensor]) -> torch.Tensor:
        params, model = self.params["decoder"], self.config.model
        activation = {"relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2)}[model.decoder_activation]
        x = torch.cat([new, own], dim=1)
        for i in range(len(model.encoder) - 1):
            x = _deconv(params, f"deconv{i}", x)
            x = activation(_norm(params, i, x)) + skips[-1 - i]
        return 2 * torch.tanh(_deconv(params, "rgb", x))

    def decode(self, images: torch.Tensor, features: Sequence[torch.Tensor], code: torch.Tensor) -> torch.Tensor:
        *skips, own = features
        return torch.clamp(images + self.residual(code, own, skips), -1, 1)

    def discriminate(self, network: str, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Probabilities (B,) of being real."""
        params = self.params[network]
        if network == "discriminator2":
            images = F.avg_pool2d(images, 2)
        x = torch.cat([images, labels[:, :, None, None].expand(-1, -1, *images.shape[2:])], dim=1)
        for i in range(len(self.config.model.discriminator)):
            x = F.conv2d(x, params[f"conv{i}/kernel"], params[f"conv{i}/bias"], stride=2, padding=1)
            x = F.leaky_relu(_norm(params, i, x), 0.2)
        return torch.sigmoid(F.linear(x.flatten(1), params["fc/kernel"], params["fc/bias"]))[:, 0]

    # Inference.

    @torch.inference_mode()
    def swap(self, a: torch.Tensor, b: torch.Tensor, attribute: int) -> torch.Tensor:
        """Images `a` (B, 3, S, S) with the attribute as those of `b` wear it."""
        features, part = self.encode(a), self._part(attribute)
        code = features[-1].clone()
        code[:, part] = self.encode(b)[-1][:, part]
        return self.decode(a, features, code)

    def _part(self, attribute: int) -> slice:
        channels = self.params["encoder"][f"conv{len(self.config.model.encoder) - 1}/bias"].shape[0]
        step = channels / len(self.config.attributes)
        return slice(int(np.rint(step * attribute)), int(np.rint(step * (attribute + 1))))

    # Losses.

    def fakes(self, a: Faces, b: Faces, attribute: int) -> tuple[Faces, Faces, torch.Tensor]:
        """C and D with their labels, and the reconstruction's loss, not weighted."""
        f_a, f_b = self.encode(a.images), self.encode(b.images)
        part = self._part(attribute)
        z_c, z_d = f_a[-1].clone(), f_b[-1].clone()
        z_c[:, part], z_d[:, part] = f_b[-1][:, part], f_a[-1][:, part]
        y_c, y_d = a.labels.clone(), b.labels.clone()
        y_c[:, attribute], y_d[:, attribute] = b.labels[:, attribute], a.labels[:, attribute]
        distance = {"l1": F.l1_loss, "l2": F.mse_loss}[self.config.loss.distance]
        reconstruction = distance(self.decode(a.images, f_a, f_a[-1]), a.images)
        reconstruction = reconstruction + distance(self.decode(b.images, f_b, f_b[-1]), b.images)
        c = Faces(self.decode(a.images, f_a, z_c), y_c)
        d = Faces(self.decode(b.images, f_b, z_d), y_d)
        return c, d, reconstruction

    def discriminators_loss(self, a: Faces, b: Faces, attribute: int) -> torch.Tensor:
        with torch.no_grad():
            c, d, _ = self.fakes(a, b, attribute)
        loss = torch.zeros((), dtype=self.dtype)
        for weight, network in zip(self.config.loss.discriminators, NETWORKS["discriminators"], strict=True):
            for faces, real in ((a, 1.0), (b, 1.0), (c, 0.0), (d, 0.0)):
                probability = self.discriminate(network, *faces)
                loss = loss + weight * F.binary_cross_entropy(probability, torch.full_like(probability, real))
        return loss

    def generator_loss(self, a: Faces, b: Faces, attribute: int) -> torch.Tensor:
        c, d, reconstruction = self.fakes(a, b, attribute)
        loss = self.config.loss.reconstruction * reconstruction
        for weight, network in zip(self.config.loss.adversarial, NETWORKS["discriminators"], strict=True):
            for faces in (c, d):
                loss = loss - weight * torch.log(self.discriminate(network, *faces)).mean()
        return loss

    # Training.

    def gradients(
        self, phase: str, batch: Mapping[str, Mapping[str, np.ndarray]], attribute: int
    ) -> tuple[float, dict[str, Tensors]]:
        """The loss of "discriminators" or "generator", and network -> gradients; sets `.grad`."""
        loss_of = {"discriminators": self.discriminators_loss, "generator": self.generator_loss}[phase]
        loss = loss_of(self.faces(batch["positive"]), self.faces(batch["negative"]), attribute)
        self.optimizers[phase].zero_grad()
        parameters = [p for network in NETWORKS[phase] for p in self.params[network].values()]
        loss.backward(inputs=parameters)
        return loss.item(), {n: {k: p.grad for k, p in self.params[n].items()} for n in NETWORKS[phase]}

    def iterate(self, batch: Mapping[str, Mapping[str, np.ndarray]], attribute: int) -> dict[str, float]:
        """Both updates of an iteration; their losses."""
        losses = {}
        for phase in NETWORKS:
            losses[phase], _ = self.gradients(phase, batch, attribute)
            self.optimizers[phase].step()
        for scheduler in self.schedulers:
            scheduler.step()
        return losses


def _norm(params: Tensors, i: int, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=1) * params[f"norm{i}/scale"] + params[f"norm{i}/shift"]


def _deconv(params: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    weight, bias = params[f"{name}/kernel"], params[f"{name}/bias"]
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
