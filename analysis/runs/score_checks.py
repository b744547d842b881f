"""Checks of the runs' scores: logged at all, within bounds, on one scale, at equal budgets."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs.axis import label
from analysis.runs.lengths import ENOUGH
from analysis.runs.tables import NAN, SUMMARY, TableError, is_missing, keys, numbers
from lib.spec.study import RULES, Study
from lib.spec.words import count


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
    if SUMMARY + study.logged.key in runs:
        raise TableError(
            f"score: the {study.rule_words} of {study.logged.key} needs its history, and no "
            f"history row has it next to {history.attrs.get('axis', 'epoch')}. Log both in one "
            "call, set `step: _step` in the declaration, or declare `score: last`"
        )
    logged = [*keys(runs, SUMMARY), *history.columns.drop(["run_id", "epoch"])]
    logged = list(dict.fromkeys(logged))
    near = difflib.get_close_matches(study.logged.key, logged, n=1)
    raise TableError(
        f"no run has the metric {study.logged.key}. "
        + (f"Did you mean {near[0]}? " if near else "")
        + f"Set `metric:` of the declaration to one of the logged keys: {', '.join(logged)}"
    )


def no_number(study: Study, run: Mapping[str, Any]) -> bool:
    """Return whether a run's score is NaN (null in offline files) or the worst infinity.

    Such a run diverged; a missing score is a problem instead.
    """
    worst = -math.inf if study.logged.sign > 0 else math.inf
    score = run.get(SUMMARY + study.score_key(), math.nan)
    return score in (NAN, None, worst) or run.get(SUMMARY + study.logged.key) == NAN


def failed_runs(study: Study, runs: pd.DataFrame) -> pd.Series:
    """Return which runs diverged or have a score worse than the declared ``failure``."""
    failed = runs.get(f"{SUMMARY}diverged", pd.Series(False, index=runs.index)) == True  # noqa: E712
    failed |= np.array([no_number(study, run) for run in runs.to_dict("records")], dtype=bool)
    if limit := study.declaration.failure:
        scores = numbers(runs, study.score_key())
        failed |= study.logged.sign * (scores - limit.worse_than) < 0
    return failed


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
    """Return a message if some scores within [0, 100] seem to be fractions of the others' scale.

    That is, a score is at most 1, and a hundred times as much is about the median of the scores
    above 1 (a third to three times), as of accuracies of 0.93 and 94. Failed runs do not count.
    """
    if study.logged.bounds[1] != 100:
        return []
    scores = numbers(runs, study.score_key()).set_axis(runs["run_id"])
    scores = scores[~failed_runs(study, runs).to_numpy() & np.isfinite(scores)]
    usual = scores[scores > 1].median()
    found = scores[(scores <= 1) & (100 * scores).between(usual / 3, usual * 3)]
    if found.empty:
        return []
    ids = ", ".join(found.index[:5]) + ", …" * (len(found) > 5)
    return [
        f"{study.logged.key} is about {found.median():.4g} in {count(len(found), 'run')} ({ids}), "
        f"but {usual:.4g} in others"
    ]


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
