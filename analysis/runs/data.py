"""The one value that travels through the analysis: a study with its runs, as found."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs import blocks, completeness, history_scores, per_item, recipe
from analysis.runs.axis import EPOCH, label
from analysis.runs.completeness import CHECKS, Completeness
from analysis.runs.tables import CONFIG, SUMMARY, TableError, numbers, read_tables
from lib.spec.metric import Metric, count
from lib.spec.study import LEAST_EPOCHS, Study, Variant, load_study
from lib.spec.sweep import same_value, show_value


@dataclass(frozen=True)
class StudyData:
    """A study and its tables.

    ``runs``: one row per run, namespaced (analysis/runs/tables.py). ``history``: one row per epoch.
    ``per_item``: test outputs per item, or None. ``folder``: of the tables and the report.
    ``completeness``: which runs are included, and what forbids a comparison. ``axis``: the script's
    name for the axis of histories, which is the column ``epoch``. ``later``: in words, what a later
    look that is not complete lacks.
    """

    study: Study
    runs: pd.DataFrame
    history: pd.DataFrame
    per_item: pd.DataFrame | None
    completeness: Completeness
    folder: Path
    axis: str = EPOCH
    later: str = ""

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

        Averaged over blocks on the declared scale, of runs that did not fail.

        Raises:
            TableError: where the scale has no meaning for these scores.
        """
        study = self.study
        logged = self.by_block(numbers(self.included, study.score_key(rule)))
        lost = self.by_block([run in self.failures for run in self.run_ids])
        logged = np.where(lost, np.nan, logged)
        scores = logged[0]
        if len(study.blocks) > 1:
            has = [study.control is not None and study.control in v for v in study.variants]
            baseline = has.index(True) if any(has) else 0
            try:
                scores = blocks.average(logged, study.declaration.block_scale, baseline)
            except ValueError as error:
                raise TableError(f"{study.name}, block_scale: {error}") from error
        return self.with_worst(scores, study.metric)

    def with_worst(self, scores: np.ndarray, metric: Metric) -> np.ndarray:
        """Return ``scores`` (variants, seeds) of a metric with the worst one where a run failed.

        The metric's worst value; where it has none, one so much worse than all others that any
        difference from it is larger than all other differences.
        """
        worst, known = metric.worst_value, metric.sign * scores[~self.failed]
        if worst is None:
            worst = 0.0
            if len(known := known[np.isfinite(known)]):
                far = 4 * len(scores) * (np.ptp(known) or abs(known[0]) or 1.0)
                worst = metric.sign * float(known.min() - far)
        return np.where(self.failed, worst, scores)

    @cached_property
    def scores(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); a failed run has the worst score."""
        return self.scored(self.study.rule)

    @cached_property
    def trained(self) -> np.ndarray:
        """The scores by the declared rule, (variants, seeds); NaN for failed runs."""
        return np.where(self.failed, np.nan, self.scores)

    @property
    def resolution(self) -> float | None:
        """The smallest step of a score: as declared, or one test item where that is a mistake."""
        return self.resolution_of(self.study.rule)

    def resolution_of(self, rule: str) -> float | None:
        """Return the smallest step of a score by a rule, or None; a mean over epochs has less."""
        metric = self.study.metric
        if metric.resolution is not None:
            return metric.resolution / (len(self.study.blocks) * LEAST_EPOCHS[rule])
        items = self.counted_items
        return None if items is None else 1 / (items * LEAST_EPOCHS[rule])

    def has_scale(self, rule: str) -> bool:
        """Say whether scores by a rule can be averaged over blocks on the declared scale."""
        try:
            self.scored(rule)
        except TableError:
            return False
        return True

    @cached_property
    def counted_items(self) -> int | None:
        """How many test items the score counts mistakes on, where that is what it does."""
        if self.study.metric.item_score not in ("wrong", "right"):
            return None
        found = per_item.scores(self.per_item, self.study.metric, self.run_ids)
        return None if found is None else len(found)

    def has(self, key: str) -> bool:
        """Say whether every run that did not fail has a finite number under the summary ``key``."""
        known = np.isfinite(self.values(key))[~self.failed]
        return SUMMARY + key in self.runs and bool(known.size and known.all())

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


def load(study: Study, folder: Path, unequal_seeds: bool = False) -> StudyData:
    """Return a study's data from the tables in ``folder``; of planned looks the last complete one.

    ``unequal_seeds``: where some variants lack seeds, take those that all have.

    Raises:
        TableError: when a table is missing, damaged, or from another sweep.
    """
    runs, history = read_tables(folder)
    table = per_item.read(folder)
    later = ""
    for n in sorted(study.declaration.looks or {}, reverse=True):
        at = study.at_look(n)
        data = _build(at, *_without_later(at, runs, history), table, folder)
        if not data.completeness.problems:
            return replace(data, later=later)  # the last look that is complete
        earlier = [k for k in study.declaration.looks if k < n]
        own = at.seeds[max(earlier, default=0) :]  # the seeds that this look adds
        if any(e.seed in own and e.state != "missing" for e in data.completeness.entries):
            problems = data.completeness.problems
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            later = f"The look at {n} seeds is not complete: {'; '.join(problems[:3])}{more}."
    if study.declaration.looks:
        return data
    data = _build(study, runs, history, table, folder)
    if unequal_seeds and data.completeness.problems:
        return _of_complete_seeds(data) or _of_own_seeds(data) or data
    return data


def _of_complete_seeds(data: StudyData) -> StudyData | None:
    """Return the data of the seeds that every variant has; None where there is none such."""
    study, column = data.study, CONFIG + data.study.declaration.replicate
    whole = ("finished", "diverged")
    bad = [e.seed for e in data.completeness.entries if e.state not in whole]
    seeds = [one for one in study.seeds if not any(same_value(one, other) for other in bad)]
    own = data.runs[column].map(lambda one: any(same_value(one, seed) for seed in seeds))
    if not seeds:
        return None
    reason = f"{study.declaration.replicate} {', '.join(map(show_value, seeds))}"
    return _restricted(data, replace(study, seeds=seeds), data.runs[own.astype(bool)], reason)


def _of_own_seeds(data: StudyData) -> StudyData | None:
    """Return the data of variants that have seeds of their own, equally many; they are no pairs."""
    study = data.study
    renamed, sizes = _numbered(study, data.runs.sort_values("run_id"))
    if len(set(sizes)) != 1 or sizes[0] < 2 or not study.factor_keys:
        return None
    renamed = renamed[renamed["state"] == "finished"]
    seeds = list(range(sizes[0]))
    reason = "each variant has seeds of its own, so none are pairs"
    found = _restricted(data, replace(study, seeds=seeds), renamed, reason)
    if found is None:
        return None
    unpaired = [reason, *found.completeness.unpaired]
    return replace(found, completeness=replace(found.completeness, unpaired=unpaired))


def _numbered(study: Study, runs: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Return ``runs``, those of each variant and block numbered from 0 as replicates.

    In the order of the table; and how many each variant and block has. Only finished runs that have
    the study's settings count: the others have no number.
    """
    column = CONFIG + study.declaration.replicate
    keys = [*study.factor_keys, *study.block_keys, *study.fixed]
    numbered = pd.Series(np.nan, index=runs.index, dtype=object)
    if lacking := [key for key in keys if CONFIG + key not in runs]:
        return runs.assign(**{column: numbered}), [0] * bool(lacking)  # completeness says so
    sizes = []
    for block, variant in itertools.product(study.blocks, study.variants):
        own = runs["state"] == "finished"
        for key, level in (study.fixed | study.configs[variant] | block).items():
            own &= runs[CONFIG + key].map(lambda value, one=level: same_value(value, one))
        sizes.append(int(own.sum()))
        numbered[own] = list(range(sizes[-1]))
    return runs.assign(**{column: numbered}), sizes


def _repeated(study: Study, runs: pd.DataFrame) -> tuple[Study, pd.DataFrame, list[str]]:
    """Return the study and table of runs that are replicates in the order of their creation.

    Also, in words, which unfinished runs do not count.
    """
    found, sizes = _numbered(study, runs.sort_values(["created", "run_id"]))
    left = runs[runs["state"] != "finished"].sort_values("run_id")
    found = found[found["state"] == "finished"]
    reason = [f"run {r} is {s} and does not count" for r, s in left[["run_id", "state"]].to_numpy()]
    return replace(study, seeds=list(range(max(sizes, default=1)))), found, reason


def _restricted(data: StudyData, study: Study, runs: pd.DataFrame, reason: str) -> StudyData | None:
    """Return the data of some runs, the check `seeds` to be waived; None if they are faulty."""
    history = data.history[data.history["run_id"].isin(runs["run_id"])]
    history.attrs |= data.history.attrs
    found = _build(study, runs, history, data.per_item, data.folder)
    if found.completeness.problems:
        return None
    left = sorted(set(data.runs["run_id"]) - set(runs["run_id"]))
    out = f"left out: {', '.join(left)}" if left else "no run is left out"
    lacking = data.completeness.problems
    more = f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
    text = f"{CHECKS['seeds']}: {reason}; {out} ({'; '.join(lacking[:6])}{more})"
    waivable = {"seeds": text} | found.completeness.waivable
    repeated = list(dict.fromkeys([*data.completeness.repeated, *found.completeness.repeated]))
    checked = replace(found.completeness, waivable=waivable, repeated=repeated)
    return replace(found, completeness=checked)


def _without_later(
    study: Study, runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables without the runs of seeds that a later look will see."""
    column = CONFIG + study.declaration.replicate
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
    study = replace(study, by_step=axis != EPOCH)
    runs, reason = history_scores.add(study, runs, history), []
    if study.declaration.repeats and not study.seeds:
        study, runs, reason = _repeated(study, runs)
        history = history[history["run_id"].isin(runs["run_id"])]
    found = completeness.check(study, runs, history, axis)
    study = _with_digits(study, runs, found)
    if study.declaration.repeats:
        unpaired = ["the replicates are runs in the order of their creation, so none are pairs"]
        found = replace(found, unpaired=unpaired, repeated=[*found.repeated, *reason])
    return StudyData(study, runs, history, table, found, folder, axis)


def _with_digits(study: Study, runs: pd.DataFrame, found: Completeness) -> Study:
    """Return the study with a metric whose digits tell the included scores apart."""
    well = [run for entry in found.entries if entry.state == "finished" for run in entry.runs]
    scores = numbers(runs[runs["run_id"].isin(well)], study.score_key()).to_numpy(float)
    logged = study.logged.fitting(scores, study.smallest_effect)
    same = study.metric == study.logged
    return replace(study, metric=logged if same else study.metric, logged=logged)


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


def unused_items(data: StudyData) -> str:
    """Say why the runs' test outputs per item are not used, or nothing where they are or are not.

    Their means must be the logged scores: else the table is cut, or of another metric or unit.
    """
    found = per_item.scores(data.per_item, data.study.metric, data.run_ids)
    if found is None or len(data.study.blocks) > 1 or test_scores(data) is not None:
        return ""
    logged = numbers(data.included, data.study.metric.key)
    gaps = (found.mean() - logged).abs()
    run = gaps.idxmax()
    return (
        "The test outputs per item are not used: their means are not the logged scores (run "
        f"{run}: {found[run].mean():.6g} over {len(found):,} items, logged {logged[run]:.6g}). "
        "They are of another metric or unit, or test_images.csv was cut: fetch the study again."
    )


def sibling(study: Study, name: str) -> StudyData | None:
    """Return the data of another study that ``study`` names, or None where it has no tables.

    Its parts are where ``study`` has its own.
    """
    folder = study.places.tables(name)
    return load(load_study(name, study.places), folder) if (folder / "runs.csv").exists() else None
