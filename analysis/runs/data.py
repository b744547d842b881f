"""StudyData, the input of the whole analysis: a study with its tables of runs."""

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
from lib.spec.sweep import same_value


@dataclass(frozen=True)
class StudyData:
    """A study and its tables.

    ``runs``: one row per run, with namespaced columns (analysis/runs/tables.py). ``history``: one
    row per run and epoch. ``per_item``: test outputs per item, or None. ``completeness``: the
    included runs, and problems that prevent a comparison. ``folder``: of the tables and the report.
    ``axis``: the script's name for the axis in the history column ``epoch``. ``later``: a message
    about a later look that is incomplete, or empty.
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

        This is the metric's worst value. If the metric has none, it is a value so bad that any
        difference from it exceeds all other differences.
        """
        worst, valid = metric.worst_value, metric.sign * scores[~self.failed]
        if worst is None:
            worst = 0.0
            if len(valid := valid[np.isfinite(valid)]):
                gap = 4 * len(scores) * (np.ptp(valid) or abs(valid[0]) or 1.0)
                worst = metric.sign * float(valid.min() - gap)
        return np.where(self.failed, worst, scores)

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
        metric = self.study.metric
        if metric.resolution is not None:
            return metric.resolution / (len(self.study.blocks) * LEAST_EPOCHS[rule])
        items = self.counted_items
        return None if items is None else 1 / (items * LEAST_EPOCHS[rule])

    def has_scale(self, rule: str) -> bool:
        """Return whether scores by a rule can be averaged over blocks on the declared scale."""
        try:
            self.scored(rule)
        except TableError:
            return False
        return True

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
        """The length of a run as text: "4 epochs"; "2 or 8 epochs" if epochs are a factor."""
        if self.axis != EPOCH:
            return f"{self.completeness.epochs:,} {label(self.axis).lower().removesuffix('s')}s"
        if len(self.lengths) > 1:
            return f"{' or '.join(map(str, self.lengths))} epochs"
        return count(self.lengths[0], "epoch")

    @property
    def lengths(self) -> list[int]:
        """The numbers of epochs of a run, sorted; a single one, unless epochs are a factor."""
        levels = {config.get("epochs") for config in self.study.configs.values()} - {None}
        return sorted(levels) or [self.completeness.epochs]

    def applies(self, rule: str) -> bool:
        """Return whether runs are long enough for a score rule: a mean of 5 epochs needs 5."""
        return self.axis != EPOCH or self.lengths[0] >= LEAST_EPOCHS[rule]

    @property
    def item(self) -> str:
        """The name of a test item, as logged by the runs, or "test item"."""
        column = f"{SUMMARY}test_item"
        names = set(self.included[column].dropna()) if column in self.runs else set()
        return str(names.pop()) if len(names) == 1 else "test item"


def load(study: Study, folder: Path, unequal_seeds: bool = False) -> StudyData:
    """Return a study's data from the tables in ``folder``; with looks, of the last complete look.

    ``unequal_seeds``: if some variants have missing seeds, use only the seeds that all variants
    have, or unpaired seeds if each variant has its own.

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
            return replace(data, later=later)  # the last complete look
        earlier = [k for k in study.declaration.looks if k < n]
        added = at.seeds[max(earlier, default=0) :]  # the seeds that this look adds
        if any(e.seed in added and e.state != "missing" for e in data.completeness.entries):
            problems = _first(completeness.summarize_problems(at, data.completeness), 3)
            later = f"The look at {n} seeds is incomplete: {problems}."
    if study.declaration.looks:
        return data
    data = _build(study, runs, history, table, folder)
    if unequal_seeds and data.completeness.problems:
        return _with_complete_seeds(data) or _with_own_seeds(data) or data
    return data


def _with_complete_seeds(data: StudyData) -> StudyData | None:
    """Return the data of the seeds that every variant has; None if there are none."""
    study, column = data.study, CONFIG + data.study.declaration.replicate
    valid = ("finished", "diverged")
    incomplete = [e.seed for e in data.completeness.entries if e.state not in valid]
    seeds = [s for s in study.seeds if not any(same_value(s, other) for other in incomplete)]
    kept = data.runs[column].map(lambda value: any(same_value(value, seed) for seed in seeds))
    if not seeds:
        return None
    verb = "is" if len(seeds) == 1 else "are"
    text = f"only {completeness.name_seeds(study, seeds)} {verb} compared"
    return _restricted(data, replace(study, seeds=seeds), data.runs[kept.astype(bool)], text)


def _with_own_seeds(data: StudyData) -> StudyData | None:
    """Return unpaired data if each variant has its own seeds, of equal number; otherwise None."""
    study = data.study
    renamed, sizes = _numbered(study, data.runs.sort_values("run_id"))
    if len(set(sizes)) != 1 or sizes[0] < 2 or not study.factor_keys:
        return None
    renamed = renamed[renamed["state"] == "finished"]
    seeds = list(range(sizes[0]))
    text = "each variant has its own seeds"
    compared = f"{text}, so the comparison is unpaired"
    restricted = _restricted(data, replace(study, seeds=seeds), renamed, compared)
    if restricted is None:
        return None
    unpaired = [text, *restricted.completeness.unpaired]
    return replace(restricted, completeness=replace(restricted.completeness, unpaired=unpaired))


def _numbered(study: Study, runs: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Return ``runs`` with replicates numbered from 0 within each variant and block.

    Numbers follow the order of the table. Only finished runs with the study's settings get a
    number. Also returns the number of replicates of each variant and block.
    """
    column = CONFIG + study.declaration.replicate
    keys = [*study.factor_keys, *study.block_keys, *study.fixed]
    numbered = pd.Series(np.nan, index=runs.index, dtype=object)
    if not all(CONFIG + key in runs for key in keys):
        return runs.assign(**{column: numbered}), [0]  # completeness.check reports these keys
    sizes = []
    for block, variant in itertools.product(study.blocks, study.variants):
        matches = runs["state"] == "finished"
        for key, level in (study.fixed | study.configs[variant] | block).items():
            matches &= runs[CONFIG + key].map(lambda value, one=level: same_value(value, one))
        sizes.append(int(matches.sum()))
        numbered[matches] = list(range(sizes[-1]))
    return runs.assign(**{column: numbered}), sizes


def _repeated(study: Study, runs: pd.DataFrame) -> tuple[Study, pd.DataFrame, list[str]]:
    """Return the study and its finished runs, numbered as replicates in the order of creation.

    Also returns messages about the excluded unfinished runs.
    """
    numbered, sizes = _numbered(study, runs.sort_values(["created", "run_id"]))
    unfinished = runs[runs["state"] != "finished"].sort_values("run_id")
    numbered = numbered[numbered["state"] == "finished"]
    messages = [f"run {r} is {s}" for r, s in unfinished[["run_id", "state"]].to_numpy()]
    return replace(study, seeds=list(range(max(sizes, default=1)))), numbered, messages


def _restricted(data: StudyData, study: Study, runs: pd.DataFrame, text: str) -> StudyData | None:
    """Return the data of some of the runs, with `seeds` as a failed check; None if they are faulty.

    ``text``: which seeds are compared.
    """
    history = data.history[data.history["run_id"].isin(runs["run_id"])]
    history.attrs |= data.history.attrs
    restricted = _build(study, runs, history, data.per_item, data.folder)
    if restricted.completeness.problems:
        return None
    ids = sorted(set(data.runs["run_id"]) - set(runs["run_id"]))
    excluded = f"excluded runs: {', '.join(ids)}" if ids else "no runs are excluded"
    problems = _first(completeness.summarize_problems(data.study, data.completeness), 6)
    message = f"{CHECKS['seeds']} ({problems}); {text}; {excluded}"
    waivable = {"seeds": message} | restricted.completeness.waivable
    repeated = [*data.completeness.repeated, *restricted.completeness.repeated]
    repeated = list(dict.fromkeys(repeated))
    checked = replace(restricted.completeness, waivable=waivable, repeated=repeated)
    return replace(restricted, completeness=checked)


def _first(problems: Sequence[str], number: int) -> str:
    """Return the first ``number`` problems as text, and how many more there are."""
    more = f" and {len(problems) - number} more" if len(problems) > number else ""
    return f"{'; '.join(problems[:number])}{more}"


def _without_later(
    study: Study, runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables without the seeds that belong to a later look."""
    column = CONFIG + study.declaration.replicate
    if column not in runs:
        return runs, history
    later = runs[column].map(lambda value: any(same_value(value, seed) for seed in study.later))
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
    runs, excluded = history_scores.add(study, runs, history), []
    if study.declaration.repeats and not study.seeds:
        study, runs, excluded = _repeated(study, runs)
        history = history[history["run_id"].isin(runs["run_id"])]
    found = completeness.check(study, runs, history, axis)
    study = _with_digits(study, runs, found)
    if study.declaration.repeats:
        unpaired = ["replicates are numbered in the order of creation"]
        found = replace(found, unpaired=unpaired, repeated=[*found.repeated, *excluded])
    return StudyData(study, runs, history, table, found, folder, axis)


def _with_digits(study: Study, runs: pd.DataFrame, found: Completeness) -> Study:
    """Return the study with enough decimals in its metric to distinguish the included scores."""
    ids = [run for entry in found.entries if entry.state == "finished" for run in entry.runs]
    scores = numbers(runs[runs["run_id"].isin(ids)], study.score_key()).to_numpy(float)
    logged = study.logged.fitting(scores, study.smallest_effect)
    same = study.metric == study.logged
    return replace(study, metric=logged if same else study.metric, logged=logged)


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


def sibling(study: Study, name: str) -> StudyData | None:
    """Return the data of another study that ``study`` refers to, or None if it has no tables.

    The other study is looked up in the same folders as ``study``.
    """
    folder = study.places.tables(name)
    return load(load_study(name, study.places), folder) if (folder / "runs.csv").exists() else None
