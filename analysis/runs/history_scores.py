"""Scores computed from histories, for score rules that a script's summaries do not contain."""

import numpy as np
import pandas as pd

from analysis.runs.tables import SUMMARY, numbers
from lib.spec.metric import PARTS, Metric, last_word, split_part
from lib.spec.study import LEAST_EPOCHS, RULES, Study


def add(
    study: Study, runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return ``runs`` with a summary column for each score rule that the histories can provide.

    A score that exists in the summary of any run is not added to the others: one missing from a
    run is then a fault of that run. A run with too few logged values gets no score. Also returns
    the runs whose summary has the best value of the history instead of the last, which is then the
    score, and the runs whose summary has another value, which is kept.
    """
    metric = study.logged
    if metric.key not in history:
        return runs, [], []
    columns, (replaced, others) = {}, _unlike_last(metric, runs, history)
    if len(replaced):
        name = SUMMARY + metric.key
        last = runs["run_id"].map(replaced).astype(object)
        columns[name] = last.where(last.notna(), runs[name])
    for rule in RULES:
        name = SUMMARY + study.score_key(rule)
        if name in runs:
            continue
        val_key = _validation_key(study, metric, history)
        if rule == "at_best_val" and val_key is None:
            continue
        rows = history.dropna(subset=[metric.key, *([val_key] if rule == "at_best_val" else [])])
        by_run = rows.sort_values("epoch").groupby("run_id")
        if rule == "at_best_val":
            best = (metric.sign * rows[val_key]).groupby(rows["run_id"]).idxmax()  # first of ties
            scores = rows.loc[best].set_index("run_id")[metric.key]
        else:
            last = by_run[metric.key].apply(lambda values, n=LEAST_EPOCHS[rule]: _mean(values, n))
            scores = last.dropna()
        if len(scores):
            columns[name] = runs["run_id"].map(scores).astype(object)
    runs = runs.assign(**columns) if columns else runs
    return runs, sorted(replaced.index), sorted(others)


def _unlike_last(
    metric: Metric, runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.Series, list[str]]:
    """Return the last logged value of runs whose summary has the best one instead, by run id.

    Many scripts overwrite the summary with the best value, which W&B's app then shows; it is not
    the score of the last epoch. Also returns the runs whose summary has neither the last nor the
    best value, such as that of a final test. Without diverged runs, whose summary has the worst
    value, and without exports, whose charts may be smoothed.
    """
    rows = history.dropna(subset=[metric.key]).sort_values("epoch")
    by_run = rows.groupby("run_id")[metric.key]
    left_out = runs["source"].astype(str).str.endswith(".csv")
    if SUMMARY + "diverged" in runs:
        left_out |= runs[SUMMARY + "diverged"].map(lambda value: value is True)
    summary = numbers(runs, metric.key).set_axis(runs["run_id"])[~left_out.to_numpy()]
    last = by_run.last().reindex(summary.index)
    best = (by_run.max() if metric.sign > 0 else by_run.min()).reindex(summary.index)
    near = {"rtol": 1e-6, "atol": 1e-12}
    unlike = np.isfinite(last) & np.isfinite(summary) & ~np.isclose(last, summary, **near)
    is_best = np.isclose(best, summary, **near)
    return last[unlike & is_best], summary.index[unlike & ~is_best].tolist()


def _mean(values: pd.Series, number: int) -> float:
    """Return the mean of the last ``number`` values; NaN if there are fewer."""
    return float(values.iloc[-number:].mean()) if len(values) >= number else np.nan


def _validation_key(study: Study, metric: Metric, history: pd.DataFrame) -> str | None:
    """Return the history column that selects the best epoch: as declared, else on validation."""
    score = study.declaration.score
    if isinstance(score, dict) and isinstance(score.get("at_best"), str):
        return score["at_best"] if score["at_best"] in history else None
    found = [
        key
        for key in history
        if PARTS.get(split_part(key)[0]) == "validation"
        and last_word(key) == metric.name
        and key != metric.key
    ]
    same = [key for key in found if split_part(key)[1] == split_part(metric.key)[1]]
    return next(iter([*same, *found]), None)
