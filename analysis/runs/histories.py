"""Learning curves as arrays: a metric of every variant, seed and epoch."""

import math

import numpy as np

from analysis.runs.axis import EPOCH
from analysis.runs.data import StudyData
from lib.spec.metric import Metric, split_part
from lib.spec.study import Variant


def curve_metric(data: StudyData) -> Metric | None:
    """Return the study's metric as the history has it: on validation, else on training.

    A history that has the score's own key comes first. None where it has none of them, or where
    the study has blocks: their curves have no common axis.
    """
    metric, history = data.study.metric, data.history
    if len(data.study.blocks) > 1:
        return None
    columns = history.columns.drop(["run_id", "epoch"])
    known = [name for name in columns if history[name].notna().any()]
    if metric.key in known:
        return metric
    rest = split_part(metric.key)[1]
    by_part = {split_part(name)[0]: name for name in known if split_part(name)[1] == rest}
    for part in ("val", "valid", "validation", "eval", "train"):
        if part in by_part:
            return metric.on(by_part[part])
    return None


def curves(data: StudyData, key: str) -> np.ndarray:
    """Return the curves of the history column ``key``, (variants, seeds, values of the axis).

    A diverged run has the worst value from the epoch on at which it has none; any other gap, such
    as the time after a crash, is NaN. Where runs log at other steps than one another, a run's curve
    keeps its last value until its next one.
    """
    study, history = data.study, data.history
    wide = history.pivot(index="run_id", columns="epoch", values=key)
    wide = wide.reindex(columns=axis_values(data))
    if data.axis != EPOCH:
        wide = wide.ffill(axis="columns").where(wide.bfill(axis="columns").notna())
    worst = study.metric.worst_value
    worst = math.nan if worst is None else worst
    found = np.full((len(study.variants), len(study.seeds), wide.shape[1]), np.nan)
    for entry in data.completeness.entries:
        if len(entry.runs) == 1 and entry.runs[0] in wide.index:
            values = wide.loc[entry.runs[0]].to_numpy(dtype=float)
            if entry.state == "diverged":
                values = np.where(np.isfinite(values), values, worst)
            found[study.variants.index(entry.variant), study.seeds.index(entry.seed)] = values
    return found


def axis_values(data: StudyData) -> np.ndarray:
    """Return the values of the axis at which some run logged, sorted; of epochs each."""
    found = np.sort(data.history["epoch"].unique())
    if data.axis == EPOCH and len(found) and (found % 1 == 0).all():
        return np.arange(min(1, found[0]), found[-1] + 1)
    return found


def stops(data: StudyData, key: str) -> list[tuple[Variant, str, np.ndarray, np.ndarray]]:
    """Return where runs stopped early: variant, state, and epochs and values of the run's curve.

    These are runs that diverged and unfinished runs, also those that were made again.
    """
    entries = data.completeness.entries
    early = [(e.variant, "replaced", run) for e in entries for run in e.replaced]
    whole = ("finished", "duplicate")
    early += [(e.variant, e.state, run) for e in entries if e.state not in whole for run in e.runs]
    found = []
    for variant, state, run in early:
        rows = data.history[data.history["run_id"] == run].dropna(subset=[key])
        rows = rows.sort_values("epoch")
        if len(rows):
            values = rows[key].to_numpy(dtype=float)
            found.append((variant, state, rows["epoch"].to_numpy(), values))
    return found
