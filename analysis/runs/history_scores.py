"""Scores computed from histories, for score rules that a script's summaries do not contain."""

import numpy as np
import pandas as pd

from analysis.runs.tables import SUMMARY
from lib.spec.metric import PARTS, Metric, last_word, split_part
from lib.spec.study import LEAST_EPOCHS, RULES, Study


def add(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return ``runs`` with a summary column for each score rule that the histories can provide.

    A column that exists in the summary of any run is not changed: a score missing from one run is
    then a fault of that run. A run with too few logged values gets no score.
    """
    metric = study.logged
    if metric.key not in history:
        return runs
    columns = {}
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
    return runs.assign(**columns) if columns else runs


def _mean(values: pd.Series, number: int) -> float:
    """Return the mean of the last ``number`` values; NaN if there are fewer."""
    return float(values.iloc[-number:].mean()) if len(values) >= number else np.nan


def _validation_key(study: Study, metric: Metric, history: pd.DataFrame) -> str | None:
    """Return the history column that selects the best epoch: as declared, else on validation."""
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
