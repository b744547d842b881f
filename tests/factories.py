"""Made-up studies: tables as analysis.fetch writes them, with chosen scores."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from analysis import report as report_module
from analysis.grid import load_sweep
from analysis.runs.tables import write_tables

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


def tables(
    sweep_path: Path, effects: tuple[float, float, float] = (-0.02, -0.01, 0.0), noise: float = 1e-3
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs and history of a finished 2×2 study.

    Error 0.1 plus effects A, B and A×B (added where a factor is at level 2), a seed effect common
    to the cells and ``noise`` (standard deviation) of each run's own.
    """
    sweep = load_sweep(sweep_path)
    rng = np.random.default_rng(0)
    seed_effects = rng.normal(0, 0.005, len(sweep.seeds))
    runs, history = [], []
    for a, b in sweep.cells:
        for seed, seed_effect in zip(sweep.seeds, seed_effects, strict=True):
            on = (a is True, b == "sgd", a is True and b == "sgd")
            shift = sum(e for e, is_on in zip(effects, on, strict=True) if is_on)
            error = round(0.1 + shift + seed_effect + rng.normal(0, noise), 6)
            run_id = f"{'bn' if a else 'no'}{b}{seed:02d}"
            epochs = sweep.fixed["epochs"]
            runs.append(
                {
                    "run_id": run_id,
                    "state": "finished",
                    "exit_code": 0,
                    "source": f"offline-run-{run_id}",
                    "batch_norm": a,
                    "optimizer": b,
                    "seed": seed,
                    "epochs": epochs,
                    "test/error": error,
                    "test/error_at_best_val": error + 1e-6,
                    "diverged": False,
                    "data_sha256": "d" * 64,
                    "split_sha256": f"split {seed}",
                    "order_sha256": f"order {seed}",
                    "git_commit": "c" * 40,
                }
            )
            for epoch in range(1, epochs + 1):
                value = error + 0.8 * 0.2**epoch
                history.append(
                    {"run_id": run_id, "epoch": epoch, "val/error": value, "seconds": 1.5}
                )
    return pd.DataFrame(runs), pd.DataFrame(history)


def write_study(folder: Path, sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame) -> None:
    """Write the tables where analysis.report expects them."""
    write_tables(folder, runs, history, list(load_sweep(sweep_path).factors))


def report(folder: Path, sweep_path: Path, *flags: str) -> dict:
    """Write the report without figures and in this process, which is quick; return its results."""
    with mock.patch("analysis.report.catalogue.draw", return_value={}):
        report_module.main([str(folder), "--sweep", str(sweep_path), *flags])
    return json.loads((folder / "results.json").read_text())


def refusal(folder: Path, sweep_path: Path) -> str:
    """Run the report's command in this process and return what it refuses with."""
    with pytest.raises(SystemExit) as error:
        report_module.main([str(folder), "--sweep", str(sweep_path)])
    return str(error.value)


def change(column: str, value: object) -> Callable:
    """Return a function that sets a column of run bnsgd03 in the tables given to it."""

    def changed(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        runs[column] = runs[column].astype(object)
        runs.loc[runs["run_id"] == "bnsgd03", column] = value
        return runs, history

    return changed
