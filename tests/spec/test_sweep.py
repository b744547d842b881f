"""Sweeps: every form that W&B has, W&B's order, and clear words for the rest."""

import itertools
from pathlib import Path

import pytest

from lib.spec.declaration import StudyError
from lib.spec.defaults import config_defaults
from lib.spec.sweep import SweepError, read_sweep, same_value
from tests import factories
from tests.conftest import ROOT

GRID = "method: grid\nparameters: "


def read(tmp_path: Path, text: str) -> dict:
    (tmp_path / "s.yaml").write_text(text)
    return read_sweep(tmp_path / "s.yaml").parameters


def test_the_grids_order_is_wandbs() -> None:
    parameters = {"b": {"values": [1, 2]}, "a": {"values": ["x", "y"]}, "c": {"value": 0}}
    sweep = read_sweep({"method": "grid", "parameters": parameters})
    assert [(cell["a"], cell["b"]) for cell in sweep.grid()] == [
        ("x", 1),
        ("x", 2),
        ("y", 1),
        ("y", 2),
    ]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("{a: {value: 1}}", {"a": [1]}),
        ("{a: {values: [null, 0.5, true, x]}}", {"a": [None, 0.5, True, "x"]}),
        ("{a: {values: [[64, 32], [128]]}}", {"a": [[64, 32], [128]]}),
        ("{a: {min: 1, max: 3}}", {"a": [1, 2, 3]}),
        ("{a: {distribution: int_uniform, min: 1, max: 3}}", {"a": [1, 2, 3]}),
        ("{o: {parameters: {lr: {values: [1, 2]}, m: {value: 0}}}}", {"o.lr": [1, 2], "o.m": [0]}),
        ("{a: {distribution: constant, value: 2}}", {"a": [2]}),
        ("{a: {distribution: categorical, values: [u, v]}}", {"a": ["u", "v"]}),
        ("{model._target_: {values: [a.B, a.C]}}", {"model._target_": ["a.B", "a.C"]}),
        ("{a: {values: ['007', 7, '7']}}", {"a": ["007", 7, "7"]}),
        ("{a: {values: ['1e-3', 0.001]}}", {"a": ["1e-3", 0.001]}),
    ],
)
def test_forms_that_wandb_has(tmp_path: Path, parameters: str, expected: dict) -> None:
    assert read(tmp_path, GRID + parameters) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: grid", "`parameters:` is missing"),
        ("method: walk\nparameters: {a: {value: 1}}", "unknown method 'walk'"),
        (GRID + "{a: 5}", "a must be a mapping with `value:` or `values:`, got 5"),
        (GRID + "{a: {values: []}}", "`values:` must be a list of levels, got []"),
        (GRID + "{a: {values: adam}}", "`values:` must be a list of levels, got 'adam'"),
        (GRID + "{a: {value: [0, 1]}}", 'Did you mean "values: [0, 1]"?'),
        (GRID + "{a: {min: 0.1, max: 1.0}}", "min and max must be integers"),
        (
            GRID + "{a: {distribution: q_uniform, min: 0, max: 10, q: 5}}",
            "a: a grid cannot have `distribution: q_uniform` with `q:`; list the levels",
        ),
        (GRID + "{a: {distribution: uniform, min: 0, max: 2}}", "`distribution: uniform`; list"),
        (GRID + "{a: {min: 1}}", "a needs `value:`, `values:`, or integer"),
        (GRID + "{a: {values: [1, 1.0]}}", "a lists a level twice"),
        (GRID + "{a: {values: [{b: 1}]}}", "a level cannot be a mapping, got {'b': 1}"),
        (GRID + "{a: {value: 2026-01-01}}", "levels must be strings, numbers"),
        (GRID + "{m: {parameters: }}", "m.parameters must be a mapping of names to parameters"),
        (GRID + "{m: {parameters: [1]}}", "m.parameters must be a mapping"),
        (GRID + "{m: {parameters: {}}}", "m.parameters must be a mapping"),
        (GRID + "{a: {value: 1}, a: {value: 2}}", "duplicate key 'a'"),
        (
            GRID
            + "&a {x: {value: 1}}\nb: &b [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{n}: &{n} [{', '.join(['*' + p] * 10)}]\n"
                for p, n in itertools.pairwise("bcdefg")
            ),
            "its aliases expand to more than 100,000 values",
        ),
        (GRID + "{a: {value: 1}}\nmetric: {name: x, goal: maximum}", "metric.goal 'maximum'"),
        (GRID + "{a: {value: 1}}\nmetric: accuracy", "metric must be a mapping"),
        (GRID + "{a: {value: 1}}\nprogram: [x]", "program must be a string, got ['x']"),
        (GRID + "{on: {value: 1}}", "the key True is not text (on, off, yes and no"),
        (GRID + "{a: {value: 1}}\n---\na: 1", "has 2 YAML documents"),
        ("- 1", "is not a mapping"),
        ("method: [", "cannot read"),
    ],
)
def test_what_is_refused_and_how(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SweepError) as error:
        read(tmp_path, text)
    assert words in str(error.value)
    assert str(tmp_path / "s.yaml") in str(error.value)


def test_a_number_that_yaml_reads_as_text(tmp_path: Path) -> None:
    """Runs that were made with it can be analyzed; before runs it is refused."""
    path = tmp_path / "s.yaml"
    path.write_text(GRID + "{a: {values: [1e-3, 0.001, '1e-4']}}")
    sweep = read_sweep(path)
    assert sweep.parameters == {"a": ["1e-3", 0.001, "1e-4"]}
    with pytest.raises(SweepError) as error:
        sweep.require_clear()
    message = "1e-3 is text in YAML 1.1, not a number. Write 0.001 for the number or '1e-3' for"
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: {values: [1, 2, inf]}}", "Write .inf for the number"),
        ("{a: {values: [1, nan]}}", "Write .nan for the number"),
        ("{a: {values: [[1e-3, 1]]}}", "Write 0.001 for the number"),
        ("{a: {value: 1}}\nname: 1e5\ncommand: [python, t.py, --eps, 1e-8]", ""),
    ],
)
def test_what_is_clear_and_what_is_not(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(GRID + text)
    sweep = read_sweep(tmp_path / "s.yaml")
    if not message:
        sweep.require_clear()  # text is right in a name or a command
        return
    with pytest.raises(SweepError) as error:
        sweep.require_clear()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (True, True, True),
        ("1", 1, False),
        ("", None, False),
        ([1, 2], (1, 2.0), True),
        (None, None, True),
        (float("nan"), 1.0, False),
    ],
)
def test_values_are_compared_by_kind_and_content(one: object, other: object, same: bool) -> None:
    assert same_value(one, other) is same
    assert same_value(other, one) is same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "method: random\nparameters: {seed: {values: [1]}}",
            "the runs of `method: random` cannot be compared",
        ),
        (
            "early_terminate: {type: hyperband}\n" + GRID + "{seed: {values: [1, 2]}}",
            "`early_terminate` stops runs because of the scores of other runs",
        ),
        (GRID + "{a: {value: 1}}", "Tests need replicates"),
        (GRID + "{random_seed: {values: [1, 2]}}", "Candidates: random_seed (write `seed: random_"),
        (GRID + "{seed: {values: [1, 2]}}", "metric must have a name and a goal, got none"),
    ],
)
def test_studies_that_plan_nothing(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    declared = {} if "metric" in words else {"metric": "test/error"}
    with pytest.raises((StudyError, SweepError)) as error:
        factories.study(tmp_path / "s.yaml", **declared)
    assert words in str(error.value)


def test_a_seed_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(GRID + "{train.seed: {values: [4, 5]}, a: {values: [x, y]}}")
    study = factories.study(tmp_path / "s.yaml", seed="train.seed")
    assert (study.seeds, study.variants) == ([4, 5], [("x",), ("y",)])


def test_defaults_are_read_without_running_the_script(tmp_path: Path) -> None:
    found = config_defaults(ROOT / "train_gtsrb.py")
    assert (found["epochs"], found["adam_eps"], found["optimizer"]) == (400, 0.1, "adam")
    assert config_defaults(tmp_path / "absent.py") == {}
    text = "class Config:\n    a: int = 1\n    b: int = len('x')\n    c: int"
    (tmp_path / "s.py").write_text(text)
    assert config_defaults(tmp_path / "s.py") == {"a": 1}
    (tmp_path / "s.py").write_text("def (")
    assert config_defaults(tmp_path / "s.py") == {}
