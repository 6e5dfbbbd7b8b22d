"""VGG-Face: VGG-16's 13 convolutions, fc6 and fc7, 224x224 RGB -> the 4096 numbers of fc7.

Parkhi, Vedaldi and Zisserman, "Deep face recognition", 2015. NHWC.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.errors import UserError
from faceattr_jax.nn.blocks import max_pool
from faceattr_jax.nn.conv import Conv

SIZE = 224
MEAN = np.array([129.1863, 104.7624, 93.5940], np.float32)  # RGB, of 255: the authors' mean pixel
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""(channels in widths, convolutions) of the blocks, each of which ends with a pooling."""


class VGGFace(nn.Module):
    """(B, 224, 224, 3) RGB levels of 0 to 255 -> (B, fc), fc7 after its ReLU. width: channels of the first block."""

    width: int = 64
    fc: int = 4096

    @nn.compact
    def __call__(self, levels: jax.Array) -> jax.Array:
        x = convolutions(levels - MEAN, self.width)
        x = nn.relu(nn.Dense(self.fc, name="fc6")(x.reshape(x.shape[0], -1)))
        return nn.relu(nn.Dense(self.fc, name="fc7")(x))


def convolutions(x: jax.Array, width: int) -> jax.Array:
    """VGG-16's blocks (B, S, S, 3) -> (B, S / 32, S / 32, 8 width), inside a compact module."""
    for i, (factor, count) in enumerate(BLOCKS, 1):
        for j in range(1, count + 1):
            x = nn.relu(Conv(factor * width, 3, name=f"conv{i}_{j}")(x))
        x = max_pool(x)
    return x


def read(path: Path, network: VGGFace | None = None) -> dict[str, Any]:
    """The parameters of `network` (by default at full width) in a Keras file of weights, as NumPy arrays.

    The file's layers come in order, each a kernel and a bias; their names differ between copies and are not looked
    at. The fully connected layers may be written as convolutions; what follows fc7 is left out. Raises UserError
    where h5py is missing or the shapes are not the network's.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"reading '{path}' needs h5py; install faceattr_jax[faces]") from None
    network = network or VGGFace()
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            arrays = [
                [group[name] for name in group.attrs["weight_names"]]
                for group in (root[name] for name in root.attrs["layer_names"])
            ]
            layers = [layer for layer in arrays if layer]
            if len(layers) < len(shapes):
                raise UserError(f"'{path}' is no VGG-Face: it has {len(layers)} layers with weights, not {len(shapes)}")
            # A module's layers are listed in the order in which they are called.
            return {
                name: _layer(path, name, tree, layer)
                for (name, tree), layer in zip(shapes.items(), layers, strict=False)
            }
    except (OSError, KeyError) as error:
        raise UserError(f"'{path}' is no Keras file of weights ({str(error).partition(chr(10))[0]})") from None


def _layer(path: Path, name: str, tree: Any, layer: list[Any]) -> dict[str, np.ndarray]:
    kernel, bias = tree["kernel"].shape, tree["bias"].shape
    # fc6 over a map flattened row by row is a convolution as large as the map.
    found = [tuple(array.shape) for array in layer]
    fits = len(found) == 2 and found[1] == bias and found[0][-1:] == kernel[-1:]
    fits = fits and (found[0] == kernel or (len(kernel) == 2 and np.prod(found[0]) == np.prod(kernel)))
    if not fits:
        raise UserError(f"'{path}' is no VGG-Face: '{name}' should have the shapes {kernel} and {bias}, not {found}")
    return {"kernel": np.asarray(layer[0], np.float32).reshape(kernel), "bias": np.asarray(layer[1], np.float32)}
