"""Strict configuration: every fault names the key, the value and what is allowed."""

import dataclasses

import pytest

from lib.training import config
from tests.conftest import call
from train_gtsrb import Config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", -3, "greater than 0"),
        ("epochs", 2.5, "integer"),
        ("epochs", True, "integer"),
        ("epochs", "3", "valid integer"),
        ("epochs", "1e2", "write 100 for the number"),
        ("sgd_lr", "1e-3", "write 0.001 for the number"),
        ("sgd_lr", "125e-6", "write 0.000125 for"),
        ("sgd_lr", "1e-5", "write 1.0e-05 for"),
        ("sgd_lr", "inf", "valid number"),
        ("sgd_lr", float("nan"), "finite"),
        ("sgd_lr", float("inf"), "finite"),
        ("sgd_lr", 0, "greater than 0"),
        ("sgd_momentum", 1.0, "less than 1"),
        ("val_fraction", 1.0, "less than 1"),
        ("batch_norm", 1, "boolean"),
        ("batch_norm", "True", "boolean"),
        ("optimizer", "adamw", "'adam' or 'sgd'"),
        ("activation", None, "'elu', 'relu' or 'gelu'"),
        ("optimiser", "sgd", "did you mean 'optimizer'"),
        ("zzz", 1, "accepted: seed"),
    ],
)
def test_a_fault_names_key_value_and_what_is_allowed(key: str, value: object, words: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(Config, {key: value})
    assert f"{key} = {value!r}" in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("key", ["optimizer", "epochs", "batch_norm"])
def test_a_number_that_the_key_does_not_accept_is_not_advised(key: str) -> None:
    for value in ("-1.5e3", "inf", "nan"):
        with pytest.raises(config.ConfigError) as error:
            config.parse(Config, {key: value})
        assert "in YAML write" not in str(error.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(config.ConfigError, match=r"(?s)epochs = 0.*optimizer = 'x'"):
        config.parse(Config, {"epochs": 0, "optimizer": "x"})


def test_defaults_and_a_whole_number_for_a_float() -> None:
    cfg = config.parse(Config, {"adam_eps": 1})
    assert cfg == dataclasses.replace(Config(), adam_eps=1.0)
    assert isinstance(cfg.adam_eps, float)


def test_flags_are_the_fields() -> None:
    argv = ["--epochs", "3", "--batch-norm", "True", "--optimizer", "sgd", "--sgd-lr", "1e-3"]
    assert config.from_flags(Config, argv) == Config(
        epochs=3, batch_norm=True, optimizer="sgd", sgd_lr=0.001
    )
    with pytest.raises(SystemExit, match="epochs = 0"):
        config.from_flags(Config, ["--epochs", "0"])


def test_help_has_every_field_with_its_comment() -> None:
    text = call("train_gtsrb.py", "--help").stdout
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "share of tracks for validation" in text


def test_what_a_sweep_overrides_is_said() -> None:
    flags, final = Config(epochs=400, seed=1), Config(epochs=5, seed=1, optimizer="sgd")
    said = config.overridden(flags, final, ["--epochs", "400", "--seed=1", "--batch-norm", "False"])
    assert said == ["epochs: the sweep's 5 replaces the flag's 400"]
