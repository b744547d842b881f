"""Checks of the runs' scores: logged at all, within bounds, on one scale, at equal budgets."""

import difflib

import numpy as np
import pandas as pd

from analysis.runs.axis import label
from analysis.runs.lengths import ENOUGH
from analysis.runs.tables import CONFIG, SUMMARY, TableError, is_missing, keys, numbers
from lib.spec.study import RULES, Study
from lib.spec.sweep import show_value


def require_score(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> None:
    """Raise a TableError if runs have finished but none has the score by the declared rule."""
    key = study.score_key()
    known = SUMMARY + key in runs and not runs[SUMMARY + key].map(is_missing).all()
    if known or not (runs["state"] == "finished").any():
        return
    if study.logged.key in history:
        raise TableError(
            f"score: no run has the {study.rule_words} of {study.logged.key}: the summaries have "
            f"no {key}, and the histories too few values; declare another `score:`"
        )
    logged = [*keys(runs, SUMMARY), *history.columns.drop(["run_id", "epoch"])]
    logged = list(dict.fromkeys(logged))
    near = difflib.get_close_matches(study.logged.key, logged, n=1)
    raise TableError(
        f"no run has the metric {study.logged.key}. "
        + (f"Did you mean {near[0]}? " if near else "")
        + f"Set `metric:` of the declaration to one of the logged keys: {', '.join(logged)}"
    )


def out_of_bounds(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return messages about scores outside the metric's bounds, for all score rules."""
    problems, (low, high) = [], study.logged.bounds
    for key in dict.fromkeys(study.score_key(rule) for rule in RULES):
        values = numbers(runs, key)
        for run, value in zip(runs["run_id"], values, strict=True):
            if np.isfinite(value) and study.logged.outside(np.array([value])).any():
                problems.append(
                    f"run {run}: {key} = {value:g} is outside the metric's bounds, {low:g} to "
                    f"{high:g}; if the score is right, declare other `bounds:` for the metric"
                )
    return problems


def two_scales(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return a message if variants' scores within [0, 100] seem to be on two scales.

    That is, all scores of one variant are at most 1, all of another above 1, and their medians
    differ by a factor of about 100 (33 to 300), as accuracies of 0.93 and 94 do.
    """
    if study.logged.bounds[1] != 100:
        return []
    levels = [f"{key}=" + runs[CONFIG + key].map(show_value) for key in study.factor_keys]
    variant = pd.concat(levels, axis=1).agg(", ".join, axis=1) if levels else runs["state"]
    scores = numbers(runs, study.score_key()).groupby(variant).agg(["min", "median", "max"])
    fractions, percentages = scores[scores["max"] <= 1], scores[scores["min"] > 1]
    return [
        f"{study.logged.key} is about {low:.4g} for {one}, but {high:.4g} for {other}"
        for one, low in fractions["median"].items()
        for other, high in percentages["median"].items()
        if low * 100 / 3 <= high <= low * 300
    ][:1]


def scored_at_other_steps(
    study: Study, runs: list[str], history: pd.DataFrame, axis: str
) -> list[str]:
    """Return a message if the last scores of runs were logged at different steps (budgets).

    Steps may differ by 5 %. Empty if the history does not contain the score.
    """
    key = study.logged.key
    if key not in history or len(study.blocks) > 1:
        return []
    rows = history[history["run_id"].isin(runs)].dropna(subset=[key])
    last = rows.groupby("run_id")["epoch"].max()
    if "epochs" in study.factor_keys or last.empty or last.min() >= ENOUGH * last.max():
        return []
    least, most = last.idxmin(), last.idxmax()
    return [
        f"the last {key} is from {label(axis).lower()} {last.min():g} in run {least}, but "
        f"{last.max():g} in run {most}; scores of different budgets cannot be compared"
    ]


def other_data(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return a message if published scores would be compared with runs on other data."""
    column = runs.get(f"{SUMMARY}data_note", pd.Series(dtype=object))
    notes = sorted({str(note) for note in column if not is_missing(note) and note})
    if not notes or not study.declaration.published_scores:
        return []
    return [
        f"published_scores cannot be compared with runs on other data: {'; '.join(notes)}. Use "
        "the official data (`make data`), or remove published_scores"
    ]
