"""Face attribute editing in JAX: load a trained editor, or take the networks, losses and renderer into other code.

>>> import faceattr_jax as fj
>>> editor = fj.load("runs/quickstart/attgan")  # doctest: +SKIP
>>> editor.edit(images, {"Eyeglasses": 1})  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceattr_jax.editor import Editor, load

__all__ = ["Editor", "load"]
__version__ = "0.1.0"
DEFAULT_MODEL = "attgan_celeba_64"
"""The model that comes with the package: AttGAN, 64 px, its paper's 13 attributes, from a small part of CelebA."""


def __getattr__(name: str) -> Any:
    # Loading needs Orbax and ml_collections; importing the package and its networks does not.
    if name in __all__:
        from faceattr_jax import editor

        return getattr(editor, name)
    raise AttributeError(f"module 'faceattr_jax' has no attribute '{name}'")
