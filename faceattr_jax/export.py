"""`faceattr export`: trained models as files for other programs.

A safetensors file holds a model's variables and config. A StableHLO or ONNX file holds one function of it with all
weights inside (`function`), for any number of pictures; it is written only where it does what the model does.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax import files
from faceattr_jax.attributes import conflict_matrix
from faceattr_jax.editor import Editor, load
from faceattr_jax.errors import UserError, nearest
from faceattr_jax.methods.base import EditRequest
from faceattr_jax.nn.conv import native_convolutions, undilated_convolutions
from faceattr_jax.pretrained import safetensors_file

BATCHES = (1, 7)
DRAWS = 3
FUNCTIONS = ("edit", "swap", "restore", "classify", "embed", "generate", "mask")
"""Capabilities that are exported; without a name the first that a model has."""
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = {"stablehlo": 1e-5, "onnx": 1e-4}

Inputs = Mapping[str, tuple[int | str, ...]]


class Function(NamedTuple):
    """What a file computes: float32 arrays, of which ``"B"`` is the number of pictures, in the order of `inputs`."""

    name: str
    inputs: Inputs
    call: Callable[..., jax.Array]


def function(editor: Editor, name: str = "") -> Function:
    """The function of an editor that is exported, of `FUNCTIONS`; without a name the first that its method has.

    Its pictures are (B, S, S, 3) in [-1, 1], cut with the editor's crop, and it computes what the editor's own function
    of that name does. edits (B, n): 1 sets an attribute, -1 removes it, 0 leaves it as it is, which the model reads off
    the face; of one that cannot read, source (B, n) says it, 0/1. strength (): of the edits. attributes (B, n): 0/1,
    those to take from the references. labels (B, n): 0/1, of the faces that come of latents (B, d). Raises `UserError`
    for a function that the model does not have.
    """
    method, variables = editor.method, editor.variables
    pictures, vectors = ("B", editor.size, editor.size, 3), ("B", len(editor.attributes))

    def edit(images: jax.Array, edits: jax.Array, strength: jax.Array, source: jax.Array | None = None) -> jax.Array:
        own = method.own(variables, images, source)
        ruled_out = jnp.minimum((edits > 0).astype(own.dtype) @ conflict_matrix(editor.attributes), 1.0)
        target = jnp.where(edits == 0, own * (1.0 - ruled_out), (edits > 0).astype(own.dtype))
        named = edits != 0 if source is None else None  # as `Editor.edit` has it
        return method.edit(variables, images, EditRequest(target, own, strength, named))

    def swap(images: jax.Array, references: jax.Array, attributes: jax.Array) -> jax.Array:
        return method.swap(variables, images, references[None], attributes[None])

    def generate(labels: jax.Array, latents: jax.Array) -> jax.Array:
        return method.decode(variables, latents, labels)

    known = [each for each in FUNCTIONS if each in method.capabilities]
    if (name := name or known[0]) not in known:
        raise UserError(
            f"{editor.path}: a {editor.config.method} model has no function '{name}'{nearest(name, known)}; it has "
            f"{', '.join(known)}."
        )
    if name == "edit":
        inputs: dict[str, tuple[int | str, ...]] = {"images": pictures, "edits": vectors, "strength": ()}
        return Function(name, inputs if _reads(editor) else {**inputs, "source": vectors}, edit)
    if name == "swap":
        return Function(name, {"images": pictures, "references": pictures, "attributes": vectors}, swap)
    if name == "generate":
        latents = jax.eval_shape(lambda: method.draw_latents(jax.random.key(0), 1))
        return Function(name, {"labels": vectors, "latents": ("B", *latents.shape[1:])}, generate)
    return Function(name, {"images": pictures}, functools.partial(getattr(method, name), variables))


def to_safetensors(checkpoint: str | Path, path: Path, *, half: bool = False) -> str:
    """Write the model of a run, or of one checkpoint, with the parameters that inference uses; returns what it holds.

    `load` takes the file for a run, and `convert` makes a run of it again, bit by bit the same. half: as float16, which
    is not. Raises `UserError` where `path` exists.
    """
    editor = load(checkpoint)
    safetensors_file.write(path, editor.config, editor.variables, half=half)
    return f"the variables and the config of a model, {editor.config.method}"


def to_stablehlo(checkpoint: str | Path, path: Path, name: str = "") -> str:
    """Write a function of a run (`function`) for `jax.export.deserialize`, and what it takes to `path`.json.

    It runs on CPU, GPU and TPU. Returns what was written. Raises `UserError` where a file is in the way, and writes
    nothing where what it computes is not within 1e-5 of the model.
    """
    about_path = path.with_name(f"{path.name}.json")
    files.check_new(path, about_path)
    _package("flatbuffers")
    editor = load(checkpoint)
    made = function(editor, name)
    scope = jax.export.SymbolicScope()
    shapes = [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(str(shape).replace("'", ""), scope=scope), jnp.float32)
        for shape in made.inputs.values()
    ]
    with undilated_convolutions():
        content = jax.export.export(jax.jit(made.call), platforms=PLATFORMS)(*shapes).serialize()
    error = _check(made, jax.jit(jax.export.deserialize(content).call), "stablehlo")
    files.write(about_path, json.dumps(_about(editor, made), indent=2) + "\n")
    files.write(path, bytes(content))
    return _summary(made, error)


def to_onnx(checkpoint: str | Path, path: Path, name: str = "") -> str:
    """Write a function of a run (`function`) for ONNX runtimes; what it takes is in the file's metadata.

    Returns what was written. Raises `UserError` where a file is in the way, and writes nothing where what onnxruntime
    computes of it is not within 1e-4 of the model.
    """
    files.check_new(path)
    for noisy in ("jax2onnx", "onnx_ir"):  # they warn of packages that are not here, and of shapes that are not stored
        logging.getLogger(noisy).setLevel(logging.ERROR)
    jax2onnx, onnxruntime = _package("jax2onnx"), _package("onnxruntime")
    editor = load(checkpoint)
    made = function(editor, name)
    with native_convolutions():  # ONNX has an operator for each
        model = jax2onnx.to_onnx(made.call, list(made.inputs.values()), input_names=list(made.inputs))
    del model.graph.value_info[:]  # what jax2onnx notes of shapes inside is not always right, and runtimes complain
    for key, value in _about(editor, made).items():
        text = ",".join(value) if isinstance(value, list) else json.dumps(value)
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else text)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*arrays: np.ndarray) -> np.ndarray:
        return session.run(None, dict(zip(made.inputs, arrays, strict=True)))[0]

    error = _check(made, run, "onnx")
    files.write(path, content)
    return _summary(made, error)


def _reads(editor: Editor) -> bool:
    """Whether the model knows a face's own attributes."""
    images = jax.ShapeDtypeStruct((1, editor.size, editor.size, 3), jnp.float32)
    try:
        jax.eval_shape(editor.method.own, editor.variables, images)
    except UserError:
        return False
    return True


def _about(editor: Editor, made: Function) -> dict[str, Any]:
    """What a program that runs the file has to know."""
    return {
        "function": made.name,
        "method": editor.config.method,
        "attributes": list(editor.attributes),
        "image_size": editor.size,
        "crop": editor.crop,
        "inputs": {name: list(shape) for name, shape in made.inputs.items()},
        "range": "images, in and out, are float32 from -1 to 1",
    }


def _draw(inputs: Inputs, batch: int, seed: int) -> list[np.ndarray]:
    """Arrays of `batch` pictures to try a function on."""
    rng = np.random.default_rng((seed, batch))
    draws: dict[str, Callable[[Sequence[int]], Any]] = {
        "images": functools.partial(rng.uniform, -1.0, 1.0),
        "references": functools.partial(rng.uniform, -1.0, 1.0),
        "edits": functools.partial(rng.integers, -1, 2),
        "source": functools.partial(rng.integers, 0, 2),
        "attributes": functools.partial(rng.integers, 0, 2),
        "labels": functools.partial(rng.integers, 0, 2),
        "latents": rng.standard_normal,
        "strength": functools.partial(rng.uniform, 0.5, 2.0),
    }
    sizes = {name: [batch if side == "B" else int(side) for side in shape] for name, shape in inputs.items()}
    return [np.asarray(draws[name](size=size), np.float32) for name, size in sizes.items()]  # type: ignore[call-arg]


def _check(made: Function, run: Callable[..., Any], kind: str) -> float:
    """How far at most a file's results are from the model's, within the kind's tolerance; UserError where they are not.

    A model that decides, which attributes a face has or what a mask covers, may decide otherwise after a rounding
    error. So a draw of pictures that does not agree is followed by another one, DRAWS in all; what is wrong with the
    file itself would be wrong with all of them.
    """
    ours = jax.jit(made.call)
    for seed in range(DRAWS):
        drawn = [_draw(made.inputs, batch, seed) for batch in BATCHES]
        errors = [np.max(np.abs(np.asarray(run(*x)) - np.asarray(ours(*x)))) for x in drawn]
        error = float(np.max(errors))  # NaN where one is, which Python's max may pass over
        if error <= TOLERANCE[kind]:
            return error
    raise UserError(
        f"the {kind} file would differ from the model by {error:.1e}, more than {TOLERANCE[kind]:g}, so it is not "
        "written; please report this with your config."
    )


def _summary(made: Function, error: float) -> str:
    inputs = ", ".join(f"{name} {str(shape).replace(chr(39), '')}" for name, shape in made.inputs.items())
    return f"{made.name}({inputs}), within {error:.0e} of the model"


def _package(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise UserError(
            f"this format needs the package {name}; install it with: pip install 'faceattr_jax[export]'"
        ) from None
