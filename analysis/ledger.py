"""Is the study complete? Every cell and seed exactly once, finished, with the planned epochs."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.grid import SEED, Study, Sweep
from analysis.tables import TableError

SPLITTING = ("fold", "val_fraction")  # factors that change the split, and mean to


@dataclass(frozen=True)
class Entry:
    """One expected cell × seed: its ``state``, the runs found for it, epochs and seconds.

    States: finished, diverged, missing, duplicate, short, or what W&B says of an unfinished run.
    """

    cell: tuple
    seed: int
    state: str
    runs: list[str]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Ledger:
    """All expected entries and, in words, everything that forbids a comparison."""

    entries: list[Entry]
    problems: list[str]

    @property
    def epochs(self) -> int:
        """The epochs of the longest run."""
        return max(entry.epochs for entry in self.entries)

    def runs(self, cell: tuple) -> list[str]:
        """Return the ids of a cell's runs, by seed."""
        return [run for entry in self.entries if entry.cell == cell for run in entry.runs]


def check(sweep: Sweep, study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> Ledger:
    """Compare what the sweep expects with what the tables hold.

    Raises:
        TableError: when a column that the sweep names is missing.
    """
    names = [*sweep.factors, SEED, *sweep.fixed]
    if missing := [name for name in names if name not in runs]:
        raise TableError(
            f"runs.csv lacks the column(s) {', '.join(missing)}: were these runs made by another "
            "sweep?"
        )
    # While no run has finished there is no such column: every run is then one without a score.
    ends = {study.metric, study.score_column(), "diverged"} - set(runs)
    runs = runs.assign(**dict.fromkeys(ends))
    problems = []
    fits = pd.Series(True, index=runs.index)
    for name, value in sweep.fixed.items():
        fits &= runs[name].map(lambda found, value=value: _same(found, value))
    epochs = history.groupby("run_id")["epoch"].agg(["count", "max"])
    seconds = history.groupby("run_id")["seconds"].sum() if "seconds" in history else pd.Series()
    entries, used = [], set()
    for cell in sweep.cells:
        in_cell = fits.copy()
        for name, level in zip(sweep.factors, cell, strict=True):
            in_cell &= runs[name].map(lambda found, level=level: _same(found, level))
        for seed in sweep.seeds:
            found = runs[in_cell & runs[SEED].map(lambda s, seed=seed: _same(s, seed))]
            used |= set(found["run_id"])
            entry, problem = _entry(sweep, study, cell, seed, found, epochs, seconds)
            entries.append(entry)
            if problem:
                problems.append(f"{sweep.label(cell)}, seed={seed}: {problem}")
    planned = {name: [value] for name, value in sweep.fixed.items()}
    planned |= sweep.factors | {SEED: sweep.seeds}
    for _, run in runs[~runs["run_id"].isin(used)].sort_values("run_id").iterrows():
        wrong = [
            f"{name} is {run[name]}, planned {' or '.join(map(str, values))}"
            for name, values in planned.items()
            if not any(_same(run[name], value) for value in values)
        ]
        problems.append(f"run {run['run_id']} belongs to no cell of the sweep: {'; '.join(wrong)}")
    return Ledger(entries, problems or _unlike(sweep, runs))


def _unlike(sweep: Sweep, runs: pd.DataFrame) -> list[str]:
    """Say where runs that should be pairs are none: other data, or another split or order."""
    problems = []
    if "data_sha256" in runs and runs["data_sha256"].nunique() > 1:
        counts = runs["data_sha256"].value_counts()
        told = ", ".join(f"{count} with {value[:8]}…" for value, count in counts.items())
        problems.append(f"the runs saw different data (data_sha256: {told})")
    alike = runs[SEED].astype(str)
    for name in set(SPLITTING) & set(sweep.factors):
        alike = alike + f", {name} = " + runs[name].astype(str)
    for name in ("split_sha256", "order_sha256"):
        if name in runs:
            hashes = runs.groupby(alike)[name].nunique()
            problems += [
                f"seed {which}: {count} different values of {name}; its runs are no pairs"
                for which, count in hashes[hashes > 1].items()
            ]
    return problems


def _entry(
    sweep: Sweep,
    study: Study,
    cell: tuple,
    seed: int,
    found: pd.DataFrame,
    epochs: pd.DataFrame,
    seconds: pd.Series,
) -> tuple[Entry, str]:
    ids = found["run_id"].tolist()
    if len(ids) != 1:
        state = "duplicate" if ids else "missing"
        told = [f"{run} ({state})" for run, state in zip(ids, found["state"], strict=True)]
        problem = f"{len(ids)} runs: {', '.join(told)}" if ids else "missing"
        return Entry(cell, seed, state, ids, 0, 0.0), problem
    run = found.iloc[0]
    count, last = (int(n) for n in epochs.loc[ids[0]]) if ids[0] in epochs.index else (0, 0)
    planned = int(run["epochs"]) if "epochs" in run else int(epochs["max"].max())
    score, problem = run[study.score_column()], ""
    state = "diverged" if _same(run["diverged"], True) else "finished"
    if run["state"] != "finished" or (
        run["exit_code"] not in (0, None) and pd.notna(run["exit_code"])
    ):
        state = run["state"] if run["state"] != "finished" else "failed"
        problem = f"run {ids[0]} is {state}, after epoch {last} of {planned}"
    elif count != last or (last != planned and state != "diverged"):
        state = "short"
        problem = f"run {ids[0]} has {count} of {planned} epochs"
    elif not isinstance(score, numbers.Real) or not math.isfinite(score):
        state = "failed"
        shown = repr(score) if isinstance(score, str) else score
        problem = f"run {ids[0]} has no number as {study.score_column()}: {shown}"
    total = float(seconds.get(ids[0], 0.0))
    return Entry(cell, seed, state, ids, last, total), problem


def scores(
    sweep: Sweep, ledger: Ledger, runs: pd.DataFrame, column: str
) -> dict[tuple, list[float]]:
    """Return each cell's scores in the order of the sweep's seeds; the ledger has no problems."""
    by_run = runs.set_index("run_id")[column]
    return {cell: [float(by_run[run]) for run in ledger.runs(cell)] for cell in sweep.cells}


def _same(found: Any, planned: Any) -> bool:
    """Compare a CSV's value with a YAML's: True is not 1, but 1.0 is 1."""
    if isinstance(planned, bool) or isinstance(found, bool) or str(found) in ("True", "False"):
        return str(found) == str(planned)
    return bool(found == planned)
