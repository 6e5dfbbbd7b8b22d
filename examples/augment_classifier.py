r"""More training data for a classifier: faces with a rare attribute, made by an editor from faces without it.

    python examples/augment_classifier.py runs/attgan Eyeglasses augmented --count 2000
    faceattr train --config=classifier_64 --workdir=runs/judge \
        --config.data.path=augmented --config.crop=none --config.attributes=Eyeglasses

Writes the editor's own training data, and `--count` edited copies of its train split's faces, as pictures with a
labels.csv of the editor's attributes, of which a classifier learns those that it is told to. The valid and test splits
stay real: whether it helped is read off them.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import faceattr_jax as fj
from faceattr_jax import attributes, grids
from faceattr_jax.data.images import to_uint8
from faceattr_jax.data.source import SPLITS, open_source


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("attribute")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    a = parser.parse_args(argv)

    editor = fj.load(a.model)
    source = open_source(editor.config.data.path, size=editor.size, crop=editor.crop)
    labels = source.table.select(editor.attributes)
    train = source.table.indices("train")
    lacking = train[labels[train, editor.attributes.index(a.attribute)] == 0][: a.count]

    a.out.mkdir(parents=True)
    with (a.out / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "split", *editor.attributes])

        def add(name: str, image: np.ndarray, split: str, values: np.ndarray) -> None:
            grids.write_png(a.out / name, image)
            rows.writerow([name, split, *values.astype(int)])

        for i, (split, own) in enumerate(zip(source.table.split, labels, strict=True)):
            add(f"{i:06}.png", source.images(np.array([i]))[0], SPLITS[split], own)
        for start in range(0, len(lacking), 64):
            chosen = lacking[start : start + 64]
            target = attributes.edited(labels[chosen], {a.attribute: 1}, editor.attributes)
            edited = editor.edit(source.images(chosen), {a.attribute: 1}, source=labels[chosen])
            for i, image, own in zip(chosen, np.asarray(to_uint8(edited)), target, strict=True):
                add(f"{i:06}.{a.attribute}.png", image, "train", own)


if __name__ == "__main__":
    main()
