"""Lengths of runs, in epochs or steps, from their histories."""

import numpy as np
import pandas as pd

from analysis.runs.axis import EPOCH, KNOWN
from analysis.runs.tables import numbers

ENOUGH = 0.95  # least share of the longest run's steps, if runs may end at different steps


def lengths_of(history: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return each run's number of rows and last epoch or step (``count``, ``max``).

    ``due``: the number of rows that it should have: of the epochs that any run has, those up to its
    last. ``every``: whether these are all epochs, so that the last one is the run's length; a
    script may evaluate every fifth epoch only. If epochs start at 0, ``max`` is increased by 1.
    ``exact``: whether all runs must have the same length; runs over steps or fractions of epochs
    may differ a little.
    """
    history = history.reset_index(drop=True)
    history = history.drop(index=_final_tests(history)) if axis == EPOCH else history
    epochs = history.groupby("run_id")["epoch"].agg(["count", "max"])
    values = np.sort(history["epoch"].unique())
    epochs["due"] = np.searchsorted(values, epochs["max"], side="right")
    exact = axis == EPOCH and bool((values % 1 == 0).all())
    every = exact and len(values) > 0 and values[0] <= 1 and len(values) == np.ptp(values) + 1
    if exact and len(values) and values[0] == 0:
        epochs["max"] += 1
    return epochs.assign(exact=exact, every=every)


def logged_lengths(runs: pd.DataFrame) -> pd.DataFrame:
    """Return lengths as ``lengths_of`` does, from the last epoch in the summaries of ``runs``.

    For runs without a history, as in an export of the runs table alone. Empty if a run has none.
    """
    last = numbers(runs, EPOCH).set_axis(runs["run_id"])
    if len(last) == 0 or not (last > 0).all() or (last % 1 != 0).any():
        return lengths_of(pd.DataFrame({"run_id": [], "epoch": []}), EPOCH)
    columns = {"count": last, "max": last, "due": last}
    return pd.DataFrame(columns).assign(exact=True, every=False)  # it may count from 0


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
