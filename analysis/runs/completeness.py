"""Is the study complete? Every cell and seed exactly once, finished, with the planned epochs."""

import math
import numbers
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.grid import SEED, SPLITTING, Study, Sweep
from analysis.runs.tables import TableError

PAIR_HASHES = ("split_sha256", "order_sha256")  # of the split, of the first epoch's order

# Checks that `analysis.report --allow NAME` lifts, each with what its failure means.
CHECKS = {
    "data": "the runs saw different data",
    "commit": "the runs come from different commits of the code",
    "versions": "the runs were made with different versions of the libraries",
    "identical": "runs that should differ have the same losses, digit by digit",
}
COMPARED = {
    "data": ["data_sha256"],
    "commit": ["git_commit"],
    "versions": ["python_version", "numpy_version", "torch_version"],
}


@dataclass(frozen=True)
class Entry:
    """One expected cell × seed: its ``state``, the runs found for it, epochs and seconds.

    States: finished, diverged, missing, duplicate, short, or what W&B says of an unfinished run.
    ``resumed``: the epoch after which it was last continued from a checkpoint, or 0.
    ``replaced``: unfinished runs in whose place the one in ``runs`` counts.
    """

    cell: tuple
    seed: int
    state: str
    runs: list[str]
    epochs: int = 0
    seconds: float = 0.0
    resumed: int = 0
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """All expected entries and, in words, everything that forbids a comparison.

    ``doubts``: by the name of a check in ``CHECKS``, what it found; these may be allowed.
    ``unpaired``: where runs of one seed had another split or order, so that they are no pairs.
    ``repeated``: unfinished runs in whose place a finished one counts.
    """

    entries: list[Entry]
    problems: list[str]
    doubts: dict[str, str] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def counting(self) -> list[str]:
        """The ids of all runs that count, by cell and seed."""
        return [run for entry in self.entries for run in entry.runs]

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
    problems, repeated = [], []
    fits = pd.Series(True, index=runs.index)
    for name, value in sweep.fixed.items():
        fits &= runs[name].map(lambda found, value=value: _same(found, value)).astype(bool)
    epochs = history.groupby("run_id")["epoch"].agg(["count", "max"])
    seconds = history.groupby("run_id")["seconds"].sum() if "seconds" in history else pd.Series()
    entries, used = [], set()
    for cell in sweep.cells:
        in_cell = fits.copy()
        for name, level in zip(sweep.factors, cell, strict=True):
            in_cell &= runs[name].map(lambda v, level=level: _same(v, level)).astype(bool)
        for seed in sweep.seeds:
            of_seed = runs[SEED].map(lambda s, seed=seed: _same(s, seed)).astype(bool)
            found = runs[in_cell & of_seed]
            used |= set(found["run_id"])
            judged = [_judge(run, study, epochs, seconds) for _, run in found.iterrows()]
            well = [one for one in judged if not one[1]]
            replaced = ()
            if len(judged) > 1 and len(well) == 1:
                replaced = tuple(entry.runs[0] for entry, problem in judged if problem)
                told = [problem for _, problem in judged if problem]
                repeated += [f"{sweep.label(cell)}, seed={seed}: {one}, made again" for one in told]
                judged = well
            if len(judged) == 1:
                ((entry, problem),) = judged
                entries.append(replace(entry, cell=cell, seed=seed, replaced=replaced))
            else:
                ids = [entry.runs[0] for entry, _ in judged]
                entries.append(Entry(cell, seed, "duplicate" if ids else "missing", ids))
                told = [f"{entry.runs[0]} ({entry.state})" for entry, _ in judged]
                problem = f"{len(ids)} runs: {', '.join(told)}" if ids else "missing"
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
    counting = runs[runs["run_id"].isin(Ledger(entries, problems).counting)]
    doubts = {} if problems else _doubts(counting, history)
    return Ledger(entries, problems, doubts, _unpaired(sweep, counting), repeated)


def _doubts(runs: pd.DataFrame, history: pd.DataFrame) -> dict[str, str]:
    """Return what the checks that can be lifted found, by name: runs unlike where they must agree.

    Two runs whose losses agree in every digit of every epoch have run the same thing twice.
    """
    doubts = {}
    for name, columns in COMPARED.items():
        told = []
        for column in [c for c in columns if c in runs and runs[c].nunique() > 1]:
            counts = runs[column].astype(str).value_counts()
            short = [value if len(value) <= 12 else f"{value[:8]}…" for value in counts.index]
            parts = [f"{n} with {v}" for n, v in zip(counts, short, strict=True)]
            told.append(f"{column}: {', '.join(parts)}")
        if told:
            doubts[name] = f"{CHECKS[name]} ({'; '.join(told)})"
    losses = [name for name in ("train/loss", "val/loss") if name in history]
    by_content: dict[tuple, list[str]] = {}
    for run_id, rows in history[history["run_id"].isin(runs["run_id"])].groupby("run_id"):
        values = rows.sort_values("epoch")[losses]
        if values.notna().any(axis=None):
            by_content.setdefault(tuple(values.round(12).astype(str).sum(axis=1)), []).append(
                run_id
            )
    if twins := [" = ".join(ids) for ids in by_content.values() if len(ids) > 1]:
        doubts["identical"] = f"{CHECKS['identical']} ({'; '.join(twins)})"
    return doubts


def _unpaired(sweep: Sweep, runs: pd.DataFrame) -> list[str]:
    """Say where runs of one seed are no pairs: another split, or another order of the images."""
    problems = []
    alike = runs[SEED].astype(str)
    for name in [factor for factor in sweep.factors if factor in SPLITTING]:
        alike = alike + f", {name} = " + runs[name].astype(str)
    for name in PAIR_HASHES:
        if name in runs:
            hashes = runs.groupby(alike)[name].nunique()
            problems += [
                f"seed {which}: {count} different values of {name}; its runs are no pairs"
                for which, count in hashes[hashes > 1].items()
            ]
    return problems


def _judge(
    run: pd.Series, study: Study, epochs: pd.DataFrame, seconds: pd.Series
) -> tuple[Entry, str]:
    """Return a run's entry, cell and seed left open, and what is wrong with it, if anything."""
    name = run["run_id"]
    count, last = (int(n) for n in epochs.loc[name]) if name in epochs.index else (0, 0)
    planned = int(run["epochs"]) if "epochs" in run else int(epochs["max"].max())
    score, problem = run[study.score_column()], ""
    state = "diverged" if _same(run["diverged"], True) else "finished"
    if run["state"] != "finished" or (
        run["exit_code"] not in (0, None) and pd.notna(run["exit_code"])
    ):
        state = run["state"] if run["state"] != "finished" else "failed"
        problem = f"run {name} is {state}, after epoch {last} of {planned}"
    elif count != last or (last != planned and state != "diverged"):
        state = "short"
        problem = f"run {name} has {count} of {planned} epochs"
    elif not isinstance(score, numbers.Real) or not math.isfinite(score):
        state = "failed"
        shown = repr(score) if isinstance(score, str) else score
        problem = f"run {name} has no number as {study.score_column()}: {shown}"
    resumed = run.get("resumed_from_epoch")
    resumed = int(resumed) if isinstance(resumed, numbers.Real) and resumed > 0 else 0
    return Entry((), -1, state, [name], last, float(seconds.get(name, 0.0)), resumed), problem


def scores(
    sweep: Sweep, ledger: Ledger, runs: pd.DataFrame, column: str
) -> dict[tuple, list[float]]:
    """Return each cell's scores in the order of the sweep's seeds; the ledger has no problems."""
    by_run = runs.set_index("run_id")[column]
    return {cell: [float(by_run[run]) for run in ledger.runs(cell)] for cell in sweep.cells}


def _same(found: Any, planned: Any) -> bool:
    """Compare a CSV's value with a YAML's: True is not 1, but 1.0 is 1, also as a text.

    A column of a CSV is text or numbers as a whole: beside "none" stands "1.0", not 1.0.
    """
    if isinstance(planned, bool) or isinstance(found, bool) or str(found) in ("True", "False"):
        return str(found) == str(planned)
    if isinstance(found, str) != isinstance(planned, str):
        try:
            return float(found) == float(planned)
        except ValueError:
            return False
    return bool(found == planned)
