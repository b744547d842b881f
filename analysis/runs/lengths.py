"""Lengths of runs, in epochs or steps, from their histories."""

import numpy as np
import pandas as pd

from analysis.runs.axis import EPOCH, KNOWN
from analysis.runs.tables import numbers

ENOUGH = 0.95  # least share of the longest run's steps, if runs may end at different steps


def lengths_of(history: pd.DataFrame, axis: str, configured: object = None) -> pd.DataFrame:
    """Return each run's number of rows and last epoch or step (``count``, ``max``).

    ``missing``: the number of epochs up to its last one that it lacks, but at least half of the
    runs that reach them have. ``exact``: whether all runs must have the same length; runs over
    steps or fractions of epochs may differ a little. ``gap``: the largest distance of those epochs,
    1 if a script logs every epoch, 5 if it evaluates every fifth. If epochs start at 0, ``max`` is
    increased by 1, unless the last one is ``configured``, the number of epochs in the config: then
    0 is an evaluation before training.
    """
    history = history.reset_index(drop=True)
    history = history.drop(index=_final_tests(history)) if axis == EPOCH else history
    lengths = history.groupby("run_id")["epoch"].agg(["count", "max"])
    exact = axis == EPOCH and bool((history["epoch"] % 1 == 0).all())
    if not exact or history.empty:
        return lengths.assign(missing=0, exact=exact, gap=1)
    has = pd.crosstab(history["run_id"], history["epoch"]) > 0
    reaches = has.columns.to_numpy() <= lengths.loc[has.index, "max"].to_numpy()[:, None]
    due = 2 * has.sum().to_numpy() >= reaches.sum(axis=0)
    lengths["missing"] = (reaches & due & ~has.to_numpy()).sum(axis=1)
    gap = np.diff(has.columns[due]).max(initial=1)
    if has.columns[0] == 0 and due[0] and lengths["max"].max() != configured:
        lengths["max"] += 1
    return lengths.assign(exact=True, gap=gap)


def logged_lengths(runs: pd.DataFrame) -> pd.DataFrame:
    """Return lengths as ``lengths_of`` does, from the last epoch in the summaries of ``runs``.

    For runs without a history, as in an export of the runs table alone. Empty if a run has none.
    """
    last = numbers(runs, EPOCH).set_axis(runs["run_id"])
    if len(last) == 0 or not (last > 0).all() or (last % 1 != 0).any():
        return lengths_of(pd.DataFrame({"run_id": [], "epoch": []}), EPOCH)
    columns = {"count": last, "max": last}
    return pd.DataFrame(columns).assign(missing=0, exact=True, gap=2)  # it may count from 0


def _final_tests(history: pd.DataFrame) -> pd.Index:
    """Return the index of rows that are final tests and not epochs.

    This is a run's last row if it has no metric in common with the run's other rows: Lightning logs
    a test after the last epoch under the next epoch number.
    """
    metrics = history.columns.difference(["run_id", "epoch", "epoch (logged)", *KNOWN])
    last = history.sort_values("epoch").drop_duplicates("run_id", keep="last").index
    in_last = history.loc[last].set_index("run_id")[metrics].notna()
    in_others = history.drop(index=last).groupby("run_id")[metrics].count() > 0
    in_others = in_others.reindex(in_last.index, fill_value=False)
    is_test = in_others.any(axis=1) & ~(in_last & in_others).any(axis=1)
    return last[is_test.to_numpy()]


def whole(value: float) -> int:
    return 0 if pd.isna(value) else int(value)
