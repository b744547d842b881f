"""StudyData, the input of the whole analysis: a study with its tables of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs import blocks, per_item, recipe
from analysis.runs.axis import EPOCH, label
from analysis.runs.completeness import Completeness
from analysis.runs.tables import SUMMARY, TableError, numbers
from lib.spec.metric import Metric
from lib.spec.study import LEAST_EPOCHS, Study, Variant
from lib.spec.words import count


@dataclass(frozen=True)
class StudyData:
    """A study and its tables.

    ``runs``: one row per run, with namespaced columns (analysis/runs/tables.py). ``history``: one
    row per run and epoch. ``per_item``: test outputs per item, or None. ``completeness``: the
    included runs, and problems that prevent a comparison. ``folder``: holds tables and report.
    ``axis``: the script's name for the axis in the history column ``epoch``. ``later``: a message
    about a later look that is incomplete, or empty. ``replaced``: the runs whose summary has the
    best score of the history, so that the last one was taken from the history; ``unlike_last``:
    those whose summary has another score than the last or the best one, which was kept.
    """

    study: Study
    runs: pd.DataFrame
    history: pd.DataFrame
    per_item: pd.DataFrame | None
    completeness: Completeness
    folder: Path
    axis: str = EPOCH
    later: str = ""
    replaced: Sequence[str] = ()
    unlike_last: Sequence[str] = ()

    @cached_property
    def included(self) -> pd.DataFrame:
        """The rows of the included runs, by block, variant and seed."""
        return self.runs.set_index("run_id", drop=False).loc[self.completeness.included]

    @property
    def run_ids(self) -> list[str]:
        """The ids of the included runs, by block, variant and seed."""
        return self.completeness.included

    def runs_of(self, variant: Variant) -> list[str]:
        """Return the ids of a variant's runs, by seed."""
        return self.completeness.runs(variant)

    def by_block(self, values: Sequence[Any]) -> np.ndarray:
        """Return one value per included run as an array (blocks, variants, seeds)."""
        study = self.study
        shape = len(study.blocks), len(study.variants), len(study.seeds)
        return np.asarray(values).reshape(shape)

    def values(self, key: str) -> np.ndarray:
        """Return the summary ``key``, averaged over blocks, (variants, seeds).

        NaN where it is missing or not a number.
        """
        return self.by_block(numbers(self.included, key)).mean(axis=0)

    @cached_property
    def failures(self) -> dict[str, str]:
        """Why runs failed, by the ids of the failed runs.

        A run has failed if it diverged, if it predicts one class for every test item (collapsed),
        or if its score is worse than the declared ``failure``.
        """
        causes = {}
        limit, metric = self.study.declaration.failure, self.study.logged
        scores = numbers(self.included, self.study.score_key())
        for entry in self.completeness.entries:
            for run in entry.runs:
                if entry.state == "diverged":
                    causes[run] = "diverged"
                elif per_item.collapsed(self.per_item, run):
                    causes[run] = "collapsed"
                elif limit and metric.sign * (scores[run] - limit.worse_than) < 0:
                    causes[run] = f"worse than {metric.show_with_unit(limit.worse_than)}"
        return causes

    @cached_property
    def failed(self) -> np.ndarray:
        """Whether a run failed in any block, bool (variants, seeds)."""
        return self.by_block([run in self.failures for run in self.run_ids]).any(axis=0)

    def scored(self, rule: str) -> np.ndarray:
        """Return the scores by a score rule, averaged over blocks, (variants, seeds).

        The average is on the declared scale. A variant and seed with a failed run has the worst
        score.

        Raises:
            TableError: when these scores cannot be averaged on the declared scale.
        """
        study = self.study
        logged = self.by_block(numbers(self.included, study.score_key(rule)))
        failed = self.by_block([run in self.failures for run in self.run_ids])
        logged = np.where(failed, np.nan, logged)
        scores = logged[0]
        if len(study.blocks) > 1:
            controls = [study.control is not None and study.control in v for v in study.variants]
            baseline = controls.index(True) if any(controls) else 0
            try:
                scores = blocks.average(logged, study.declaration.block_scale, baseline)
            except ValueError as error:
                raise TableError(f"{study.name}, block_scale: {error}") from error
        return self.with_worst(scores, study.metric)

    def with_worst(self, scores: np.ndarray, metric: Metric) -> np.ndarray:
        """Return ``scores`` (variants, seeds) with the worst score where a run failed.

        See the function ``with_worst``.
        """
        published = list(self.study.declaration.published_scores.values())
        return with_worst(scores, self.failed, metric, published)

    @cached_property
    def scores(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); failed runs have the worst score."""
        return self.scored(self.study.rule)

    @cached_property
    def trained(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); NaN for failed runs."""
        return np.where(self.failed, np.nan, self.scores)

    @property
    def resolution(self) -> float | None:
        """The smallest step of a score: as declared, else one item of an error rate, else None."""
        return self.resolution_of(self.study.rule)

    def resolution_of(self, rule: str) -> float | None:
        """Return the smallest step of a score by a rule, or None; finer for a mean over epochs."""
        step, items = self.study.metric.resolution, self.counted_items
        if step is None and items is not None:
            step = 1 / items
        return None if step is None else step / (len(self.study.blocks) * LEAST_EPOCHS[rule])

    def has_scale(self, rule: str) -> bool:
        """Return whether scores by a rule can be averaged over blocks on the declared scale."""
        try:
            self.scored(rule)
        except TableError:
            return False
        return True

    @property
    def splits_by_seed(self) -> bool:
        """Whether runs of different seeds logged different splits of the data."""
        column = f"{SUMMARY}split_sha256"
        if column not in self.included or self.study.declaration.unit != "seed":
            return False
        return self.included[column].nunique() > 1

    @cached_property
    def counted_items(self) -> int | None:
        """The number of test items, if the score is an error rate or accuracy; otherwise None."""
        if self.study.metric.item_score not in ("wrong", "right"):
            return None
        scores = per_item.scores(self.per_item, self.study.metric, self.run_ids)
        return None if scores is None else len(scores)

    def has(self, key: str) -> bool:
        """Return whether all runs that did not fail have a finite number in the summary ``key``."""
        finite = np.isfinite(self.values(key))[~self.failed]
        return SUMMARY + key in self.runs and bool(finite.size and finite.all())

    @property
    def paired(self) -> bool:
        """Whether runs of one seed are pairs."""
        return not self.completeness.unpaired

    @cached_property
    def recipe(self) -> dict[str, object]:
        """The config values that all included runs share."""
        return recipe.recipe(self.study, self.included)

    @property
    def budget(self) -> str:
        """The length of a run as text: "4 epochs"; "2 or 8 epochs" if epochs are a factor.

        "unknown length" without a history, as in an export of the runs table alone.
        """
        if self.axis != EPOCH:
            most = "up to " * ("epochs" in self.completeness.waivable)
            unit = label(self.axis).lower().removesuffix("s")
            return f"{most}{self.completeness.epochs:,} {unit}s"
        if len(self.lengths) > 1:
            return f"{' or '.join(map(str, self.lengths))} epochs"
        if not self.lengths[0]:
            return "unknown length"
        if "epochs" in self.completeness.waivable:
            return f"up to {count(self.lengths[0], 'epoch')}"
        return count(self.lengths[0], "epoch")

    @property
    def lengths(self) -> list[int]:
        """The numbers of epochs of a run, sorted; a single one, unless epochs are a factor.

        As configured, since the last evaluation may be earlier; else the last epoch that a run
        logged. 0 if it is unknown.
        """
        levels = {config.get("epochs") for config in self.study.configs.values()} - {None}
        configured = self.recipe.get("epochs")
        known = isinstance(configured, int) and not isinstance(configured, bool)
        return sorted(levels) or [configured if known else self.completeness.epochs]

    def applies(self, rule: str) -> bool:
        """Return whether runs are long enough for a score rule: a mean of 5 epochs needs 5.

        True if their length is unknown: whether all runs have the score is checked elsewhere.
        """
        return self.axis != EPOCH or not 0 < self.lengths[0] < LEAST_EPOCHS[rule]

    @property
    def item(self) -> str:
        """The name of a test item, as logged by the runs, or "test item"."""
        column = f"{SUMMARY}test_item"
        names = set(self.included[column].dropna()) if column in self.runs else set()
        return str(names.pop()) if len(names) == 1 else "test item"


def with_worst(
    scores: np.ndarray, failed: np.ndarray, metric: Metric, others: Sequence[float] = ()
) -> np.ndarray:
    """Return ``scores`` with the worst rank where a run ``failed``, (variants, seeds) each.

    ``others``: values that they are compared with, such as published scores.

    A signed-rank test ranks differences by their size, so the score of a failed run is so bad that
    any difference from it exceeds all differences without it. The metric's worst value may not be
    (an accuracy of 0 where others have 0.1), or be so large that rounding errors tie other scores
    (see contrasts.tolerance); it is used only if all runs failed.
    """
    worst, valid = metric.worst_value, metric.sign * np.append(scores[~failed], others)
    valid = valid[np.isfinite(valid)]
    if len(valid):
        gap = 4 * len(scores) * (np.ptp(valid) or abs(valid[0]) or 1.0)
        # Rounded to float32, so that it has no other rounding than float32 scores have.
        worst = metric.sign * float(np.float32(valid.min() - gap))
    return np.where(failed, 0.0 if worst is None else worst, scores)


def test_scores(data: StudyData) -> pd.DataFrame | None:
    """Return the study's metric per test item (items, included runs), at the last epoch.

    None if the runs saved no outputs, if the study has blocks, or if the means over items differ
    from the logged scores, as for another metric or unit.
    """
    if len(data.study.blocks) > 1:
        return None
    scores = per_item.scores(data.per_item, data.study.metric, data.run_ids)
    if scores is None:
        return None
    logged = numbers(data.included, data.study.metric.key)
    diverged = [e.runs[0] for e in data.completeness.entries if e.state == "diverged"]
    kept = [run for run in data.run_ids if run not in diverged]
    same = np.allclose(scores[kept].mean(), logged[kept], rtol=1e-6, atol=1e-9)
    return scores if same else None


def unused_items(data: StudyData) -> str:
    """Return why per-item test outputs are not used; empty if they are used or do not exist."""
    scores = per_item.scores(data.per_item, data.study.metric, data.run_ids)
    if scores is None or len(data.study.blocks) > 1 or test_scores(data) is not None:
        return ""
    logged = numbers(data.included, data.study.metric.key)
    gaps = (scores.mean() - logged).abs()
    run = gaps.idxmax()
    return (
        "The per-item test outputs are not used because their means differ from the logged scores "
        f"(run {run}: {scores[run].mean():.6g} over {len(scores):,} items, logged "
        f"{logged[run]:.6g}). They have another metric or unit, or test_images.csv is truncated; "
        "fetch the study again."
    )
