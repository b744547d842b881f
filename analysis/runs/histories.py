"""A study's learning curves as arrays: the metric of every cell, seed and epoch."""

import numpy as np
import pandas as pd

from analysis.grid import Study, Sweep
from analysis.runs.completeness import Ledger


def column(study: Study, history: pd.DataFrame) -> str | None:
    """Return the study's metric on validation, on training without that, or None without either."""
    quantity = study.metric.split("/")[-1]
    names = [f"{part}/{quantity}" for part in ("val", "train")]
    return next((n for n in names if n in history and history[n].notna().any()), None)


def by_cell(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame, name: str
) -> dict[tuple, np.ndarray]:
    """Return each cell's curves of ``name``, (seeds, epochs), seeds in the sweep's order.

    A diverged run counts with the worst value from the epoch on at which it has none; any other
    gap, such as the time after a crash, is NaN.
    """
    wide = history.pivot(index="run_id", columns="epoch", values=name)
    wide = wide.reindex(columns=range(1, int(history["epoch"].max()) + 1))
    worst = 1.0 if study.direction == "lower" else 0.0
    found = {cell: np.full((len(sweep.seeds), wide.shape[1]), np.nan) for cell in sweep.cells}
    for entry in ledger.entries:
        if len(entry.runs) == 1 and entry.runs[0] in wide.index:
            values = wide.loc[entry.runs[0]].to_numpy(dtype=float)
            if entry.state == "diverged":
                values = np.where(np.isfinite(values), values, worst)
            found[entry.cell][sweep.seeds.index(entry.seed)] = values
    return found


def stops(
    ledger: Ledger, history: pd.DataFrame, name: str
) -> list[tuple[tuple, str, np.ndarray, np.ndarray]]:
    """Return where runs stopped early: cell, state, and the epochs and values of the run's curve.

    Of runs that diverged, of unfinished ones, and of unfinished ones in whose place another counts.
    """
    early = [(e.cell, "replaced", r) for e in ledger.entries for r in e.replaced]
    whole = ("finished", "duplicate")
    early += [(e.cell, e.state, r) for e in ledger.entries if e.state not in whole for r in e.runs]
    found = []
    for cell, state, run in early:
        rows = history[history["run_id"] == run].dropna(subset=[name]).sort_values("epoch")
        if len(rows):
            found.append((cell, state, rows["epoch"].to_numpy(), rows[name].to_numpy(dtype=float)))
    return found
