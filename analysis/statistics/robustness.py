"""Would another choice have led elsewhere? Other score rules, scales, metrics and test images."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.grid import RULES, Study, Sweep
from analysis.runs import per_item
from analysis.runs.completeness import Ledger, scores
from analysis.statistics import contrasts
from analysis.statistics.contrasts import Tested

UNKNOWN = "How the difference would vary with other test images is not known here"
SEVERAL_OF_ONE_SIGN = (
    "Which test images show the same sign is not published: each counts as independent, and where "
    "several show one sign the interval is too narrow."
)
ONE_OF_EACH_PATIENT = "Each patient has one image."
PUBLISHED_STAYS = (
    "The published score stays as it is in this interval, although on other images it would have "
    "been another."
)

Scores = dict[tuple, list[float]]


def conclusion(tested: Tested, study: Study) -> int:
    """Return -1 or 1, the direction of a difference with Holm p below alpha, or 0."""
    return int(np.sign(tested.interval.estimate)) if tested.p_holm < study.alpha else 0


def other_rules(
    sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame
) -> dict[str, list[Tested]]:
    """Test the same contrasts under the score rules not declared, those that all runs have.

    ``runs``: those that count.
    """
    tested = {}
    for rule in RULES:
        column = study.score_column(rule)
        known = column in runs and np.isfinite(pd.to_numeric(runs[column], errors="coerce")).all()
        if rule != study.score_rule and known:
            built = contrasts.build(sweep, study, scores(sweep, ledger, runs, column))
            tested[rule] = contrasts.test(built, study.alpha, not ledger.unpaired)
    return tested


def log_scale(values: np.ndarray, study: Study) -> np.ndarray:
    """Return log10 of an error in percent, or the logit of a score between 0 and 1.

    An error of 0 counts as half of the least other one; scores are kept 1e-9 from 0 and 1.
    """
    if study.percent:
        floor = values[values > 0].min() / 2 if (values > 0).any() else 1.0
        return np.log10(100 * np.maximum(values, floor))
    clipped = np.clip(values, 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def log_scale_name(study: Study) -> str:
    """Name the scale of ``log_scale``."""
    return f"log10 of {study.quantity} in %" if study.percent else f"logit of {study.quantity}"


def on_log_scale(sweep: Sweep, study: Study, values: Scores, paired: bool) -> list[Tested]:
    """Test the same contrasts on ``log_scale``: an interaction may exist on one scale only."""
    table = log_scale(np.array([values[cell] for cell in sweep.cells]), study)
    transformed = {cell: list(row) for cell, row in zip(sweep.cells, table, strict=True)}
    return contrasts.test(contrasts.build(sweep, study, transformed), study.alpha, paired)


def exploratory(
    sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame
) -> list[dict[str, Any]]:
    """Test the contrasts on every other metric that all runs have at the last epoch.

    Not corrected, not declared: p-values that may raise a question, never answer one. None where
    the contrasts are with published scores, which are of the study's own metric.
    """
    rows = []
    if study.references:
        return rows
    for column in sorted(runs.columns):
        suffixed = column.endswith(("_at_best_val", "_mean_last_5"))
        if not column.startswith(("train/", "val/", "test/")) or suffixed or column == study.metric:
            continue
        values = pd.to_numeric(runs[column], errors="coerce")
        if not np.isfinite(values).all() or values.nunique() < 2:
            continue
        built = contrasts.build(sweep, study, scores(sweep, ledger, runs, column))
        rows += [
            {
                "metric": column,
                "name": t.contrast.name,
                "difference": t.interval.estimate,
                "ci_low": t.interval.low,
                "ci_high": t.interval.high,
                "p": t.test.p,
                "runs": ledger.counting,
            }
            for t in contrasts.test(built, study.alpha, not ledger.unpaired)
        ]
    return rows


def over_test_set(
    sweep: Sweep, study: Study, ledger: Ledger, table: pd.DataFrame | None, paired: list[bool]
) -> tuple[list[tuple[float, float]] | None, str]:
    """Return each contrast's interval over test images, or None, and a sentence about them.

    Runs save their outputs at the last epoch, so a study that scores another one has none.
    ``paired``: whether the seeds are pairs, for each contrast.
    """
    if table is None:
        return None, f"{UNKNOWN}: the runs kept no output per image."
    if study.score_rule != "last":
        return None, f"{UNKNOWN}: the outputs per image are of the last epoch, the score is not."
    per_run = per_item.scores(table, study, ledger.counting)
    if per_run is None or len(per_run) < 20:
        return None, f"{UNKNOWN}: the runs kept no output per image of this metric that all share."
    per_cell = {cell: per_run[ledger.runs(cell)].to_numpy(dtype=float) for cell in sweep.cells}
    intervals = contrasts.over_images(sweep, study, per_cell, paired)
    about = SEVERAL_OF_ONE_SIGN if "label" in table else ONE_OF_EACH_PATIENT
    return intervals, f"{about} {PUBLISHED_STAYS}" if study.references else about


def collapsed(ledger: Ledger, table: pd.DataFrame | None) -> list[str]:
    """Return the finished runs that take every test image for one and the same class."""
    if table is None or "label" not in table:
        return []
    finished = [r for e in ledger.entries if e.state == "finished" for r in e.runs]
    return [run for run in finished if run in table and table[run].nunique() == 1]
