"""EfficientNet-lite0, FID's Inception-v3 and VGG-16 for PyTorch, with the names that the files of weights have; NCHW.

Put together from nothing but `torch.nn`: torchvision and EfficientNet's library of origin need not be at hand.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

Tensors = dict[str, torch.Tensor]


def randomise(network: nn.Module) -> nn.Module:
    """Weights that keep the scale of what they are given, and norms other than the identity."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, middle in zip(
                (layer.weight, layer.bias, layer.running_mean, layer.running_var), (1, 0, 0, 1), strict=True
            ):
                nn.init.normal_(tensor, middle, 0.1)
    return network.eval()


class _Same(nn.Conv2d):
    """TensorFlow's padding: as many outputs as inputs over the stride, the odd zero at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = []
        for side, taps, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-side // step) - 1) * step + taps - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, taps: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = _Same(width, width, taps, stride, groups=width, bias=False)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return y + x if self.skips else y


class EfficientNetLite0(nn.Module):
    """Outputs of every block, the features and the logits, of images of 0 to 255 (B, H, W, 3)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
        taps = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
        self._conv_stem = _Same(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            _Inverted(widths[i], widths[i + 1], taps[i], strides[i], 6 if i else 1) for i in range(16)
        )
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, levels: torch.Tensor) -> Tensors:
        x = F.relu6(self._bn0(self._conv_stem((levels.permute(0, 3, 1, 2) - 127) / 128)))
        found = {}
        for i, block in enumerate(self._blocks):
            x = found[f"block{i}"] = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        found["features"] = F.adaptive_avg_pool2d(x, 1).flatten(1)
        found["logits"] = self._fc(found["features"])
        return found


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, taps: tuple[int, int], stride: int = 1, *, pad: bool = True) -> None:
        super().__init__()
        padding = (taps[0] // 2, taps[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, taps, stride, padding, bias=False)
        self.bn = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Its units by name; subclasses say how they hang together."""

    def unit(self, name: str, *args, **kwargs) -> None:
        self.add_module(f"branch{name}", _Unit(*args, **kwargs))

    def run(self, x: torch.Tensor, *names: str) -> torch.Tensor:
        for name in names:
            x = getattr(self, f"branch{name}")(x)
        return x


def _mean(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _A(_Block):
    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.unit("1x1", inputs, 64, (1, 1))
        self.unit("5x5_1", inputs, 48, (1, 1))
        self.unit("5x5_2", 48, 64, (5, 5))
        self.unit("3x3dbl_1", inputs, 64, (1, 1))
        self.unit("3x3dbl_2", 64, 96, (3, 3))
        self.unit("3x3dbl_3", 96, 96, (3, 3))
        self.unit("_pool", inputs, pooled, (1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        triple = self.run(x, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
        return torch.cat([self.run(x, "1x1"), self.run(x, "5x5_1", "5x5_2"), triple, self.run(_mean(x), "_pool")], 1)


class _B(_Block):
    def __init__(self) -> None:
        super().__init__()
        self.unit("3x3", 288, 384, (3, 3), 2, pad=False)
        self.unit("3x3dbl_1", 288, 64, (1, 1))
        self.unit("3x3dbl_2", 64, 96, (3, 3))
        self.unit("3x3dbl_3", 96, 96, (3, 3), 2, pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.run(x, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
        return torch.cat([self.run(x, "3x3"), double, F.max_pool2d(x, 3, 2)], 1)


class _C(_Block):
    def __init__(self, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.unit("1x1", 768, 192, (1, 1))
        self.unit("7x7_1", 768, width, (1, 1))
        self.unit("7x7_2", width, width, row)
        self.unit("7x7_3", width, 192, column)
        self.unit("7x7dbl_1", 768, width, (1, 1))
        self.unit("7x7dbl_2", width, width, column)
        self.unit("7x7dbl_3", width, width, row)
        self.unit("7x7dbl_4", width, width, column)
        self.unit("7x7dbl_5", width, 192, row)
        self.unit("_pool", 768, 192, (1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.run(x, "7x7_1", "7x7_2", "7x7_3")
        double = self.run(x, *(f"7x7dbl_{i}" for i in range(1, 6)))
        return torch.cat([self.run(x, "1x1"), single, double, self.run(_mean(x), "_pool")], 1)


class _D(_Block):
    def __init__(self) -> None:
        super().__init__()
        self.unit("3x3_1", 768, 192, (1, 1))
        self.unit("3x3_2", 192, 320, (3, 3), 2, pad=False)
        self.unit("7x7x3_1", 768, 192, (1, 1))
        self.unit("7x7x3_2", 192, 192, (1, 7))
        self.unit("7x7x3_3", 192, 192, (7, 1))
        self.unit("7x7x3_4", 192, 192, (3, 3), 2, pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        long = self.run(x, *(f"7x7x3_{i}" for i in range(1, 5)))
        return torch.cat([self.run(x, "3x3_1", "3x3_2"), long, F.max_pool2d(x, 3, 2)], 1)


class _E(_Block):
    def __init__(self, inputs: int, *, largest: bool) -> None:
        super().__init__()
        self.unit("1x1", inputs, 320, (1, 1))
        self.unit("3x3_1", inputs, 384, (1, 1))
        self.unit("3x3_2a", 384, 384, (1, 3))
        self.unit("3x3_2b", 384, 384, (3, 1))
        self.unit("3x3dbl_1", inputs, 448, (1, 1))
        self.unit("3x3dbl_2", 448, 384, (3, 3))
        self.unit("3x3dbl_3a", 384, 384, (1, 3))
        self.unit("3x3dbl_3b", 384, 384, (3, 1))
        self.unit("_pool", inputs, 192, (1, 1))
        self.largest = largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.run(x, "3x3_1"), self.run(x, "3x3dbl_1", "3x3dbl_2")
        parts = [self.run(x, "1x1"), self.run(one, "3x3_2a"), self.run(one, "3x3_2b")]
        parts += [self.run(two, "3x3dbl_3a"), self.run(two, "3x3dbl_3b")]
        return torch.cat([*parts, self.run(F.max_pool2d(x, 3, 1, 1) if self.largest else _mean(x), "_pool")], 1)


class InceptionV3(nn.Module):
    """Outputs of every block, the features and the logits, of images in [-1, 1] (B, H, W, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Unit(3, 32, (3, 3), 2, pad=False)
        self.Conv2d_2a_3x3 = _Unit(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = _Unit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Unit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Unit(80, 192, (3, 3), pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _C(128), _C(160), _C(160), _C(192)
        self.Mixed_7a = _D()
        self.Mixed_7b, self.Mixed_7c = _E(1280, largest=False), _E(2048, largest=True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: torch.Tensor) -> Tensors:
        x, found = images.permute(0, 3, 1, 2), {}
        for name, block in self.named_children():
            if name == "fc":
                break
            x = found[name] = block(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, 2)
        found["features"] = F.adaptive_avg_pool2d(x, 1).flatten(1)
        found["logits"] = self.fc(found["features"])
        return found


def torchvision() -> ModuleType:
    """As much of torchvision as pytorch-fid builds its network from, where torchvision is not installed.

    The layers are those above; how A, C and E pool and join them is pytorch-fid's own code.
    """
    blocks = ModuleType("torchvision.models.inception")
    blocks.InceptionA = _A
    blocks.InceptionC = type("InceptionC", (_C,), {"__init__": lambda self, inputs, width: _C.__init__(self, width)})
    blocks.InceptionE = type("InceptionE", (_E,), {"__init__": lambda self, x: _E.__init__(self, x, largest=False)})
    package = ModuleType("torchvision")
    package.__version__ = "0.28.0"
    package.models = ModuleType("torchvision.models")
    package.models.inception = blocks
    package.models.inception_v3 = lambda **_: InceptionV3()
    return package


class VGG16(nn.Module):
    """Outputs of every layer after its ReLU, and of the last one, of images in [-1, 1] (B, 224, 224, 3)."""

    def __init__(self, outputs: int, width: int, fc: int) -> None:
        super().__init__()
        layers, inputs = [], 3
        for letter in "11P22P444P888P888P":
            if letter == "P":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(inputs, int(letter) * width, 3, padding=1), nn.ReLU()]
                inputs = int(letter) * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 49, fc), nn.ReLU(), nn.Dropout(), nn.Linear(fc, fc), nn.ReLU(), nn.Dropout(),
            nn.Linear(fc, outputs),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> Tensors:
        statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
        x = ((images.permute(0, 3, 1, 2) + 1) / 2 - statistics[0]) / statistics[1]
        found = []
        for layer in (*self.features, nn.Flatten(), *self.classifier):
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        blocks = (2, 2, 3, 3, 3)
        names = [f"conv{i}_{j}" for i, count in enumerate(blocks, 1) for j in range(1, count + 1)]
        return {**dict(zip([*names, "fc6", "fc7"], found, strict=True)), "outputs": x}
