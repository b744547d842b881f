"""Three projects that know nothing of this one, as their users write them: from sweep to report."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import call

pytestmark = pytest.mark.slow  # 60, 14 and 14 runs of the real client

# In the manner of single-file reinforcement learning: argparse, returns over simulator steps.
RL = """\
import argparse
import random

import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--env_id", default="CartPole")
parser.add_argument("--algo", default="dqn")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--total_timesteps", type=int, default=3000)
args = parser.parse_args()
run = wandb.init(config=vars(args))
rng = random.Random(f"{args.env_id} {args.algo} {args.seed}")
scale = {"CartPole": 100, "Pong": 20, "Hopper": 1000, "Ant": 3000, "Walker": 2000}[args.env_id]
better = 0.3 if args.algo == "ppo" else 0.0
for step in range(1000, args.total_timesteps + 1, 1000):
    learned = step / args.total_timesteps
    value = scale * (learned * (1 + better) + rng.gauss(0, 0.03))
    row = {"global_step": step, "charts/episodic_return": value}
    run.log(row | {"losses/td_loss": 1 - learned + value})
run.finish()
"""
RL_SWEEP = """\
program: dqn.py
method: grid
metric: {name: charts/episodic_return, goal: maximize}
parameters:
  env_id: {values: [CartPole, Pong, Hopper, Ant, Walker]}
  algo: {values: [dqn, ppo]}
  seed: {values: [1, 2, 3, 4, 5, 6]}
"""
RL_STUDY = """\
question: Does ppo reach higher returns than dqn?
metric: {key: charts/episodic_return, label: episodic return, goal: maximize, decimals: 2}
block: [env_id]
block_scale: relative
factors: {algo: [dqn, ppo]}
"""

# In the manner of a Trainer: fractions of epochs, eval/f1, a run_name in each configuration.
HUGGING_FACE = """\
import os
import random
import sys

import wandb

run = wandb.init()
values = dict(run.config)
name = f"{values['model_name_or_path']}-{values['seed']}"
run.config.update({"run_name": name, "output_dir": f"out/{name}", "num_train_epochs": 3.0})
rng = random.Random(name)
f1 = 0.80 + 0.04 * ("large" in name) + rng.gauss(0, 0.005)
for step in range(50, 601, 50):
    epoch = step / 200
    at = {"train/epoch": epoch, "train/global_step": step}
    run.log({"train/loss": 1 / step + rng.random() / 99, **at})
    if step % 200 == 0:
        run.log({"eval/f1": f1 - 0.1 / epoch, "eval/loss": 1 - f1, **at})
run.log({"train/epoch": 3.0, "train/global_step": 600, "train_runtime": 12.5})
run.finish()
"""
HUGGING_FACE_SWEEP = """\
program: run_glue.py
method: grid
metric: {name: eval/f1, goal: maximize}
parameters:
  model_name_or_path: {values: [tiny-base, tiny-large]}
  seed: {values: [0, 1, 2, 3, 4, 5, 6]}
"""
HUGGING_FACE_STUDY = """\
metric: eval/f1
smallest_effect: 0.01
free: [run_name, output_dir]
labels: {model_name_or_path=tiny-base: the base model, model_name_or_path=tiny-large: the large one}
"""

# In the manner of LightningCLI: a nested configuration, epochs from 0, accuracy in percent.
LIGHTNING = """\
import random

import wandb

run = wandb.init()
c = run.config
rng = random.Random(f"{c['model']['act']} {c['seed_everything']}")
run.config.update({"trainer": {"max_epochs": 3, "accelerator": "cpu"}})
acc = 91 + 1.5 * (c["model"]["act"] == "gelu") + rng.gauss(0, 0.3)
for epoch in range(3):
    at = {"epoch": epoch, "trainer/global_step": 10 * epoch + 9}
    run.log({"train/loss": 1 / (epoch + 1) + rng.random() / 50, **at})
    run.log({"val/acc": acc - 5 / (epoch + 1), **at})
run.log({"test/acc": acc, "epoch": 3, "trainer/global_step": 30})
run.finish()
"""
LIGHTNING_SWEEP = """\
program: main.py
method: grid
command: ["${env}", "${interpreter}", "${program}"]
metric: {name: val/acc, goal: maximize}
parameters:
  seed_everything: {values: [0, 1, 2, 3, 4, 5, 6]}
  model:
    parameters:
      act: {values: [relu, gelu]}
      width: {value: 64}
"""
LIGHTNING_STUDY = """\
metric: {key: test/acc, unit: "%", bounds: [0, 100], decimals: 2}
seed: seed_everything
smallest_effect: 0.5
"""


def from_sweep_to_report(
    folder: Path, env: dict[str, str], program: str, script: str, sweep: str, study: str
) -> tuple[dict[str, Any], str]:
    """Run the agent and the report as their users would; return the results and the page."""
    (folder / program).write_text(script)
    (folder / "sweep.yaml").write_text(sweep.replace(program, str(folder / program)))
    (folder / "study.yaml").write_text(study)
    runs, out = folder / "runs", folder / "out"
    done = call("-m", "lib.agent", folder / "sweep.yaml", "--workers", "4", "--out", runs, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    words = ["--sweep", folder / "sweep.yaml", "--study", folder / "study.yaml", "--out", out]
    done = call("-m", "analysis.report", runs, *words, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "results.json").read_text()), (out / "report.md").read_text()


def test_reinforcement_learning(offline: dict[str, str], tmp_path: Path) -> None:
    results, page = from_sweep_to_report(tmp_path, offline, "dqn.py", RL, RL_SWEEP, RL_STUDY)
    (row,) = results["contrasts"]
    assert (row["grade"], row["n"]) == ("preliminary_support", 6)
    assert 20 < 100 * row["difference"] < 40  # 30 % of the baseline, over five environments
    assert all(name in page for name in ("CartPole", "Pong", "Hopper", "Ant", "Walker"))
    assert "a budget of 3,000 global steps" in page


def test_hugging_face(offline: dict[str, str], tmp_path: Path) -> None:
    results, page = from_sweep_to_report(
        tmp_path, offline, "run_glue.py", HUGGING_FACE, HUGGING_FACE_SWEEP, HUGGING_FACE_STUDY
    )
    (row,) = results["contrasts"]
    assert row["grade"] == "meaningful"
    assert "The large one gives a higher (better) evaluation F1 score than the base model" in page
    assert results["allowed"] == {}
    assert "last evaluation" in page


def test_lightning(offline: dict[str, str], tmp_path: Path) -> None:
    results, page = from_sweep_to_report(
        tmp_path, offline, "main.py", LIGHTNING, LIGHTNING_SWEEP, LIGHTNING_STUDY
    )
    (row,) = results["contrasts"]
    assert row["grade"] == "meaningful"
    assert "percentage points" in page
    assert "a budget of 3 epochs" in page  # the test's own row at the end is none
