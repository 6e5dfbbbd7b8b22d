"""Configs: every one that ships loads and builds; overrides are typed and misspellings named."""

import re

import jax
import pytest
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.training.state import init_state


@pytest.mark.parametrize("name", configs.names())
def test_every_config_builds_and_says_its_command(name):
    config = configs.load(name)
    method = build(config)
    state = jax.eval_shape(lambda: init_state(method, 0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"])) > 1000
    module = configs._module(name)
    assert f"faceattr train --config={name}" in module.__doc__


def variants(name):
    """As a config itself lists them."""
    with pytest.raises(UserError) as refused:
        configs.load(f"{name}:?")
    listed = str(refused.value).partition("the variants are ")[2]
    return [] if listed == "none" else listed.split(", ")


def test_every_variant_builds_and_its_rates_fall_until_the_end():
    """A schedule counts the iterations of the stage in which it stands."""
    specs = [f"{name}:{variant}" for name in configs.names() for variant in variants(name)]
    assert len(specs) > 20
    for spec in specs:
        config = configs.load(spec)
        assert build(config).stages[-1].iterations == config.train.iterations, spec
        kind, *numbers = config.optimizer.schedule or ("constant",)
        if kind == "linear":
            assert numbers[-1] == config.train.iterations, spec


@pytest.mark.parametrize(
    ("spec", "key", "wrong", "message"),
    [
        (
            "attgan_64",
            "sampler",
            "balance",
            "sampler is 'balance' (did you mean 'balanced'?); it can be uniform or balanced",
        ),
        ("slgan_64", "sampler", "even", "sampler is 'even'; it can be uniform or balanced"),
        ("attgan_64", "targets", "invert", "targets is 'invert'"),
        ("attgan_64", "b_distribution", "unifrom", "b_distribution is 'unifrom'"),
        ("attribute_inverse_128", "sampler", "any", "sampler is 'any'"),
        ("attribute_inverse_128", "loss.adversarial", "wgan", "loss.adversarial is 'wgan'"),
        ("attribute_inverse_128", "loss.feature_matching_per", "layer", "it can be element or pixel"),
        ("attribute_inverse_128", "model.skips", "ful", "it can be filtered or full"),
        ("elegant_128", "loss.distance", "l3", "it can be l1 or l2"),
        ("elegant_128", "model.decoder_activation", "elu", "it can be leaky_relu or relu"),
        ("diat_128", "loss.compared", "G", "it can be T or F"),
        ("diat_128", "loss.perceptual_layers", "((0, 1.0),)", "names 0; D's convolutions are 1 to 6"),
    ],
)
def test_choices_that_there_are_not(spec, key, wrong, message):
    with pytest.raises(UserError, match=re.escape(message)):
        _ = build(configs.load(spec, {key: wrong})).stages


def test_json_round_trip_keeps_tuples():
    config = configs.load("attgan_128:released")
    again = configs.from_json(configs.to_json(config))
    assert again == config
    assert again.model.encoder[0] == (1, 4, 2)
    assert configs.differences(config, again) == []
    assert configs.differences(config, configs.load("attgan_128")) == [
        "model.code", "model.fc_norm", "model.injections", "model.norm", "model.skips", "optimizer.schedule",
    ]  # fmt: skip


def test_a_config_of_an_older_version_differs_by_what_is_no_default():
    config = configs.load("attgan_128")
    old = ConfigDict(config.to_dict())
    del old.dtype, old.data.shards, old.data.resident
    del old.loss.trace_classification, old.model.instance_noise  # what a method gains is off unless it is asked for
    assert configs.differences(old, config) == configs.differences(config, old) == []
    assert configs.differences(old, configs.load("attgan_128", {"model.instance_noise": "0.1"})) == [
        "model.instance_noise"
    ]
    del old.loss.gradient_penalty  # not 0
    assert configs.differences(old, config) == ["loss.gradient_penalty"]
    old.loss.gradient_penalty = config.loss.gradient_penalty
    assert configs.differences(old, configs.load("attgan_128", {"dtype": "bfloat16", "data.shards": "8"})) == [
        "data.shards", "dtype",
    ]  # fmt: skip


def test_overrides_take_the_type_of_the_key():
    overrides = {
        "model.width": "8",
        "loss.reconstruction": "10",
        "flip": "true",
        "data.path": "7",
        "attributes": "Bald,Bangs",
        "optimizer.schedule": "('step', 10, 0.5)",
    }
    config = configs.load("attgan_64", overrides)
    assert config.model.width == 8
    assert config.loss.reconstruction == 10.0
    assert isinstance(config.loss.reconstruction, float)
    assert config.flip is True
    assert config.data.path == "7"
    assert config.attributes == ("Bald", "Bangs")
    assert config.optimizer.schedule == ("step", 10, 0.5)


@pytest.mark.parametrize(
    ("spec", "overrides", "message"),
    [
        ("attgan_12", {}, r"no such config \(did you mean 'attgan_128'\?\); there are attgan_128"),
        ("absent.py", {}, r"--config=absent.py: there is no such file"),
        ("attgan_64:relesed", {}, r"no variant 'relesed' \(did you mean 'released'\?\)"),
        ("classifier_128:x", {}, "the variants are none"),
        ("attgan_64", {"model.widht": "8"}, r"no key 'model.widht' \(did you mean 'model.width'\?\)"),
        ("attgan_64", {"sed": "8"}, r"no key 'sed' \(did you mean 'seed'\?\)"),
        ("attgan_64", {"seed.x": "8"}, r"no key 'seed.x'"),
        ("attgan_64", {"model": "8"}, "'model' is a group of keys"),
        ("attgan_64", {"model.width": "wide"}, "must be of type int, such as 64"),
        ("attgan_64", {"model.width": "1.5"}, "must be of type int"),
        ("attgan_64", {"flip": "perhaps"}, "must be of type bool"),
    ],
)
def test_mistakes_are_named(spec, overrides, message):
    with pytest.raises(UserError, match=message):
        configs.load(spec, overrides)


def test_a_path_is_a_config_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from faceattr_jax.configs import attgan_64\n"
        "def get_config(variant=''):\n"
        "    config = attgan_64.get_config(variant)\n"
        "    config.batch_size = 7\n"
        "    return config\n"
    )
    config = configs.load(f"{path}:released")
    assert isinstance(config, ConfigDict)
    assert config.batch_size == 7
    assert config.model.skips == 1


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"config.optimizer.schedule is \('cosine',\)"):
        build(configs.load("attgan_64", {"optimizer.schedule": "('cosine',)"}))
