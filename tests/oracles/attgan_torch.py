"""AttGAN in PyTorch, written from the paper's tables and text: an oracle of numbers and of speed.

Our SAME convolutions of stride 2 pad 1 pixel before and 2 behind for a 5x5 kernel, as TensorFlow does; PyTorch pads 2
and 2. The two are mirror images: on mirrored pictures and with mirrored kernels PyTorch's own padding gives exactly
our network. So `to_torch` mirrors every kernel and `AttGAN.pictures` the images, and no copies pad by hand.

Imports PyTorch: import this module inside a test that has the `torch` fixture.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

from faceattr_jax.methods.attgan import TARGETS
from faceattr_jax.training.step import fold_in

LEAK = 0.2
Tensors = dict[str, torch.Tensor]


class Draw(NamedTuple):
    """The randomness of one update: targets 0/1 (B, n), and the gradient penalty's mixing weights (B, 1, 1, 1)."""

    targets: torch.Tensor
    alpha: torch.Tensor


def to_torch(config: ConfigDict, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters of one of our networks, or their gradients, as "layer/name" -> PyTorch's layout, mirrored."""
    side = config.image_size // math.prod(stride for _, _, stride in config.model.discriminator)

    def convert(path: str, a: np.ndarray) -> np.ndarray:
        if a.ndim == 4 and ("deconv" in path or "rgb" in path):
            return a.transpose(2, 3, 0, 1)  # PyTorch flips this kernel, ours does not: mirrored, they are equal
        if a.ndim == 4:
            return a[::-1, ::-1].transpose(3, 2, 0, 1)
        if "hidden/kernel" in path:  # it reads the flattened pixels
            return a.reshape(side, side, -1, a.shape[1])[::-1, ::-1].transpose(3, 2, 0, 1).reshape(a.shape[1], -1)
        return a.T

    flat = flax.traverse_util.flatten_dict(flax.core.unfreeze(tree), sep="/")
    return {path: np.ascontiguousarray(convert(path, np.asarray(a))) for path, a in flat.items()}


def our_draw(config: ConfigDict, phase: str, iteration: int, repeat: int, labels: np.ndarray) -> Draw:
    """What our executor draws in that update of the stage "train" with the config's seed."""
    key = fold_in(jax.random.key(config.seed), "train", phase, iteration, repeat)
    target_key, penalty_key, _ = jax.random.split(key, 3)  # a generator's update uses the first alone
    targets = TARGETS[config.targets](target_key, labels, tuple(config.attributes))
    alpha = jax.random.uniform(penalty_key, (len(labels), 1, 1, 1))
    return Draw(torch.tensor(np.asarray(targets)), torch.tensor(np.asarray(alpha)))


class AttGAN:
    """Networks, losses and the training iteration. config: of configs/attgan_*.py; variables: ours.

    device: where it all is. compiled: by torch.compile, but for the penalty's pass, whose gradient's gradient it cannot
    make. With `config.dtype` bfloat16 under autocast.
    """

    def __init__(
        self,
        config: ConfigDict,
        variables: Mapping[str, Mapping[str, Any]],
        *,
        device: str = "cpu",
        compiled: bool = False,
    ):
        self.config, self.device = config, device
        self.params: dict[str, Tensors] = {
            network: {k: torch.tensor(v, requires_grad=True, device=device) for k, v in to_torch(config, tree).items()}
            for network, tree in variables["params"].items()
        }
        self.stats: dict[str, Tensors] = {
            network: {k: torch.tensor(v, device=device) for k, v in to_torch(config, tree).items()}
            for network, tree in variables["batch_stats"].items()
        }
        self.discriminate_once = self.discriminate
        self.training = True  # whether batch norm takes the batch's statistics
        if compiled:
            self.encode, self.decode = torch.compile(self.encode), torch.compile(self.decode)  # type: ignore[method-assign]
            self.discriminate_once = torch.compile(self.discriminate)
        self.dtype = self.params["decoder"]["rgb/bias"].dtype
        options = config.optimizer

        def adam(*networks: str) -> torch.optim.Optimizer:
            parameters = [p for network in networks for p in self.params[network].values()]
            betas = (options.b1, options.b2)
            return torch.optim.Adam(parameters, options.learning_rate, betas, fused=True)

        self.optimizers = {"critic": adam("discriminator"), "generator": adam("encoder", "decoder")}

    def pictures(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S) in [-1, 1], mirrored in both directions, of the parameters' dtype."""
        mirrored = torch.from_numpy(images).to(self.device).flip(1, 2).permute(0, 3, 1, 2)
        return (mirrored.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1).to(self.dtype)

    # Networks.

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = [images]
        for i, (_, kernel, stride) in enumerate(self.config.model.encoder):
            weight = self.params["encoder"][f"conv{i}/kernel"]
            x = F.conv2d(features[-1], weight, stride=stride, padding=(kernel - 1) // 2)
            features.append(F.leaky_relu(self._batch_norm("encoder", i, x), LEAK))
        return features[1:]

    def decode(self, features: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        model, params = self.config.model, self.params["decoder"]
        code = {"zero_one": labels, "half": labels - 0.5, "one": 2 * labels - 1}[model.code]

        def tile(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, code[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)

        x = tile(features[-1])
        for i, (_, kernel, stride) in enumerate(model.decoder):
            x = _conv_transpose(x, params[f"deconv{i}/kernel"], kernel, stride)
            x = F.relu(self._batch_norm("decoder", i, x))
            if i < model.skips:
                x = torch.cat([x, features[-2 - i]], dim=1)
            if i < model.injections:
                x = tile(x)
        return torch.tanh(_conv_transpose(x, params["rgb/kernel"], *model.rgb, params["rgb/bias"]))

    def discriminate(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model, params = self.config.model, self.params["discriminator"]
        x = images
        for i, (_, kernel, stride) in enumerate(model.discriminator):
            x = F.conv2d(x, params[f"shared/conv{i}/kernel"], stride=stride, padding=(kernel - 1) // 2)
            groups = {"layer": 1, "instance": x.shape[1]}[model.norm]
            scale, bias = params[f"shared/norm{i}/scale"], params[f"shared/norm{i}/bias"]
            x = F.leaky_relu(F.group_norm(x, groups, scale, bias, eps=1e-6), LEAK)
        x = x.flatten(1)

        def head(name: str) -> torch.Tensor:
            h = F.linear(x, params[f"{name}_hidden/kernel"], params.get(f"{name}_hidden/bias"))
            if model.fc_norm:
                scale, bias = params[f"{name}_norm/scale"], params[f"{name}_norm/bias"]
                h = F.layer_norm(h, h.shape[1:], scale, bias, eps=1e-6)
            return F.linear(F.leaky_relu(h, LEAK), params[f"{name}/kernel"], params[f"{name}/bias"])

        return head("critic")[:, 0], head("classifier")

    def _batch_norm(self, network: str, i: int, x: torch.Tensor) -> torch.Tensor:
        params, stats = self.params[network], self.stats[network]
        return F.batch_norm(
            x,
            stats[f"norm{i}/mean"],
            stats[f"norm{i}/var"],
            params[f"norm{i}/scale"],
            params[f"norm{i}/bias"],
            training=self.training,
            momentum=1 - self.config.model.batch_norm_momentum,
            eps=1e-3,
        )

    # Losses.

    def critic_loss(self, images: torch.Tensor, labels: torch.Tensor, draw: Draw) -> torch.Tensor:
        weights = self.config.loss
        with torch.no_grad():
            fake = self.decode(self.encode(images), draw.targets)
        real_values, logits = self.discriminate_once(images)
        fake_values, _ = self.discriminate_once(fake)
        mixed = (images + draw.alpha * (fake - images)).requires_grad_()
        values, _ = self.discriminate(mixed)
        (gradient,) = torch.autograd.grad(values.sum(), mixed, create_graph=True)
        norm = gradient.flatten(1).square().sum(1).add(1e-12).sqrt()
        return (
            fake_values.mean()
            - real_values.mean()
            + weights.gradient_penalty * (norm - 1).square().mean()
            + weights.critic_classification * F.binary_cross_entropy_with_logits(logits, labels)
        )

    def generator_loss(self, images: torch.Tensor, labels: torch.Tensor, draw: Draw) -> torch.Tensor:
        weights = self.config.loss
        features = self.encode(images)
        fake = self.decode(features, draw.targets)
        reconstruction = self.decode(features, labels)
        values, logits = self.discriminate_once(fake)
        return (
            weights.reconstruction * F.l1_loss(reconstruction, images)
            + weights.generator_classification * F.binary_cross_entropy_with_logits(logits, draw.targets)
            - values.mean()
        )

    # Inference.

    @torch.inference_mode()
    def edit(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`pictures` (B, 3, S, S) with the attributes `labels`, 0/1 (B, n), by the moving averages."""
        self.training = False
        try:
            with self._cast():
                return self.decode(self.encode(images), labels)
        finally:
            self.training = True

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.config.get("dtype") == "bfloat16")

    # Training.

    def gradients(self, phase: str, batch: Mapping[str, Any], draw: Draw) -> tuple[torch.Tensor, dict[str, Tensors]]:
        """The loss of "critic" or "generator" on a batch of uint8 images, and network -> gradients; sets `.grad`."""
        loss_of = {"critic": self.critic_loss, "generator": self.generator_loss}[phase]
        networks = {"critic": ("discriminator",), "generator": ("encoder", "decoder")}[phase]
        parameters = [p for network in networks for p in self.params[network].values()]
        labels = torch.from_numpy(batch["labels"]).to(self.device, self.dtype)
        draw = Draw(draw.targets.to(self.device, self.dtype), draw.alpha.to(self.device, self.dtype))
        with self._cast():
            loss = loss_of(self.pictures(batch["images"]), labels, draw)
        for parameter in parameters:
            parameter.grad = None
        # Only these: a generator's update leaves the critic's parameters alone. (Gradients set by hand from
        # `autograd.grad` may have other strides than their parameters, and the fused Adam then mixes them up.)
        loss.backward(inputs=parameters)
        return loss.detach(), {n: {k: p.grad for k, p in self.params[n].items()} for n in networks}

    def iterate(self, batches: Sequence[Mapping[str, Any]], draws: Sequence[Draw]) -> dict[str, float]:
        """Critic updates on all batches but the last, then a generator update; the last loss of each phase."""
        losses: dict[str, torch.Tensor] = {}
        for i, (batch, draw) in enumerate(zip(batches, draws, strict=True)):
            phase = "critic" if i < self.config.critic_updates else "generator"
            losses[phase], _ = self.gradients(phase, batch, draw)
            self.optimizers[phase].step()
        return {phase: loss.item() for phase, loss in losses.items()}  # waits for the device, once


def _conv_transpose(
    x: torch.Tensor, weight: torch.Tensor, kernel: int, stride: int, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """To `stride` times the size."""
    padding = (kernel - 1) // 2
    extra = stride - kernel + 2 * padding
    return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding=extra)
