"""The networks of two published PyTorch programs, whose state dicts have their names: AttGAN-PyTorch and ELEGANT.

Written from the layer tables and the names of the tensors; PyTorch's own layers do everything.

Imports PyTorch: import this module inside a test that has the `torch` fixture.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

NORMS = {"batch": nn.BatchNorm2d, "instance": lambda width: nn.InstanceNorm2d(width, affine=True)}


class Layers(nn.Module):
    """What stands under the name `layers` of each of AttGAN-PyTorch's blocks."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class AttGANGenerator(nn.Module):
    def __init__(self, widths: Sequence[int], attributes: int, skips: int, injections: int, norm: str = "batch"):
        super().__init__()
        self.skips, self.injections = skips, injections
        self.enc_layers, self.dec_layers = nn.ModuleList(), nn.ModuleList()
        before = 3
        for width in widths:
            convolution = nn.Conv2d(before, width, 4, 2, 1, bias=False)
            self.enc_layers.append(Layers(convolution, NORMS[norm](width), nn.LeakyReLU()))
            before = width
        before += attributes
        for i, width in enumerate(reversed(widths)):
            if i < len(widths) - 1:
                convolution = nn.ConvTranspose2d(before, width, 4, 2, 1, bias=False)
                self.dec_layers.append(Layers(convolution, NORMS[norm](width), nn.ReLU()))
                before = width + (i < skips) * widths[-2 - i] + (i < injections) * attributes
            else:
                self.dec_layers.append(Layers(nn.ConvTranspose2d(before, 3, 4, 2, 1), nn.Tanh()))

    def forward(self, images: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        def tiled(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, code[..., None, None].expand(*code.shape, *x.shape[2:])], 1)

        features = [images]
        for layer in self.enc_layers:
            features.append(layer(features[-1]))
        x = tiled(features[-1])
        for i, layer in enumerate(self.dec_layers):
            x = layer(x)
            x = torch.cat([x, features[-2 - i]], 1) if i < self.skips else x
            x = tiled(x) if i < self.injections else x
        return x


class AttGANDiscriminators(nn.Module):
    def __init__(self, widths: Sequence[int], fc: int, attributes: int, size: int):
        super().__init__()
        self.conv = nn.Sequential(
            *(
                Layers(nn.Conv2d(before, width, 4, 2, 1, bias=False), NORMS["instance"](width), nn.LeakyReLU())
                for before, width in zip((3, *widths), widths, strict=False)
            )
        )
        inputs = widths[-1] * (size // 2 ** len(widths)) ** 2
        self.fc_adv, self.fc_cls = (
            nn.Sequential(Layers(nn.Linear(inputs, fc), nn.ReLU()), Layers(nn.Linear(fc, outputs)))
            for outputs in (1, attributes)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.conv(images).flatten(1)
        return self.fc_adv(x)[:, 0], self.fc_cls(x)


class Normalization(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=1) * self.alpha + self.beta


class ELEGANTEncoder(nn.Module):
    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.main = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), Normalization(), nn.LeakyReLU(0.2))
            for before, width in zip((3, *widths), widths, strict=False)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for layer in self.main:
            x = layer(x)
            features.append(x)
        return features


class ELEGANTDecoder(nn.Module):
    def __init__(self, widths: Sequence[int]):
        super().__init__()
        outputs = (*reversed(widths[:-1]), 3)
        self.main = nn.ModuleList()
        for before, width in zip((2 * widths[-1], *outputs), outputs, strict=False):
            convolution = nn.ConvTranspose2d(before, width, 3, 2, 1, 1)
            rest = () if width == 3 else (Normalization(), nn.ReLU())
            self.main.append(nn.Sequential(convolution, *rest))

    def forward(self, new: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        *skips, own = features
        x = torch.cat([new, own], 1)
        for i, layer in enumerate(self.main):
            x = layer(x) + skips[-1 - i] if i < len(skips) else layer(x)
        return 2 * torch.tanh(x)


class ELEGANTDiscriminator(nn.Module):
    """Logits of images of `size`."""

    def __init__(self, widths: Sequence[int], attributes: int, size: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3 + attributes, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, 2, 1), Normalization(), nn.LeakyReLU(0.2)]
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Sequential(nn.Linear(widths[-1] * (size // 2 ** len(widths)) ** 2, 1))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = torch.cat([images, labels[..., None, None].expand(*labels.shape, *images.shape[2:])], 1)
        return self.linear(self.conv(x).flatten(1))[:, 0]


def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Every tensor of it drawn anew, scales around 1 and variances above 0; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            # From 0.04, where the difference of two epsilons shows and rounding does not.
            state[name] = (0.5 * noise.abs() + 0.2) ** 2
        elif tensor.ndim > 1:
            state[name] = noise * (2 / tensor[0].numel()) ** 0.5
        else:
            state[name] = 0.2 * noise + (name.endswith(("layers.1.weight", "alpha")))
    network.load_state_dict(state)
    return network.eval()
