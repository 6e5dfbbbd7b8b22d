"""What an inversion asks for, combinations, and a method behind the editor protocol."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.attributes import ATTGAN
from faceattr_jax.data.source import open_source
from faceattr_jax.evaluation.editing import evaluate_editors
from faceattr_jax.evaluation.editors import Compiled, CopyingEditor, choose_combinations, everywhere, floats, invert
from faceattr_jax.methods.base import EditRequest
from tests import runs

NAMES = ("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Male")


def test_invert_resolves_conflicts_and_names_what_the_request_fixes() -> None:
    labels = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]], np.float32)
    target, touched = invert(labels, NAMES, ("Blond_Hair",))
    # Added to the first face it rules out black hair; removed from the second it rules out nothing.
    assert target.tolist() == [[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]]
    assert touched.tolist() == [[False, False, True, True, False], [False, False, False, True, False]]
    assert target.dtype == labels.dtype
    assert labels[0, 2] == 1, "the argument is left alone"


def test_invert_of_two_at_once() -> None:
    labels = np.array([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], np.int8)
    target, touched = invert(labels, NAMES, ("Bald", "Male"))
    assert target.tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 1]]
    assert touched.tolist() == [[True, True, False, False, True]] * 2
    # What is asked for by name wins over a conflict.
    assert invert(labels[:1], NAMES, ("Bald", "Bangs"))[0].tolist() == [[1, 0, 0, 0, 1]]


def test_combinations_are_fixed_by_the_seed_and_free_of_conflicts() -> None:
    chosen = choose_combinations(ATTGAN, count=10)
    assert chosen == choose_combinations(ATTGAN, count=10)
    assert chosen != choose_combinations(ATTGAN, count=10, seed=1)
    assert [len(c) for c in chosen] == [2] * 10 + [3] * 10
    assert len(set(chosen)) == 20
    hair = {"Black_Hair", "Blond_Hair", "Brown_Hair"}
    everything = choose_combinations(ATTGAN, count=1000)
    assert all(len(hair & set(c)) <= 1 and not {"Bald", "Bangs"} <= set(c) for c in everything)
    assert len([c for c in everything if len(c) == 2]) == 13 * 12 // 2 - 4
    assert choose_combinations(("Bald", "Bangs")) == ()


def test_copying_editor_returns_its_very_input() -> None:
    images, labels = jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 1))
    editor = CopyingEditor(["Male"])
    assert editor.edit(images, labels, 1 - labels, 2.0) is images
    assert editor.reconstruct(images, labels) is images


def test_compiled_method_traces_once_for_every_set_of_variables_and_strength() -> None:
    traces = []

    def edit(variables: jax.Array, images: jax.Array, request: EditRequest) -> jax.Array:
        traces.append("edit")
        assert request.source is not None
        change = jnp.mean(request.target - request.source, axis=1)[:, None, None, None]
        return images + variables * request.strength * change

    method = SimpleNamespace(
        attributes=("Male", "Young"),
        edit=edit,
        reconstruct=lambda variables, images, labels: images * variables,
        classify=lambda variables, images: jnp.full((len(images), 2), variables),
    )
    one = Compiled(method, jnp.float32(1))
    other = one.at(jnp.float32(3))
    images, source, target = jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 2)), jnp.ones((2, 2))
    np.testing.assert_allclose(one.edit(images, source, target, 1.0), 2)
    np.testing.assert_allclose(other.edit(images, source, target, 2.0), 7)
    assert traces == ["edit"]
    np.testing.assert_allclose(other.reconstruct(images, source), 3)
    assert other.classify(images).tolist() == [[3, 3], [3, 3]]
    assert one.attributes == ("Male", "Young")


def test_a_batch_is_split_over_the_devices_and_no_number_feels_it(faces, monkeypatch):
    """A host's CPU devices share its cores and are left alone; here they stand for others."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    source = open_source(str(faces), size=32, crop="none")
    model, judge = (runs.fresh(config(faces)) for config in (runs.attgan, runs.classifier))
    measured, held = [], []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        editor, judging = (Compiled(each.method, each.variables) for each in (model, judge))
        held.append({len(leaf.devices()) for leaf in jax.tree.leaves(editor.variables) if isinstance(leaf, jax.Array)})
        measured.append(
            evaluate_editors(
                {"model": editor}, judging, source, model.attributes, np.arange(24), batch_size=8, combinations=(),
                region_faces=0,
            )
        )  # fmt: skip
    assert held[1] == {8}
    committed = jax.device_put(judge.variables, jax.devices()[0])  # as checkpoints come
    assert jnp.all(jax.jit(judge.method.classify)(everywhere(committed), floats(source.images(np.arange(8)))) >= 0)
    assert held[0] <= {1}
    assert len(floats(pixels).devices()) == 8
    assert len(floats(pixels[:9]).devices()) == 1, "nine do not go into eight"
    np.testing.assert_allclose(floats(pixels), pixels / 127.5 - 1, atol=1e-6)
    one, eight = (jax.tree_util.tree_flatten_with_path(found)[0] for found in measured)
    for (path, a), (_, b) in zip(one, eight, strict=True):
        assert b == (pytest.approx(a, rel=1e-4, abs=1e-6) if isinstance(a, float) else a), path
