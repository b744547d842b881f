"""Learning curves as arrays: a metric by variant, seed and epoch."""

import math

import numpy as np

from analysis.runs.axis import EPOCH
from analysis.runs.data import StudyData
from lib.spec.metric import Metric, split_part
from lib.spec.study import Variant


def curve_metric(data: StudyData) -> Metric | None:
    """Return the metric of learning curves: the score's key, else its validation or training part.

    None if the history has none of these, or if the study has blocks, whose curves have no common
    axis.
    """
    metric, history = data.study.metric, data.history
    if len(data.study.blocks) > 1:
        return None
    columns = history.columns.drop(["run_id", "epoch"])
    known = [key for key in columns if history[key].notna().any()]
    if metric.key in known:
        return metric
    name = split_part(metric.key)[1]
    by_part = {split_part(key)[0]: key for key in known if split_part(key)[1] == name}
    for part in ("val", "valid", "validation", "eval", "train"):
        if part in by_part:
            return metric.on(by_part[part])
    return None


def curves(data: StudyData, key: str) -> np.ndarray:
    """Return the curves of the history column ``key``, (variants, seeds, values of the axis).

    Gaps in the curve of a diverged run get the metric's worst value; other gaps, such as after a
    crash, are NaN. Over steps, where runs may log at different values, a curve keeps its last value
    until its next one, and over epochs at which no run has a value, as with an evaluation every
    fifth epoch.
    """
    study, history = data.study, data.history
    wide = history.pivot(index="run_id", columns="epoch", values=key)
    wide = wide.reindex(columns=axis_values(data))
    filled = wide.ffill(axis="columns").where(wide.bfill(axis="columns").notna())
    at_some = np.broadcast_to(wide.notna().any().to_numpy(), wide.shape)
    wide = filled if data.axis != EPOCH else wide.where(at_some, filled)
    worst = study.metric.worst_value
    worst = math.nan if worst is None else worst
    array = np.full((len(study.variants), len(study.seeds), wide.shape[1]), np.nan)
    for entry in data.completeness.entries:
        if len(entry.runs) == 1 and entry.runs[0] in wide.index:
            values = wide.loc[entry.runs[0]].to_numpy(dtype=float)
            if entry.state == "diverged":
                values = np.where(np.isfinite(values), values, worst)
            array[study.variants.index(entry.variant), study.seeds.index(entry.seed)] = values
    return array


def axis_values(data: StudyData) -> np.ndarray:
    """Return the sorted axis values that any run has."""
    return np.sort(data.history["epoch"].unique())


def stops(data: StudyData, key: str) -> list[tuple[Variant, str, np.ndarray, np.ndarray]]:
    """Return the curves of runs that stopped early: variant, state, epochs and values.

    These are runs that diverged and unfinished runs, including those replaced by a rerun.
    """
    entries = data.completeness.entries
    early = [(e.variant, "replaced", run) for e in entries for run in e.replaced]
    whole = ("finished", "duplicate")
    early += [(e.variant, e.state, run) for e in entries if e.state not in whole for run in e.runs]
    stopped = []
    for variant, state, run in early:
        rows = data.history[data.history["run_id"] == run].dropna(subset=[key])
        rows = rows.sort_values("epoch")
        if len(rows):
            values = rows[key].to_numpy(dtype=float)
            stopped.append((variant, state, rows["epoch"].to_numpy(), values))
    return stopped
