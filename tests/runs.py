"""A folder of small pictures and configs so narrow that a run takes seconds."""

import csv
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from faceattr_jax import config as configs
from faceattr_jax.editor import Editor
from faceattr_jax.methods.base import build
from faceattr_jax.training.state import init_state

ATTRIBUTES = ("Bangs", "Eyeglasses", "Male")
COUNT = 48


def make_faces(folder: Path, count: int = COUNT) -> Path:
    """Pictures and labels.csv. An attribute is a bright quarter of the picture, so that it can be learned."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *ATTRIBUTES, "split"])
        for i in range(count):
            labels = rng.integers(0, 2, len(ATTRIBUTES))
            pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
            for j, value in enumerate(labels):
                pixels[(j // 2) * 16 : (j // 2) * 16 + 16, (j % 2) * 16 : (j % 2) * 16 + 16] += np.uint8(120 * value)
            Image.fromarray(pixels).save(folder / f"{i:03}.png")
            rows.writerow([f"{i:03}.png", *labels, ("train", "train", "valid", "test")[i % 4]])
    return folder


def make_people(folder: Path, people: int = 5, each: int = 2) -> Path:
    """A folder for each person, with pictures of a colour of their own and noise."""
    for person in range(people):
        place = folder / f"{person:06}"
        place.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(person)
        colour = rng.integers(0, 200, 3)
        for i in range(each):
            Image.fromarray((colour + rng.integers(0, 50, (32, 32, 3))).astype(np.uint8)).save(place / f"{i}.png")
    return folder


# AttGAN of two levels, which is soon compiled.
SHALLOW: dict[str, object] = {
    "model.width": 4,
    "model.encoder": ((1, 4, 2), (2, 4, 2)),
    "model.decoder": ((2, 4, 2), (1, 4, 2)),
    "model.discriminator": ((1, 4, 2), (2, 4, 2)),
    "model.skips": 0,
    "model.injections": 0,
}


def attgan(faces: Path, **changes: object) -> ConfigDict:
    """The quickstart's AttGAN of two levels and a sixteenth as wide, for a few iterations.

    With batch norm, to have statistics to move.
    """
    narrow = {"model.width": 2, "model.generator_norm": "batch", "critic_updates": 2}
    narrow |= {key: SHALLOW[key] for key in ("model.encoder", "model.decoder", "model.discriminator")}
    narrow |= {"model.skips": 1, "model.injections": 1}
    return changed("attgan_quickstart", {**narrow, "train.iterations": 6, "evaluation.images": 8}, faces, changes)


def extension(faces: Path, name: str, **changes: object) -> ConfigDict:
    """One of AttGAN's extensions at 32 px, shallow and a few channels wide, for a few iterations."""
    narrow = {"image_size": 32, "critic_updates": 1, **SHALLOW}
    return changed(f"{name}:synthetic", {**narrow, "train.iterations": 4, "evaluation.images": 8}, faces, changes)


def classifier(faces: Path, **changes: object) -> ConfigDict:
    """The quickstart's judge, narrower, for a few iterations."""
    return changed(
        "classifier_synthetic",
        {"model.widths": (4, 8), "model.fc": 8, "train.iterations": 6, "evaluation.images": 8},
        faces,
        changes,
    )


def attribute_inverse(faces: Path, **changes: object) -> ConfigDict:
    """The attribute-inverse GAN of 32 px, a few channels wide, for a few iterations."""
    return changed(
        "attribute_inverse_128",
        {
            "attributes": ("Eyeglasses",),
            "image_size": 32,
            "model.width": 2,
            "model.generator": (1, 2, 2, 2, 2),
            "model.discriminator": (1, 2, 2, 2),
            "optimizer.schedule": (),
            "train.iterations": 4,
            "train.evaluate_every": 2,
            "evaluation.images": 8,
        },
        faces,
        changes,
    )


def elegant(faces: Path, **changes: object) -> ConfigDict:
    """ELEGANT of 32 px, two layers deep, a few channels wide, for a few iterations."""
    shallow = {"image_size": 32, "model.width": 2, "model.encoder": (1, 2), "model.discriminator": (1, 2)}
    return changed("elegant_128", {**shallow, "train.iterations": 3, "evaluation.images": 8}, faces, changes)


def slgan(faces: Path, **changes: object) -> ConfigDict:
    """SL-GAN of 32 px, a few channels wide, for a few iterations."""
    return changed(
        "slgan_64",
        {
            "image_size": 32,
            "model.width": 2,
            "model.latents": 3,
            "train.iterations": 4,
            "train.evaluate_every": 2,
            "evaluation.images": 8,
        },
        faces,
        changes,
    )


def recognizer(data: str, **changes: object) -> ConfigDict:
    """The recogniser of drawn faces at 32 px, a few channels wide, for a few iterations."""
    narrow = {"image_size": 32, "model.widths": (4, 8), "model.embedding": 8, "model.people": 10, "attributes": ()}
    narrow |= {"crop": "center178", "optimizer.schedule": (), "train.iterations": 4, "train.evaluate_every": 2}
    return changed("recognizer_64:synthetic", narrow, Path(data), changes)


def denoiser(faces: Path, **changes: object) -> ConfigDict:
    """The denoiser of 32 px, a few channels wide, for a few iterations."""
    short = {"model.denoiser": (4,), "train.iterations": 4, "train.evaluate_every": 2, "evaluation.images": 8}
    return changed("denoiser_128", {"image_size": 32, **short}, faces, changes)


def diat(faces: Path, name: str = "diat_128", **changes: object) -> ConfigDict:
    """DIAT of 32 px, a few channels wide, for an iteration or two of each stage."""
    return changed(
        name,
        {
            "attributes": ("Eyeglasses",),
            "data.exclude": (),
            "image_size": 32,
            "model.width": 4,
            "model.transform": (1, 2, 2),
            "model.mask": (2, 2, 2, 2),
            "model.discriminator_width": 2,
            "model.discriminator": ((1, 8, 2), (1, 3, 1), (2, 4, 2), (2, 3, 1)),
            "model.fc": 4,
            "model.denoiser": (2,),
            "pretrain.iterations": 1,
            "train.iterations": 3,
            "train.evaluate_every": 2,
            "evaluation.images": 8,
        },
        faces,
        changes,
    )


def fresh(config: ConfigDict, path: str = "runs/fresh/3") -> Editor:
    """A run that was never trained; its random numbers are NumPy's, so that nothing is compiled for them."""
    method = build(config)
    shapes = jax.eval_shape(lambda: init_state(method, 0).inference_variables)
    rng = np.random.default_rng(0)

    def value(place: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if place[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, leaf.dtype)
        return rng.normal(0, np.prod(leaf.shape[:-1] or 100) ** -0.5, leaf.shape).astype(leaf.dtype)

    return Editor(method, jax.tree_util.tree_map_with_path(value, shapes), Path(path))


def changed(name: str, defaults: dict[str, object], faces: Path, changes: dict[str, object]) -> ConfigDict:
    settings = {
        "attributes": ATTRIBUTES,
        "batch_size": 8,
        "crop": "none",
        "data.path": str(faces),
        "train.log_every": 1,
        "train.checkpoint_every": 2,
        "train.evaluate_every": 3,
        **defaults,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return configs.load(
        name, {key: value if isinstance(value, str) else repr(value) for key, value in settings.items()}
    )


def random_editor(config: ConfigDict) -> Editor:
    """A model of random numbers; scales, shifts and variances, which have one axis or none, are positive."""
    method, rng = build(config), np.random.default_rng(0)

    def filled(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        numbers = np.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
        return numbers if leaf.ndim > 1 else np.abs(numbers) + np.float32(0.3)

    return Editor(method, jax.tree.map(filled, jax.eval_shape(method.init, jax.random.key(0))))
