"""VGG-16, 224x224 RGB: ImageNet's classes, or, regressed to -1 and 1, a face's attributes (MOON). NHWC.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, configuration D;
Rudd, Gunther and Boult, "MOON: a mixed objective optimization network for the recognition of facial attributes", 2016.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.pretrained import state_dict
from faceattr_jax.pretrained.vgg_face import BLOCKS, SIZE, convolutions

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
"""torchvision's, of RGB in [0, 1]."""


class VGG16(nn.Module):
    """(B, S, S, 3) RGB in [-1, 1] -> (B, outputs), linear. width: channels of the first block.

    In training half of fc6 and of fc7 are dropped.
    """

    outputs: int = 40
    width: int = 64
    fc: int = 4096

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = convolutions(((images + 1.0) / 2.0 - MEAN) / DEVIATION, self.width)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            features = nn.relu(nn.Dense(self.fc, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(features)
        self.sow("intermediates", "features", features)
        return nn.Dense(self.outputs, name="fc8")(x)


def read(path: Path, network: VGG16) -> dict[str, Any]:
    """The variables of `network`, for images of 224 pixels, in a state dict of torchvision's vgg16, as NumPy arrays."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    # PyTorch flattens the last map channel by channel.
    layouts = {"fc6": state_dict.flattened(BLOCKS[-1][0] * network.width)}
    return state_dict.read(path, shapes, NAMES.__getitem__, layouts)


def _names() -> dict[str, str]:
    """torchvision counts the ReLUs, poolings and dropouts too."""
    names, place = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}, 0
    for i, (_, count) in enumerate(BLOCKS, 1):
        for j in range(1, count + 1):
            names[f"conv{i}_{j}"] = f"features.{place}"
            place += 2
        place += 1
    return names


NAMES = _names()
"""What the file calls the layers."""
