"""Load a study's tables as StudyData, also with unequal seeds, repeats or a later look."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs import completeness, history_scores, per_item
from analysis.runs.axis import EPOCH
from analysis.runs.completeness import Completeness
from analysis.runs.data import StudyData
from analysis.runs.selection import with_numeric_seeds
from analysis.runs.tables import CONFIG, numbers, read_tables, with_settings
from analysis.runs.waivable import CHECKS
from lib.spec.load import load_study
from lib.spec.study import Study
from lib.spec.sweep import same_value


def load_data(
    study: Study, folder: Path, unequal_seeds: bool = False, any_length: bool = False
) -> StudyData:
    """Return a study's data from the tables in ``folder``; with looks, of the last complete look.

    ``unequal_seeds``: if some variants have missing seeds, use only the seeds that all variants
    have, or unpaired seeds if each variant has its own. ``any_length``: finished runs may have
    different numbers of epochs, as with early stopping.

    Raises:
        TableError: when a table is missing, damaged, or from another sweep.
    """
    runs, history = read_tables(folder)
    runs = with_settings(runs, [*study.factor_keys, *study.block_keys, study.declaration.replicate])
    runs = with_numeric_seeds(runs, study.declaration.replicate, study.seeds)
    table = per_item.read(folder)
    later = ""
    for n in sorted(study.declaration.looks or {}, reverse=True):
        at = study.at_look(n)
        data = _build(at, *_without_later(at, runs, history), table, folder, any_length)
        if not data.completeness.problems:
            return replace(data, later=later)  # the last complete look
        earlier = [k for k in study.declaration.looks if k < n]
        added = at.seeds[max(earlier, default=0) :]  # the seeds that this look adds
        if any(e.seed in added and e.state != "missing" for e in data.completeness.entries):
            problems = _first(completeness.summarize_problems(at, data.completeness), 3)
            later = f"The look at {n} {study.declaration.unit}s is incomplete: {problems}."
    if study.declaration.looks:
        return data
    data = _build(study, runs, history, table, folder, any_length)
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
    any_length = "epochs" in data.completeness.waivable
    restricted = _build(study, runs, history, data.per_item, data.folder, any_length)
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
    any_length: bool,
) -> StudyData:
    axis = history.attrs.get("axis", EPOCH)
    study = replace(study, by_step=axis != EPOCH or not _every_epoch(study, history))
    runs, replaced, others = history_scores.add(study, runs, history)
    excluded = []
    if study.declaration.repeats and not study.seeds:
        study, runs, excluded = _repeated(study, runs)
        history = history[history["run_id"].isin(runs["run_id"])]
    found = completeness.check(study, runs, history, axis, any_length)
    study = _with_digits(study, runs, found)
    if study.declaration.repeats:
        unpaired = ["replicates are numbered in the order of creation"]
        found = replace(found, unpaired=unpaired, repeated=[*found.repeated, *excluded])
    unlike = {"replaced": replaced, "unlike_last": others}
    return StudyData(study, runs, history, table, found, folder, axis, **unlike)


def _every_epoch(study: Study, history: pd.DataFrame) -> bool:
    """Return whether the history has the metric at consecutive epochs, or not at all."""
    if study.logged.key not in history:
        return True
    epochs = np.sort(history.dropna(subset=[study.logged.key])["epoch"].unique())
    return bool((np.diff(epochs) == 1).all())


def _with_digits(study: Study, runs: pd.DataFrame, found: Completeness) -> Study:
    """Return the study with enough decimals in its metric to distinguish the included scores."""
    ids = [run for entry in found.entries if entry.state == "finished" for run in entry.runs]
    scores = numbers(runs[runs["run_id"].isin(ids)], study.score_key()).to_numpy(float)
    logged = study.logged.fitting(scores, study.smallest_effect)
    same = study.metric == study.logged
    return replace(study, metric=logged if same else study.metric, logged=logged)


def sibling(study: Study, name: str) -> StudyData | None:
    """Return the data of another study that ``study`` refers to, or None if it has no tables.

    The other study is looked up in the same folders as ``study``.
    """
    folder = study.places.tables(name)
    return (
        load_data(load_study(name, study.places), folder)
        if (folder / "runs.csv").exists()
        else None
    )
