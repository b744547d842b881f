"""Scores from histories, for scripts whose summaries have none by some score rule."""

import numpy as np
import pandas as pd

from analysis.runs.tables import SUMMARY
from lib.spec.metric import PARTS, Metric, last_word, split_part
from lib.spec.study import LEAST_EPOCHS, RULES, Study


def add(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return ``runs`` with a summary column for each score rule that the histories can answer.

    A rule whose column some run has is left alone: an absent score is then a fault of the run. Each
    run's score is taken over its own rows that have one; a run with too few has none.
    """
    metric = study.logged
    if metric.key not in history:
        return runs
    columns = {}
    for rule in RULES:
        name = SUMMARY + study.score_key(rule)
        if name in runs:
            continue
        watched = _validation_key(study, metric, history)
        if rule == "at_best_val" and watched is None:
            continue
        rows = history.dropna(subset=[metric.key, *([watched] if rule == "at_best_val" else [])])
        by_run = rows.sort_values("epoch").groupby("run_id")
        if rule == "at_best_val":
            best = (metric.sign * rows[watched]).groupby(rows["run_id"]).idxmax()
            found = rows.loc[best].set_index("run_id")[metric.key]  # of equal ones the first
        else:
            last = by_run[metric.key].apply(lambda values, n=LEAST_EPOCHS[rule]: _mean(values, n))
            found = last.dropna()
        if len(found):
            columns[name] = runs["run_id"].map(found).astype(object)
    return runs.assign(**columns) if columns else runs


def _mean(values: pd.Series, number: int) -> float:
    """Return the mean of the last ``number`` values; NaN where there are fewer."""
    return float(values.iloc[-number:].mean()) if len(values) >= number else np.nan


def _validation_key(study: Study, metric: Metric, history: pd.DataFrame) -> str | None:
    """Return the history column that chooses the best epoch: as declared, or the metric's own."""
    score = study.declaration.score
    if isinstance(score, dict) and isinstance(score.get("at_best"), str):
        return score["at_best"] if score["at_best"] in history else None
    return next(
        (
            key
            for key in history
            if PARTS.get(split_part(key)[0]) == "validation"
            and last_word(key) == metric.name
            and key != metric.key
        ),
        None,
    )
