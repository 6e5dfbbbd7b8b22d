"""ELEGANT's own code (github.com/Prinsphield/ELEGANT): its ``.pth`` files in our names.

A model is a file for each network: ``Enc_iter_N.pth`` and ``Dec_iter_N.pth``, and of the discriminators
``D1_iter_N.pth`` and ``D2_iter_N.pth``, which nothing but training needs. The networks are known by their tensors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import state_dict
from faceattr_jax.pretrained.state_dict import CONV, TRANSPOSED, Place, StateDict, biased, layer

CONFIG = "elegant_256:released"
LAYER, SHARED, LINEAR = "main.{}.0.weight", "conv.{}.weight", "linear.0.weight"
NORM = {"scale": ("alpha", state_dict.SCALAR), "shift": ("beta", state_dict.SCALAR)}
FILES = {"encoder": "Enc", "decoder": "Dec", "discriminator1": "D1", "discriminator2": "D2"}


def states(held: Sequence[tuple[Path, Mapping[Any, Any]]]) -> dict[str, StateDict] | None:
    """The networks in the files, None where one of them is not one of these."""
    found: dict[str, StateDict] = {}
    discriminators = []
    for path, content in held:
        state = StateDict.of(path, content)
        first = state.tensors.get(LAYER.format(0))
        if SHARED.format(0) in state.tensors or LINEAR in state.tensors:
            discriminators.append(state)
        elif first is not None and first.ndim == 4:
            name = "encoder" if first.shape[1] == 3 else "decoder"
            if name in found:
                raise UserError(
                    f"'{found[name].path}' and '{path}' both are ELEGANT's {name}; give one of each network"
                )
            found[name] = state
        else:
            return None
    # The first sees the larger pictures.
    discriminators.sort(key=lambda state: state.shape(LINEAR, 2)[1], reverse=True)
    if len(discriminators) not in (0, 2) or found.keys() != {"encoder", "decoder"}:
        names = ", ".join(f"'{path}'" for path, _ in held)
        raise UserError(
            f"an ELEGANT model is Enc_iter_N.pth and Dec_iter_N.pth, and both of D1_iter_N.pth and D2_iter_N.pth or "
            f"neither; {names} is not that"
        )
    return found | dict(zip(("discriminator1", "discriminator2"), discriminators, strict=False))


def settle(config: ConfigDict, states: Mapping[str, StateDict]) -> int | None:
    """Set the keys that the shapes decide; returns the number of attributes, None where no file tells it."""
    model, encoder = config.model, states["encoder"]
    widths = [width for width, *_ in encoder.shapes(LAYER)]
    shared, attributes = [], None
    first = states.get("discriminator1")
    if first:
        # A convolution, its norm and an activation that has no tensors are three entries.
        shared = [width for width, *_ in first.shapes(SHARED, step=3)]
        attributes = first.shape(SHARED.format(0), 4)[1] - 3
        config.image_size = first.side(LINEAR, shared[-1]) * 2 ** len(shared)
    model.width, (model.encoder, model.discriminator) = state_dict.multiples(widths, shared)
    return attributes


def places(config: ConfigDict) -> dict[str, Place]:
    """Our tensors in the files."""
    model = config.model
    found: dict[str, Place] = {}
    levels = len(model.encoder)
    for network, kind, layout in (("encoder", "conv", CONV), ("decoder", "deconv", TRANSPOSED)):
        for i in range(levels):
            last = network == "decoder" and i == levels - 1
            found |= layer(network, f"{network}/{'rgb' if last else f'{kind}{i}'}", f"main.{i}.0", biased(layout))
            if not last:
                found |= layer(network, f"{network}/norm{i}", f"main.{i}.1", NORM)
    for network in ("discriminator1", "discriminator2") if model.discriminator else ():
        for i in range(len(model.discriminator)):
            found |= layer(network, f"{network}/conv{i}", f"conv.{3 * i}", biased(CONV))
            found |= layer(network, f"{network}/norm{i}", f"conv.{3 * i + 1}", NORM)
        reading = state_dict.flattened(model.discriminator[-1] * model.width)
        found |= layer(network, f"{network}/fc", "linear.0", biased(reading))
    return found
