"""`faceattr export`: trained models as files for other programs."""

from pathlib import Path

from faceattr_jax.editor import load
from faceattr_jax.pretrained import safetensors_file


def to_safetensors(checkpoint: str | Path, path: Path) -> None:
    """Write the model of a run, or of one checkpoint, with the parameters that inference uses.

    `convert` makes a run of the file again, bit by bit the same. Raises `UserError` where `path` exists.
    """
    editor = load(checkpoint)
    safetensors_file.write(path, editor.config, editor.variables)


FORMATS = {"safetensors": to_safetensors}
