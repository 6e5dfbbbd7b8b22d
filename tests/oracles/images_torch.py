"""EfficientNet-lite0 for PyTorch, from its published table, with the names of the file of weights; NCHW.

Layers are put together here from nothing but `torch.nn`; neither their library of origin nor torchvision is at hand.
"""

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
