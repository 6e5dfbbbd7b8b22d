"""What is gathered of edits while `editing.evaluate_editors` or `exemplar.evaluate_exchangers` makes them.

Readers are shown batches (`editing.Seen`) and keep sums, or a few bytes of every edit; single edits of the editor
"model" alone concern them. A cell is an attribute and a direction, "adding" or "removing".
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.source import Source
from faceattr_jax.evaluation import features, identity
from faceattr_jax.evaluation.editing import Seen
from faceattr_jax.evaluation.embedders import Embedder
from faceattr_jax.evaluation.tally import DIRECTIONS

Cell = tuple[str, str]
KERNEL_ROWS = 10_000  # of a set, for kernel distances, which need rows


class Rows:
    """Sums of a set's features, and its first KERNEL_ROWS rows where a kernel distance is wanted."""

    def __init__(self, keep: bool) -> None:
        self.moments, self._keep = features.Moments(), keep
        self._kept: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """rows: (B, D)."""
        if len(rows):
            self.moments.add(rows)
            if self._keep:
                self._kept.append(rows[: max(0, KERNEL_ROWS - sum(map(len, self._kept)))].astype(np.float32))

    def __add__(self, other: "Rows") -> "Rows":
        """Of both sets together."""
        total = Rows(self._keep and other._keep)
        total.moments, total._kept = self.moments + other.moments, self._kept + other._kept
        return total

    @property
    def kept(self) -> np.ndarray:
        return np.concatenate(self._kept) if self._kept else np.zeros((0, 1), np.float32)


class Inputs:
    """Features (B, D) of a batch's inputs, computed once, however often it is edited."""

    def __init__(self, embedder: Embedder) -> None:
        self._embed = embedder.embed
        self._last: tuple[Any, np.ndarray] = (None, np.zeros(0))

    def __call__(self, seen: Seen) -> np.ndarray:
        if self._last[0] is not seen.images:
            self._last = seen.images, np.asarray(self._embed(seen.images))
        return self._last[1]


class Distributions:
    """Features of edits, and of the faces themselves.

    edits: cell -> those edits. faces: cell -> faces with the value that these edits start from: "adding" those that
    lack the attribute. Real faces that have what a cell's edits should have got are those of the other direction.
    """

    def __init__(self, embedder: Embedder, known: Sequence[str], *, kernel: bool = False) -> None:
        self.embedder, self._known = embedder, list(known)
        cells = [(name, direction) for name in known for direction in DIRECTIONS]
        self.edits, self.faces = ({cell: Rows(kernel) for cell in cells} for _ in range(2))
        self._inputs = Inputs(embedder)

    def __call__(self, seen: Seen) -> None:
        if seen.editor != "model" or len(seen.group) != 1:
            return
        inputs, rows = self._inputs(seen), np.asarray(self.embedder.embed(seen.edits))
        name = seen.group[0]
        for value, direction in enumerate(DIRECTIONS):
            chosen = _chosen(seen, self._known.index(name), value)
            self.edits[name, direction].add(rows[chosen])
            self.faces[name, direction].add(inputs[chosen])


class Gallery:
    """The faces at `indices` of `source`, ascending, among which edits look for their own.

    vectors: theirs, (N, D). people: theirs, (N,), or None where they are not known.
    """

    def __init__(self, embedder: Embedder, source: Source, indices: np.ndarray) -> None:
        self.indices, self.vectors = indices, identity.embeddings(embedder.embed, source, indices)
        self.people = None if source.table.identity is None else source.table.people(indices)[indices]


class Likeness:
    """What a face network makes of edits beside their sources: of every edit the distance, and more where asked.

    norms: ratios of the vectors' lengths, too. gallery: with the sources among its faces, to be found there, too.
    distances, norms, right, by_image, by_person: cell -> an entry for every edit; right is the judge's verdict.
    """

    def __init__(
        self, embedder: Embedder, known: Sequence[str], *, norms: bool = False, gallery: Gallery | None = None
    ) -> None:
        self.embedder, self.gallery, self._known = embedder, gallery, list(known)
        self._norms, self._inputs = norms, Inputs(embedder)
        cells = [(name, direction) for name in known for direction in DIRECTIONS]
        self._found: dict[str, dict[Cell, list[np.ndarray]]] = {
            measure: {cell: [] for cell in cells}
            for measure in ("distances", "norms", "right", "by_image", "by_person")
        }

    def __call__(self, seen: Seen) -> None:
        if seen.editor != "model" or len(seen.group) != 1:
            return
        # Sources are embedded in the same batch as their edits: of an unedited face not a bit differs.
        vectors, inputs = (np.asarray(x, np.float64) for x in (self.embedder.embed(seen.edits), self._inputs(seen)))
        name = seen.group[0]
        for value, direction in enumerate(DIRECTIONS):
            chosen = _chosen(seen, self._known.index(name), value)
            if not chosen.any():
                continue
            edits, sources = vectors[chosen], inputs[chosen]
            found = {"distances": np.linalg.norm(edits - sources, axis=1), "right": seen.right[chosen]}
            if self._norms:
                found["norms"] = features.norm_ratios(edits, sources)
            if self.gallery:
                people = self.gallery.people
                found["by_image"], by_person = identity.rank1_edits(
                    edits,
                    np.searchsorted(self.gallery.indices, seen.faces[chosen]),
                    self.gallery.vectors,
                    self.gallery.indices if people is None else people,
                )
                if people is not None:
                    found["by_person"] = by_person
            for measure, values in found.items():
                self._found[measure][name, direction].append(values)

    def __getitem__(self, measure: str) -> dict[Cell, np.ndarray]:
        return {cell: np.concatenate(parts) if parts else np.zeros(0) for cell, parts in self._found[measure].items()}


class Varieties:
    """Inception Score of reconstructions (`__call__`) and of new faces (`drawn`), of `images` each."""

    def __init__(self, embedder: Embedder, indices: np.ndarray) -> None:
        assert embedder.classify is not None
        self.embedder, self._classify, self._indices = embedder, embedder.classify, indices
        self.reconstructed, self.generated = (features.InceptionScore(len(indices)) for _ in range(2))

    def __call__(self, seen: Seen) -> None:
        if seen.editor == "model" and not seen.group:
            places = np.searchsorted(self._indices, seen.faces[: seen.count])
            self.reconstructed.add(np.asarray(self._classify(seen.edits))[: seen.count], places)

    def drawn(self, name: str, images: jnp.ndarray, places: np.ndarray, count: int) -> None:
        """As `generation.evaluate_generators` shows them."""
        if name == "model":
            self.generated.add(np.asarray(self._classify(images))[:count], places[:count])


def _chosen(seen: Seen, column: int, value: int) -> np.ndarray:
    """(B,) bool: faces with that value of the attribute, padding left out."""
    return ((seen.own[:, column] > 0.5) == bool(value)) & (np.arange(len(seen.faces)) < seen.count)
