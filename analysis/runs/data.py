"""The one value that travels through the analysis: a study with its runs, as found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs import blocks, completeness, per_item, recipe
from analysis.runs.axis import EPOCH, label
from analysis.runs.completeness import Completeness
from analysis.runs.tables import CONFIG, SUMMARY, TableError, numbers, read_tables
from lib.spec.metric import count
from lib.spec.study import LEAST_EPOCHS, Study, Variant, load_study
from lib.spec.sweep import same_value


@dataclass(frozen=True)
class StudyData:
    """A study and its tables.

    ``runs``: one row per run, namespaced (analysis/runs/tables.py); ``history``: one row per epoch;
    ``per_item``: test outputs per item, or None; ``folder``: where the tables are and the report
    goes; ``completeness``: which runs are included, and what forbids a comparison; ``axis``: what
    the script calls the history's axis, the column ``epoch``.
    """

    study: Study
    runs: pd.DataFrame
    history: pd.DataFrame
    per_item: pd.DataFrame | None
    completeness: Completeness
    folder: Path
    axis: str = EPOCH

    @cached_property
    def included(self) -> pd.DataFrame:
        """The rows of the runs that are included, by variant and seed."""
        return self.runs.set_index("run_id", drop=False).loc[self.completeness.included]

    @property
    def run_ids(self) -> list[str]:
        """The ids of the runs that are included, by variant and seed."""
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
        """Return the summary ``key`` by variant and seed, (variants, seeds), averaged over blocks.

        NaN where it is no number.
        """
        return self.by_block(numbers(self.included, key)).mean(axis=0)

    @cached_property
    def failures(self) -> dict[str, str]:
        """Why a run failed, by the ids of those that did.

        A run fails when it diverged, when it predicts one class for every test item (collapsed), or
        when its score is worse than the declared ``failure``.
        """
        found = {}
        limit, metric = self.study.declaration.failure, self.study.logged
        scores = numbers(self.included, self.study.score_key())
        for entry in self.completeness.entries:
            for run in entry.runs:
                if entry.state == "diverged":
                    found[run] = "diverged"
                elif per_item.collapsed(self.per_item, run):
                    found[run] = "collapsed"
                elif limit and metric.sign * (scores[run] - limit.worse_than) < 0:
                    found[run] = f"worse than {metric.show_with_unit(limit.worse_than)}"
        return found

    @cached_property
    def failed(self) -> np.ndarray:
        """Where a run failed, in any block (bool), (variants, seeds)."""
        return self.by_block([run in self.failures for run in self.run_ids]).any(axis=0)

    def scored(self, rule: str) -> np.ndarray:
        """Return the scores by a rule, (variants, seeds); where a run failed, the worst score.

        Averaged over blocks on the declared scale. The worst is the metric's worst value, or where
        it has none the worst score of all.
        """
        study, metric = self.study, self.study.metric
        logged = self.by_block(numbers(self.included, study.score_key(rule)))
        scores = logged[0]
        if len(study.blocks) > 1:
            try:
                scores = blocks.average(logged, study.declaration.block_scale)
            except ValueError as error:
                raise TableError(f"{study.name}, block_scale: relative: {error}") from error
        worst = metric.worst_value
        if worst is None:
            worst = metric.sign * np.nanmin(metric.sign * scores)
        return np.where(self.failed, worst, scores)

    @cached_property
    def scores(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); a failed run has the worst score."""
        return self.scored(self.study.rule)

    @cached_property
    def trained(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); NaN for failed runs."""
        return np.where(self.failed, np.nan, self.scores)

    @cached_property
    def resolution(self) -> float | None:
        """The smallest step of a score: as declared, or one test item where that is a mistake."""
        metric = self.study.metric
        if metric.resolution is not None or metric.item_score not in ("wrong", "right"):
            return metric.resolution and metric.resolution / len(self.study.blocks)
        found = per_item.scores(self.per_item, metric, self.run_ids)
        return None if found is None else 1 / (len(found) * LEAST_EPOCHS[self.study.rule])

    def has(self, key: str) -> bool:
        """Say whether every included run has a finite number under the summary ``key``."""
        return SUMMARY + key in self.runs and bool(np.isfinite(self.values(key)).all())

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
        """The epochs of a run in words: "4 epochs"; "2 or 8 epochs" where they are a factor."""
        if self.axis != EPOCH:
            return f"{self.completeness.epochs:,} {label(self.axis).lower().removesuffix('s')}s"
        if len(self.lengths) > 1:
            return f"{' or '.join(map(str, self.lengths))} epochs"
        return count(self.lengths[0], "epoch")

    @property
    def lengths(self) -> list[int]:
        """How many epochs a run has, sorted; one number, unless they are a factor."""
        levels = {config.get("epochs") for config in self.study.configs.values()} - {None}
        return sorted(levels) or [self.completeness.epochs]

    def applies(self, rule: str) -> bool:
        """Whether runs are long enough for a score rule: a mean of five epochs needs five."""
        return self.axis != EPOCH or self.lengths[0] >= LEAST_EPOCHS[rule]

    @property
    def item(self) -> str:
        """What a test item is called: what the runs say, else "test item"."""
        column = f"{SUMMARY}test_item"
        found = set(self.included[column].dropna()) if column in self.runs else set()
        return str(found.pop()) if len(found) == 1 else "test item"


def load(study: Study, folder: Path) -> StudyData:
    """Return a study's data from the tables in ``folder``; of planned looks the last complete one.

    Raises:
        TableError: when a table is missing, damaged, or from another sweep.
    """
    runs, history = read_tables(folder)
    table = per_item.read(folder)
    for n in sorted(study.declaration.looks or {}, reverse=True):
        at = study.at_look(n)
        data = _build(at, *_without_later(at, runs, history), table, folder)
        if not data.completeness.problems:
            return data  # the last look that is complete
    if study.declaration.looks:
        return data
    return _build(study, runs, history, table, folder)


def _without_later(
    study: Study, runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables without the runs of seeds that a later look will see."""
    column = CONFIG + study.declaration.seed
    if column not in runs:
        return runs, history
    later = runs[column].map(lambda one: any(same_value(one, seed) for seed in study.later))
    runs = runs[~later.astype(bool)]
    kept = history[history["run_id"].isin(runs["run_id"])]
    kept.attrs |= history.attrs
    return runs, kept


def _build(
    study: Study,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    table: pd.DataFrame | None,
    folder: Path,
) -> StudyData:
    axis = history.attrs.get("axis", EPOCH)
    found = completeness.check(study, runs, history, axis)
    return StudyData(study, runs, history, table, found, folder, axis)


def test_scores(data: StudyData) -> pd.DataFrame | None:
    """Return the study's metric per test item (items, included runs), at the last epoch.

    None where the runs saved none, where blocks have items of their own, or where their means are
    not the scores that the runs logged: then they are of another metric or in another unit.
    """
    if len(data.study.blocks) > 1:
        return None
    found = per_item.scores(data.per_item, data.study.metric, data.run_ids)
    if found is None:
        return None
    logged = numbers(data.included, data.study.metric.key)
    diverged = [e.runs[0] for e in data.completeness.entries if e.state == "diverged"]
    kept = [run for run in data.run_ids if run not in diverged]
    same = np.allclose(found[kept].mean(), logged[kept], rtol=1e-6, atol=1e-9)
    return found if same else None


def sibling(study: Study, name: str) -> StudyData | None:
    """Return the data of another study that ``study`` names, or None where it has no tables.

    Its parts are where ``study`` has its own.
    """
    folder = study.places.tables(name)
    return load(load_study(name, study.places), folder) if (folder / "runs.csv").exists() else None
