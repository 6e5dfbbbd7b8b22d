"""The networks that metrics look through, each with what it is called, or with one sentence that says why it is absent.

What a number may be called depends on them: with the canonical Inception a Frechet distance is "FID", a kernel distance
"KID" and a score "Inception Score"; with any other network they say which one. Nothing is called by a name that it has
no right to.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from faceattr_jax.data.source import Source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import identity
from faceattr_jax.evaluation.editors import everywhere
from faceattr_jax.pretrained import face_network, image_network

PAIRS = 2_000  # of one person and as many of two, to fix a threshold on
OWN_THRESHOLDS = {"dlib": 0.6}  # what its author takes for one person, of Euclidean distances


@dataclasses.dataclass(frozen=True, eq=False)
class Embedder:
    """name: of the network. sha256: of its weights. input: what it does to a picture first. embed: pictures
    (B, S, S, 3) in [-1, 1] to features (B, D). classify: to ImageNet's probabilities, where it knows any."""

    name: str
    sha256: str
    input: str
    embed: Callable[[jax.Array], jax.Array]
    classify: Callable[[jax.Array], jax.Array] | None = None

    @property
    def about(self) -> str:
        """In words."""
        return f"{self.name}, sha256 {self.sha256[:16]}, {self.input}"


Found = Embedder | str
"""An embedder, or the sentence that says why there is none."""


def pictures(name: str) -> Found:
    """`pretrained.image_network` of that name."""
    try:
        network = image_network(name)
    except UserError as error:
        return str(error)
    outputs, variables = jax.jit(network.outputs), everywhere(network.variables)
    return Embedder(
        name,
        network.sha256,
        f"resized to {network.size} px bilinearly {'with' if network.antialias else 'without'} antialiasing",
        lambda images: outputs(variables, images)[0],
        lambda images: jax.nn.softmax(outputs(variables, images)[1]),
    )


def faces(crop: str, *names: str, recognizer: str = "", unscaled: bool = False) -> Found:
    """The first of `names` whose weights are there: "vgg_face", "dlib", or "recognizer", the run in that workdir.

    crop: the preset that pictures are cut with. unscaled: vectors with lengths of their own, before a network that
    gives unit vectors scales them.
    """
    reasons = []
    for name in names:
        if name == "recognizer" and not recognizer:
            reasons.append("no --recognizer=WORKDIR was given")
            continue
        try:
            network = face_network(ConfigDict({"network": name, "path": recognizer * (name == "recognizer")}), crop)
        except UserError as error:
            if name == "recognizer":  # which a person named
                raise
            reasons.append(str(error))
            continue
        network = network.unscaled if unscaled else network
        features = jax.jit(network.features)
        shown = f"resized to {network.size} px bilinearly with antialiasing"
        if network.square[2] < 1:
            shown = f"its square, {network.square[2]:.0%} of the picture's side, {shown}"
        return Embedder(name, network.sha256, shown, functools.partial(features, everywhere(network.variables)))
    return "; ".join(reasons)


def threshold(embedder: Embedder, source: Source, split: str) -> tuple[float, str]:
    """The distance up to which two pictures show one person, and where it is from.

    Of pairs of the valid split, or of train where valid is what is measured, who are other people there. Raises
    UserError where the data do not say who is on a picture, or have too few of a person.
    """
    held_out = "train" if split == "valid" else "valid"
    indices = identity.whole_people(source, source.table.indices(held_out), PAIRS)
    people = source.table.people(indices)[indices]
    most = int(np.sum([n * (n - 1) // 2 for n in np.bincount(people)]))
    same, other = identity.draw_pairs(people, min(PAIRS, most))
    vectors = identity.embeddings(embedder.embed, source, indices)
    near, far = (identity.pair_distances(vectors, pairs) for pairs in (same, other))
    limit = identity.best_threshold(near, far)
    right = identity.pair_accuracy(near, far, limit)
    return limit, (
        f"{limit:.3f}, fixed on {len(same)} pairs of one person and as many of two from the {held_out} split, "
        f"{right:.3f} of which it gets right"
    )
