"""AttGAN-PyTorch (github.com/elvisyjlin/AttGAN-PyTorch, MIT): its ``.pth`` files in our names.

A file is a dict of state dicts, ``G`` and, where the discriminators were saved too, ``D`` (its training script saves
``G`` alone). Both have convolutions of 4 pixels and stride 2 only. The ``--test_int 1.0`` of its scripts is a strength
of 2 here, where 1 is what the training showed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import state_dict
from faceattr_jax.pretrained.state_dict import CONV, TRANSPOSED, Layout, Place, StateDict, biased, layer

CONFIG = "attgan_128:pytorch"
ENCODER, DECODER, SHARED = (f"{layers}.{{}}.layers.0.weight" for layers in ("enc_layers", "dec_layers", "conv"))
HIDDEN = "fc_adv.0.layers.0.weight"
NORM = {leaf: (state_dict.LEAVES[leaf], state_dict.SAME) for leaf in ("scale", "bias", "mean", "var")}


def states(held: Sequence[tuple[Path, Mapping[Any, Any]]]) -> dict[str, StateDict] | None:
    """The networks in a file, None where it is not one of these."""
    if not any(isinstance(content.get("G"), dict) for _, content in held):
        return None
    if len(held) > 1:
        raise UserError(f"AttGAN-PyTorch's '{held[0][0]}' is a model by itself; convert one file at a time")
    ((path, content),) = held
    return {name: StateDict.of(path, content[name]) for name in ("G", "D") if isinstance(content.get(name), dict)}


def settle(config: ConfigDict, states: Mapping[str, StateDict]) -> int:
    """Set the keys that the shapes decide; returns the number of attributes."""
    generator, discriminator = states["G"], states.get("D")
    encoder = [width for width, *_ in generator.shapes(ENCODER)]
    inputs, decoder = zip(*((i, o) for i, o, *_ in generator.shapes(DECODER)), strict=True)
    attributes = inputs[0] - encoder[-1]
    shared, hidden = [], []
    if discriminator:
        shared = [width for width, *_ in discriminator.shapes(SHARED)]
        hidden = [discriminator.shape(HIDDEN, 2)[0]]
        config.image_size = discriminator.side(HIDDEN, shared[-1]) * 2 ** len(shared)
    model = config.model
    model.width, (*tables, fc) = state_dict.multiples(encoder, decoder[:-1], shared, hidden)
    model.encoder, model.decoder, model.discriminator = (tuple((width, 4, 2) for width in table) for table in tables)
    model.fc = fc[0] if fc else model.fc
    # What joins a decoder layer's output before the next: a feature of the encoder, the attributes, both, or neither.
    skips, injections = [], []
    for width, read, feature in zip(decoder, inputs[1:], encoder[-2::-1], strict=False):
        skips.append(read - width in (feature, feature + attributes))
        injections.append(read - width - skips[-1] * feature == attributes)
    model.skips, model.injections = _leading(skips), _leading(injections)
    batch = "enc_layers.0.layers.1.running_mean" in generator.tensors
    model.generator_norm = "batch" if batch else "instance"
    return attributes


def places(config: ConfigDict) -> dict[str, Place]:
    """Our tensors in the file."""
    model = config.model
    plain = {leaf: NORM[leaf] for leaf in ("scale", "bias")}
    found: dict[str, Place] = {}

    def block(
        network: str, ours: str, theirs: str, number: int, layout: Layout, norm: Mapping[str, tuple[str, Layout]]
    ) -> None:
        kernel = "deconv" if layout is TRANSPOSED else "conv"
        layers = f"{theirs}.{number}.layers"
        found.update(layer(network, f"{ours}/{kernel}{number}", f"{layers}.0", {"kernel": ("weight", layout)}))
        found.update(layer(network, f"{ours}/norm{number}", f"{layers}.1", norm))

    norm = NORM if model.generator_norm == "batch" else plain
    for i in range(len(model.encoder)):
        block("G", "encoder", "enc_layers", i, CONV, norm)
    last = len(model.decoder)
    for i in range(last):
        block("G", "decoder", "dec_layers", i, TRANSPOSED, norm)
    found |= layer("G", "decoder/rgb", f"dec_layers.{last}.layers.0", biased(TRANSPOSED))
    if not model.discriminator:
        return found
    for i in range(len(model.discriminator)):
        block("D", "discriminator/shared", "conv", i, CONV, plain)
    reading = state_dict.flattened(model.discriminator[-1][0] * model.width)
    for ours, theirs in (("critic", "fc_adv"), ("classifier", "fc_cls")):
        for name, number, layout in ((f"{ours}_hidden", 0, reading), (ours, 1, state_dict.DENSE)):
            found |= layer("D", f"discriminator/{name}", f"{theirs}.{number}.layers.0", biased(layout))
    return found


def _leading(flags: Sequence[bool]) -> int:
    return next((i for i, flag in enumerate(flags) if not flag), len(flags))
