"""Sweep YAMLs as people write them: what the agent makes of each, and what the analysis."""

from pathlib import Path
from typing import Any

import pytest

from lib import agent
from lib.spec.errors import UserError
from lib.spec.load import load_study
from lib.tracking import processes

TOP = "program: toy.py\nmethod: grid\n"
METRIC = "metric: {name: val/error, goal: minimize}\n"
SIX = "{values: [0, 1, 2, 3, 4, 5]}"
TWO = f"parameters:\n  seed: {SIX}\n  algo: {{values: [a, b]}}\n"
AB = {"algo": ["a", "b"]}

# name -> YAML; the agent: the number of runs and the first one's values, or words of its refusal;
# the analysis: factors and the number of seeds, or words of its refusal.
Outcome = tuple[Any, Any] | str
CASES: dict[str, tuple[str, Outcome, Outcome]] = {
    "booleans without a seed": (
        TOP + "parameters:\n  opt: {values: [sgd, adam]}\n  gate: {values: [false, true]}\n",
        (4, {"opt": "sgd", "gate": False}),
        "Tests need replicates. Add `seed: {values:",
    ),
    "nested": (
        TOP + METRIC + f"parameters:\n  seed: {SIX}\n  optimizer:\n    parameters:\n"
        "      learning_rate: {values: [0.01, 0.001]}\n      momentum: {value: 0.9}\n",
        (12, {"seed": 0, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}),
        ({"optimizer.learning_rate": [0.01, 0.001]}, 6),
    ),
    "lists as levels, dotted names": (
        TOP + "metric: {name: val_dice, goal: maximize}\nparameters:\n  seed: {values: [1, 2]}\n"
        "  model.decoder: {values: [[64, 32], [128, 64]]}\n  train.precision: {values: [16, 32]}\n",
        (8, {"seed": 1, "model.decoder": [64, 32], "train.precision": 16}),
        ({"model.decoder": [(64, 32), (128, 64)], "train.precision": [16, 32]}, 2),
    ),
    "null as a level": (
        TOP + METRIC + f"parameters:\n  seed: {SIX}\n  noise: {{values: [null, 0.05]}}\n",
        (12, {"seed": 0, "noise": None}),
        ({"noise": [None, 0.05]}, 6),
    ),
    "a range of seeds": (
        TOP + "project: p\nmetric: {name: test_loss, goal: minimize}\n"
        "parameters:\n  seed: {min: 1, max: 30}\n",
        (30, {"seed": 1}),
        ({}, 30),
    ),
    "random_seed": (
        TOP + METRIC + TWO.replace("seed", "random_seed"),
        (12, {"random_seed": 0, "algo": "a"}),
        "Candidates: random_seed (write `seed: random_seed`)",
    ),
    "train.seed": (
        TOP + METRIC + TWO.replace("seed", "train.seed"),
        (12, {"train.seed": 0, "algo": "a"}),
        "Candidates: train.seed (write `seed: train.seed`)",
    ),
    "SEED": (
        TOP + METRIC + TWO.replace("seed", "SEED"),
        (12, {"SEED": 0, "algo": "a"}),
        "Candidates: SEED (write `seed: SEED`)",
    ),
    "random search": (
        "program: toy.py\nmethod: random\nmetric: {goal: maximize, name: val_accuracy}\n"
        "parameters:\n  batch: {distribution: int_uniform, min: 32, max: 128}\n"
        "  lr: {distribution: log_normal, mu: 0.1, sigma: 1}\n"
        "  epochs: {distribution: constant, value: 200}\n"
        "  optimizer: {distribution: categorical, values: [Adam, Adamax]}\n",
        "the local agent needs `method: grid`, got 'random'",
        '`factors: {optimizer: ["Adam", "Adamax"]}`, `seed: {repeat: true}` and `free: ["batch", '
        '"lr"]`',
    ),
    "bayesian search": (
        "program: toy.py\nmethod: bayes\nmetric: {name: val_loss, goal: minimize}\n"
        "parameters:\n  lr: {min: 1.0e-5, max: 0.1}\n  experiment: {values: [e1, e2]}\n",
        "got 'bayes'",
        "its settings depend on the scores of earlier runs",
    ),
    "constant and categorical": (
        TOP + "metric: {goal: maximize, name: val/accuracy}\nparameters:\n"
        "  seed: {distribution: categorical, values: [0, 1, 2]}\n"
        "  epochs: {distribution: constant, value: 2}\n  algo: {values: [a, b]}\n",
        (6, {"seed": 0, "epochs": 2, "algo": "a"}),
        (AB, 3),
    ),
    "goal: maximum": (
        TOP + "metric: {name: test/accuracy, goal: maximum, target: 0.6}\n" + TWO,
        "unknown metric.goal 'maximum'; accepted: minimize, maximize",
        "unknown metric.goal 'maximum'",
    ),
    "no metric": (TOP + TWO, (12, {"seed": 0, "algo": "a"}), "a name and a goal, got none"),
    "no goal": (
        TOP + "metric: {name: val/error}\n" + TWO,
        (12, {"seed": 0, "algo": "a"}),
        "a name and a goal, got {'name': 'val/error'}",
    ),
    "a metric as text": (
        TOP + "metric: val/error\n" + TWO,
        "metric must be a mapping such as {name: val/error, goal: minimize}, got 'val/error'",
        "metric must be a mapping",
    ),
    "Hydra's _target_": (
        TOP + METRIC + TWO.replace("algo", "model._target_"),
        (12, {"seed": 0, "model._target_": "a"}),
        ({"model._target_": ["a", "b"]}, 6),
    ),
    "a command as text": (
        TOP + METRIC + "command: python toy.py\n" + TWO,
        "command must be a list of words, got 'python toy.py'. Example: command: [\"",
        (AB, 6),
    ),
    "an empty command": (
        TOP + METRIC + "command:\n" + TWO,
        (12, {"seed": 0, "algo": "a"}),
        (AB, 6),
    ),
    "no program": (
        "method: grid\n" + METRIC + TWO,
        "`program:` is missing; set it to the training script",
        (AB, 6),
    ),
    "an empty program": (
        "program:\nmethod: grid\n" + METRIC + TWO,
        "`program:` is missing; set it to the training script",
        (AB, 6),
    ),
    "a command with flags": (
        TOP + METRIC + 'command: ["${env}", python3, "${program}", "--dataset", "/d", "--T_max", '
        "5]\nparameters:\n  seed: {values: [32, 64]}\n  patience: {values: [10]}\n",
        (2, {"seed": 32, "patience": 10}),
        ({}, 2),
    ),
    "two documents": (
        "---\n" + TOP + METRIC + TWO + "...\n---\nother: document\n",
        "has 2 YAML documents; write one per file",
        "has 2 YAML documents",
    ),
    "1e-3": (
        TOP + METRIC + f"parameters:\n  seed: {SIX}\n  lr: {{values: [1e-3, 0.001]}}\n",
        "1e-3 is text in YAML 1.1, not a number. Write 0.001 for the number or '1e-3'",
        ({"lr": ["1e-3", 0.001]}, 6),  # somebody's runs, made with W&B's agent
    ),
    "one seed three times": (
        TOP + METRIC + TWO.replace("0, 1, 2, 3, 4, 5", "1, 1, 1"),
        "seed lists a level twice: [1, 1, 1]. Remove the duplicate.",
        "seed lists a level twice",
    ),
    "a parameter named on": (
        TOP + METRIC + TWO.replace("algo", "on"),
        "the key True is not text (on, off, yes and no are booleans in YAML 1.1). Put it in quotes",
        "the key True is not text",
    ),
    "value: with a list": (
        TOP + METRIC + TWO.replace("{values: [0, 1", "{value: [0, 1"),
        'Did you mean "values: [0, 1, 2, 3, 4, 5]"?',
        "Did you mean",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_as_people_write_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, by_agent, by_analysis = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text("import wandb\n")
    path = Path("s.yaml")
    path.write_text(text)
    if isinstance(by_agent, str):
        with pytest.raises(UserError) as error:
            agent.load_sweep(path)
        assert by_agent in str(error.value)
        assert str(error.value).startswith("s.yaml")
    else:
        sweep = agent.load_sweep(path)
        cells = sweep.grid()
        assert (len(cells), sweep.nested(cells[0])) == by_agent
        assert len({processes.run_id(sweep, cell) for cell in cells}) == len(cells)
    if isinstance(by_analysis, str):
        with pytest.raises(UserError) as error:
            load_study("s", sweep=path)
        assert by_analysis in str(error.value)
        assert str(error.value).startswith("s.yaml")
    else:
        study = load_study("s", sweep=path)
        assert (study.factors, len(study.seeds)) == by_analysis


@pytest.mark.parametrize(
    ("name", "goal", "key"),
    [
        ("val_acc", "maximize", "val_acc"),
        ("Test Accuracy", "maximize", "Test Accuracy"),
        ("eval/return_mean", "maximize", "eval/return_mean"),
        ("val/perplexity", "minimize", "test/perplexity"),
        ("val_loss", "minimize", "val_loss"),
        ("my.odd-metric", "minimize", "my.odd-metric"),
    ],
)
def test_a_metric_of_any_name(tmp_path: Path, name: str, goal: str, key: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(TOP + f'metric: {{name: "{name}", goal: {goal}}}\n' + TWO)
    metric = load_study("s", sweep=path).metric
    assert (metric.key, metric.goal) == (key, goal)


@pytest.mark.parametrize("seed", ["random_seed", "train.seed", "SEED"])
def test_a_replicate_of_any_name(tmp_path: Path, seed: str) -> None:
    path, declared = tmp_path / "s.yaml", tmp_path / "d.yaml"
    path.write_text(TOP + METRIC + TWO.replace("seed", seed))
    declared.write_text(f"metric: test/error\nseed: {seed}\n")
    study = load_study("s", sweep=path, declaration=declared)
    assert (study.factors, len(study.seeds)) == (AB, 6)


def test_random_search_can_be_compared_in_what_it_lists(tmp_path: Path) -> None:
    path, declared = tmp_path / "s.yaml", tmp_path / "d.yaml"
    path.write_text(CASES["random search"][0])
    text = "metric: val_accuracy\nfactors: {optimizer: [Adam, Adamax]}\nseed: {repeat: true}\n"
    declared.write_text(text + "free: [batch, lr]\n")
    study = load_study("s", sweep=path, declaration=declared)
    assert (study.factors, study.fixed) == ({"optimizer": ["Adam", "Adamax"]}, {"epochs": 200})
