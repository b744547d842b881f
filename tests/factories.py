"""Made-up studies: sweeps, declarations and tables with chosen scores; the one factory of tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis import report as report_module
from analysis.runs import completeness
from analysis.runs.data import StudyData
from analysis.runs.tables import runs_table, write_tables
from lib.spec.load import load_study
from lib.spec.study import Places, Study

Tables = tuple[pd.DataFrame, pd.DataFrame]

SWEEP = """\
program: train_gtsrb.py
method: grid
metric: {{name: val/error, goal: minimize}}
parameters:
  batch_norm: {{values: [false, true]}}
  optimizer: {{values: [adam, sgd]}}
  seed: {{values: {seeds}}}
  epochs: {{value: {epochs}}}
"""


def write_sweep(path: Path, seeds: int = 7, epochs: int = 3) -> Path:
    """Write a 2×2 sweep with ``seeds`` seeds to ``path``."""
    path.write_text(SWEEP.format(seeds=list(range(seeds)), epochs=epochs))
    return path


def grid(
    path: Path, factors: dict[str, list], seeds: int = 7, metric: str = "val/error", **fixed: Any
) -> Path:
    """Write a sweep over ``factors`` and seeds to ``path``; the metric's goal is to minimize."""
    parameters = {name: {"values": levels} for name, levels in factors.items()}
    parameters["seed"] = {"values": list(range(seeds))}
    parameters |= {name: {"value": value} for name, value in fixed.items()}
    sweep = {"method": "grid", "metric": {"name": metric, "goal": "minimize"}}
    sweep |= {"program": "train_gtsrb.py", "parameters": parameters}
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def places(folder: Path) -> Places:
    """Return where a test's study has its parts: sweeps and results in one folder."""
    return Places(folder, folder / "studies", folder)


def study(sweep_path: Path, **declaration: Any) -> Study:
    """Return the study of a sweep; with keys of a declaration it is declared."""
    found = places(sweep_path.parent)
    if declaration:
        path = found.declaration(sweep_path.stem)
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"metric": "test/error"} | declaration, sort_keys=False))
    return load_study(sweep_path.stem, found)


def tables(
    sweep_path: Path, effects: tuple[float, float, float] = (-0.02, -0.01, 0.0), noise: float = 1e-3
) -> Tables:
    """Return runs and history of a finished 2×2 study.

    Error 0.1 plus effects A, B and A×B (added where a factor is at its treatment), a seed effect
    common to the variants and ``noise`` (standard deviation) of each run's own.
    """
    plan = study(sweep_path)
    rng = np.random.default_rng(0)
    seed_effects = rng.normal(0, 0.005, len(plan.seeds))
    runs, history = [], []
    for a, b in plan.variants:
        for seed, seed_effect in zip(plan.seeds, seed_effects, strict=True):
            on = (a is True, b == "sgd", a is True and b == "sgd")
            shift = sum(e for e, is_on in zip(effects, on, strict=True) if is_on)
            error = round(0.1 + shift + seed_effect + rng.normal(0, noise), 6)
            run_id = f"{'bn' if a else 'no'}{b}{seed:02d}"
            epochs = plan.fixed["epochs"]
            config = {"batch_norm": a, "optimizer": b, "seed": seed, "epochs": epochs}
            summary = {
                "test/error": error,
                "test/error_at_best_val": error + 1e-6,
                "diverged": False,
                "data_sha256": "d" * 64,
                "split_sha256": f"split {seed}",
                "order_sha256": f"order {seed}",
                "git_commit": "c" * 40,
            }
            runs.append(run_row(run_id, config, summary))
            for epoch in range(1, epochs + 1):
                value = error + 0.8 * 0.2**epoch
                history.append(
                    {"run_id": run_id, "epoch": epoch, "val/error": value, "seconds": 1.5}
                )
    return runs_table(runs), pd.DataFrame(history)


def run_row(run_id: str, config: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Return a row of runs.csv of a finished run."""
    row = {"run_id": run_id, "state": "finished", "exit_code": 0, "source": f"offline-run-{run_id}"}
    row |= {"url": ""} | {f"config.{key}": value for key, value in config.items()}
    return row | {f"summary.{key}": value for key, value in summary.items()}


def scored(
    sweep_path: Path, scores: dict[tuple, list[float]], key: str = "test/error", **columns: Any
) -> Tables:
    """Return runs of any sweep with these ``scores`` by variant; one epoch each."""
    plan = study(sweep_path)
    rows = []
    for variant in plan.variants:
        for seed, score in zip(plan.seeds, scores[variant], strict=True):
            name = "-".join(str(level) for level in variant).replace(".", "_")
            config = plan.configs[variant] | plan.fixed | {"seed": seed}
            summary = {key: float(score), "diverged": False} | columns
            rows.append(run_row(f"{name}-{seed}", config, summary))
    runs = runs_table(rows)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": plan.fixed.get("epochs", 1)})
    if plan.fixed.get("epochs", 1) == 1:
        history["val/error"] = runs[f"summary.{key}"].astype(float)
    return runs, history


def write_study(folder: Path, runs: pd.DataFrame, history: pd.DataFrame) -> Path:
    """Write the tables where analysis.report expects them; return the folder."""
    write_tables(folder, runs, history)
    return folder


def data(
    plan: Study,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    per_item: pd.DataFrame | None = None,
    folder: Path = Path("nowhere"),
) -> StudyData:
    """Return a study's data from tables in memory."""
    found = completeness.check(plan, runs, history)
    return StudyData(plan, runs, history, per_item, found, folder)


def report(
    folder: Path, sweep_path: Path, *allow: str, draw: bool = False, **declaration: Any
) -> dict:
    """Write the report, by default without figures, which is quick; return its results."""
    return report_module.report(study(sweep_path, **declaration), folder, allow, draw)


def refusal(folder: Path, sweep_path: Path, *allow: str, **declaration: Any) -> str:
    """Run the report's command in this process and return what it refuses with."""
    found = study(sweep_path, **declaration)
    words = [str(folder), "--sweep", str(sweep_path), "--out", str(folder)]
    path = found.places.declaration(found.name)
    words += ["--study", str(path)] if path.exists() else []
    words += [word for name in allow for word in ("--allow", name)]
    with pytest.raises(SystemExit) as error:
        report_module.main(words)
    return str(error.value)


def change(column: str, value: object) -> Callable[[pd.DataFrame, pd.DataFrame], Tables]:
    """Return a function that sets a column of run bnsgd03 in the tables given to it."""

    def changed(runs: pd.DataFrame, history: pd.DataFrame) -> Tables:
        if column not in runs:
            runs[column] = np.nan
        runs[column] = runs[column].astype(object)
        runs.loc[runs["run_id"] == "bnsgd03", column] = value
        return runs, history

    return changed
