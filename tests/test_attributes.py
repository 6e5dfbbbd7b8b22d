import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import attributes
from faceattr_jax.errors import UserError


def test_the_lists_are_celebas_and_attgans():
    assert len(set(attributes.CELEBA)) == len(attributes.CELEBA) == 40
    assert list(attributes.CELEBA) == sorted(attributes.CELEBA)  # CelebA's order is alphabetical
    assert len(attributes.ATTGAN) == 13
    assert set(attributes.ATTGAN) < set(attributes.CELEBA)


def test_celeba_order_is_that_of_the_real_list(celeba_mini):
    header = (celeba_mini / "list_attr_celeba.txt").read_text().splitlines()[1]
    assert tuple(header.split()) == attributes.CELEBA


def test_conflicts_name_known_attributes():
    for name, others in attributes.CONFLICTS.items():
        assert {name, *others} <= set(attributes.CELEBA)
        assert name not in others


def test_parse_reads_edits_in_order():
    assert attributes.parse(" Smiling=0, Eyeglasses = 1", attributes.CELEBA) == {
        "Smiling": 0,
        "Eyeglasses": 1,
    }
    assert attributes.parse("Male=1,Male=1", attributes.CELEBA) == {"Male": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Eyeglases=1", r"unknown attribute 'Eyeglases' \(did you mean 'Eyeglasses'\?\)"),
        ("eyeglasses=1", r"did you mean 'Eyeglasses'"),
        ("Young=2", "'Young=2'"),
        ("Young", "'Young' in"),
        ("", "NAME=0 or NAME=1"),
        ("Young=1,", "NAME=0 or NAME=1"),
        ("Young=1,Young=0", "Young to both 0 and 1"),
        ("Bald=1,Bangs=1", "Bald=1 and Bangs=1"),
        ("Bangs=1,Bald=1", "exclude each other"),
        ("Black_Hair=1,Young=1,Blond_Hair=1", "Black_Hair=1 and Blond_Hair=1"),
        ("Straight_Hair=1,Wavy_Hair=1", "exclude each other"),
    ],
)
def test_parse_refuses(text, says):
    with pytest.raises(UserError, match=says):
        attributes.parse(text, attributes.CELEBA)


def test_zero_requests_do_not_conflict():
    assert attributes.parse("Bald=0,Bangs=0", attributes.CELEBA) == {"Bald": 0, "Bangs": 0}


NAMES = ("Bangs", "Bald", "Black_Hair", "Blond_Hair", "Male")


@pytest.mark.parametrize(
    ("edits", "source", "target"),
    [
        ({}, [1, 0, 1, 0, 1], [1, 0, 1, 0, 1]),
        ({"Bald": 1}, [1, 0, 1, 0, 1], [0, 1, 1, 0, 1]),
        ({"Bald": 0}, [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]),
        ({"Bangs": 1}, [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]),
        ({"Blond_Hair": 1, "Male": 0}, [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]),
        ({"Blond_Hair": 1, "Black_Hair": 1}, [0, 0, 0, 0, 1], [0, 0, 1, 1, 1]),  # both asked for: both given
        ({"Bald": 1, "Bangs": 0}, [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_edited(edits, source, target, dtype):
    source = np.array([source] * 2, dtype)
    result = attributes.edited(source, edits, NAMES)
    assert result.dtype == source.dtype
    np.testing.assert_array_equal(result, np.array([target] * 2, dtype))
    traced = jax.jit(lambda labels: attributes.edited(labels, edits, NAMES))(jnp.asarray(source))
    np.testing.assert_array_equal(traced, result)
    assert traced.dtype == source.dtype


def test_edited_works_on_one_row_and_leaves_its_input_alone():
    source = np.zeros(5, np.float32)
    assert attributes.edited(source, {"Male": 1}, NAMES).tolist() == [0, 0, 0, 0, 1]
    assert not source.any()


def test_edited_refuses_unknown_names_and_values():
    with pytest.raises(UserError, match="did you mean 'Bangs'"):
        attributes.edited(np.zeros(5), {"Bang": 1}, NAMES)
    with pytest.raises(UserError, match="Bald=2"):
        attributes.edited(np.zeros(5), {"Bald": 2}, NAMES)
    with pytest.raises(ValueError, match="5 attributes"):
        attributes.edited(np.zeros(4), {"Bald": 1}, NAMES)
