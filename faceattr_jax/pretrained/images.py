"""Networks that describe whole images, for Frechet distances, KID and the Inception Score."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from faceattr_jax.errors import UserError, nearest
from faceattr_jax.pretrained import efficientnet, inception, weights

Outputs = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A frozen network that turns images into features and ImageNet's logits.

    name: "inception" or "efficientnet_lite0". sha256: of the weight file. variables: its weights, to be passed to
    `outputs`. size: side of the pictures that it takes. antialias: whether images are smoothed before they shrink to
    that. apply: (variables, images (B, size, size, 3) in [-1, 1]) -> features (B, D), logits (B, K).
    """

    name: str
    sha256: str
    variables: Mapping[str, Any]
    size: int
    antialias: bool
    apply: Callable[[Mapping[str, Any], jax.Array], Outputs]

    def outputs(self, variables: Mapping[str, Any], images: jax.Array) -> Outputs:
        """Features (B, D) and logits (B, K) of RGB images (B, H, W, 3) in [-1, 1]; pure, differentiable in the images.

        Images are resized bilinearly, whatever their shape: without antialiasing for Inception, as pytorch-fid does
        it (distances change with this), with it for EfficientNet.
        """
        if images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"an image network takes images (B, H, W, 3), not {images.shape}")
        shape = (images.shape[0], self.size, self.size, 3)
        return self.apply(variables, jax.image.resize(images, shape, "linear", antialias=self.antialias))


def image_network(name: str, path: str = "") -> ImageNetwork:
    """The network of that name; path: of the weight file, or "" to look for it where `pretrained.weights` does.

    "inception" gives the 2048 features of published Frechet distances and the 1008 logits of published Inception
    Scores, whose code leaves out the last layer's bias; "efficientnet_lite0" 1280 and 1000 where that file cannot be
    had: its distances compare with each other alone. Raises UserError for another name, and where the weights are
    missing or damaged.
    """
    if name not in NETWORKS:
        raise UserError(f"there is no image network '{name}'{nearest(name, NETWORKS)}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name](path)


def _published(
    file: weights.WeightFile, read: Callable[[Path], dict[str, Any]], path: str, **network: Any
) -> ImageNetwork:
    found, sha256 = weights.find(file, path)
    return ImageNetwork(file.name, sha256, jax.tree.map(jnp.asarray, read(found)), **network)


def _inception(path: str) -> ImageNetwork:
    def apply(held: Mapping[str, Any], images: jax.Array) -> Outputs:
        features, logits = inception.InceptionV3().apply(held, images)
        return features, logits - held["params"]["fc"]["bias"]

    return _published(weights.INCEPTION, inception.read, path, size=inception.SIZE, antialias=False, apply=apply)


def _efficientnet(path: str) -> ImageNetwork:
    module = efficientnet.EfficientNetLite0()
    return _published(
        weights.EFFICIENTNET_LITE0,
        efficientnet.read,
        path,
        size=efficientnet.SIZE,
        antialias=True,
        apply=lambda held, x: module.apply(held, (x + 1.0) * 127.5),
    )


NETWORKS: dict[str, Callable[[str], ImageNetwork]] = {"inception": _inception, "efficientnet_lite0": _efficientnet}
