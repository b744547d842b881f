"""Is the study complete? Every variant and seed once, finished, the same epochs and recipe."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs import recipe
from analysis.runs.axis import EPOCH, KNOWN, label
from analysis.runs.tables import CONFIG, NAN, SUMMARY, TableError, is_missing, keys, numbers
from lib.spec.metric import count
from lib.spec.study import CHANGED, LEAST_EPOCHS, RULES, Study, Variant
from lib.spec.sweep import same_value, show_value

PAIR_HASHES = ("split_sha256", "order_sha256")  # of the split, of the first epoch's order

CLOCK = ("seconds", "images_per_second")  # history columns that never repeat
ENOUGH = 0.95  # of the longest run's steps, where runs need not end at the same one

# Checks that `analysis.report --allow NAME` waives, each with what its failure means.
CHECKS = {
    "seeds": "not every variant has every seed; only seeds that all variants have are compared",
    "recipe": "the runs differ in more than the factors and the seed",
    "data": "the runs saw different data",
    "commit": "the runs come from different commits of the code",
    "versions": "the runs were made with different versions of the libraries",
    "identical": "runs that should differ have the same losses, digit by digit",
}
COMPARED = {
    "data": ["data_sha256"],
    "commit": ["git_commit"],
    "versions": ["python_version", "numpy_version", "torch_version"],
}

# What must not change within a run, from one checkpoint to the next, by the same checks.
PARTS_OF_A_RUN = COMPARED | {"versions": [*COMPARED["versions"], "threads", "device"]}


@dataclass(frozen=True)
class Entry:
    """One expected variant and seed: its ``state``, the runs found for it, epochs and seconds.

    States: finished, diverged, missing, duplicate, short, or what W&B says of an unfinished run.
    ``resumed``: the epoch after which it was last continued from a checkpoint, or 0.
    ``replaced``: unfinished runs that were made again; the run in ``runs`` is included instead.
    """

    variant: Variant
    seed: Any
    state: str
    runs: list[str]
    epochs: int = 0
    seconds: float = 0.0
    resumed: int = 0
    replaced: tuple[str, ...] = ()
    block: str = ""  # its name; nothing where there are no blocks


@dataclass(frozen=True)
class Completeness:
    """All expected entries and, in words, everything that forbids a comparison.

    ``waivable``: by the name of a check in ``CHECKS``, what it found; these can be waived.
    ``unpaired``: where runs of one seed had another split or order, so that they are no pairs.
    ``splitting``: factors that change the split of the data, such as a fold: within each seed,
    each of their levels has one split, another than the other levels. Contrasts over them have no
    pairs.
    ``repeated``: in words, unfinished runs that were made again.
    """

    entries: list[Entry]
    problems: list[str]
    waivable: dict[str, str] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    splitting: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def included(self) -> list[str]:
        """The ids of all runs that are included, by block, variant and seed."""
        return [run for entry in self.entries for run in entry.runs]

    @property
    def epochs(self) -> int:
        """The epochs of the longest run."""
        return max(entry.epochs for entry in self.entries)

    def runs(self, variant: Variant) -> list[str]:
        """Return the ids of a variant's runs, by seed."""
        return [run for entry in self.entries if entry.variant == variant for run in entry.runs]


def check(
    study: Study, runs: pd.DataFrame, history: pd.DataFrame, axis: str = EPOCH
) -> Completeness:
    """Compare what the study expects with what the tables hold; ``axis``: of the history.

    Raises:
        TableError: when a config key that the sweep sets is missing from all runs.
    """
    runs = runs.reset_index(drop=True)
    planned = _planned(study)
    if missing := [name for name in planned if CONFIG + name not in runs]:
        raise TableError(
            f"no run has {', '.join(missing)} in its config: were these runs made by another sweep?"
        )
    if unknown := [key for key in study.declaration.free if CONFIG + key not in runs]:
        raise TableError(
            f"`free:` names {', '.join(unknown)}, which no run has in its config; the keys are "
            f"{', '.join(keys(runs, CONFIG))}"
        )
    fits = pd.Series(True, index=runs.index)
    for name, value in study.fixed.items():
        fits &= _matches(runs, name, value)
    epochs = _lengths(history, axis)
    seconds = pd.Series(dtype=float)
    if "seconds" in history:
        seconds = history.groupby("run_id")["seconds"].sum()
    entries, problems, repeated, used = [], [], [], set()
    for block, variant, seed in study.expected:
        mask = fits & _matches(runs, study.declaration.replicate, seed)
        for name, level in (study.configs[variant] | block).items():
            mask &= _matches(runs, name, level)
        found = runs[mask]
        used |= set(found["run_id"])
        judged = [_judge(run, study, epochs, seconds) for _, run in found.iterrows()]
        where = ", ".join(
            [study.block_name(block)] * bool(block)
            + [study.variant_name(variant)] * bool(study.factors)
            + [f"{study.declaration.replicate}={show_value(seed)}"]
        )
        entry, problem, again = _entry(judged)
        entries.append(replace(entry, variant=variant, seed=seed, block=study.block_name(block)))
        repeated += [f"{where}: {one}; it was made again" for one in again]
        if problem:
            problems.append(f"{where}: {problem}")
    problems += _strangers(runs[~runs["run_id"].isin(used)], planned)
    included = runs[runs["run_id"].isin(Completeness(entries, problems).included)]
    problems += _out_of_bounds(study, included)
    problems += _other_data(study, included)
    well = [run for entry in entries if entry.state == "finished" for run in entry.runs]
    problems += _scored_at_other_steps(study, well, history, axis)
    longest = max(entry.epochs for entry in entries)
    if axis == EPOCH and 0 < longest < LEAST_EPOCHS[study.rule]:
        problems.append(
            f"the score is the {study.rule_words}, but runs have {count(longest, 'epoch')}; "
            "declare another `score:`"
        )
    splitting = _splitting(study, included)
    return Completeness(
        entries=entries,
        problems=problems,
        waivable={} if problems else _doubts(study, included, history),
        unpaired=_unpaired(study, included, splitting),
        splitting=splitting,
        repeated=repeated,
    )


def _lengths(history: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return each run's number of rows and last epoch or step (``count``, ``max``).

    Epochs that count from 0 are counted from 1. ``exact``: whether every run must have the same;
    steps, and fractions of epochs, need not agree to the last one.
    """
    history = history.reset_index(drop=True)
    history = history.drop(index=_tests_at_the_end(history)) if axis == EPOCH else history
    epochs = history.groupby("run_id")["epoch"].agg(["count", "max"])
    values = history["epoch"]
    whole = axis == EPOCH and bool((values % 1 == 0).all())
    if whole and len(values) and values.min() == 0:
        epochs["max"] += 1
    return epochs.assign(exact=whole)


def _tests_at_the_end(history: pd.DataFrame) -> pd.Index:
    """Return the rows that are no epochs: a run's last, if no other of its rows has its metrics.

    So Lightning logs a test after the last epoch, with a number of its own.
    """
    metrics = history.columns.difference(["run_id", "epoch", "epoch (logged)", *KNOWN])
    last = history.sort_values("epoch").drop_duplicates("run_id", keep="last").index
    own = history.loc[last].set_index("run_id")[metrics].notna()
    others = history.drop(index=last).groupby("run_id")[metrics].count() > 0
    others = others.reindex(own.index, fill_value=False)
    alone = others.any(axis=1) & ~(own & others).any(axis=1)
    return last[alone.to_numpy()]


def _planned(study: Study) -> dict[str, list[Any]]:
    """Return the values that each config key of the plan may have."""
    planned: dict[str, list[Any]] = {name: [value] for name, value in study.fixed.items()}
    for config in [*study.configs.values(), *study.blocks]:
        for name, level in config.items():
            planned.setdefault(name, [])
            if not any(same_value(level, known) for known in planned[name]):
                planned[name].append(level)
    return planned | {study.declaration.replicate: study.seeds}


def _matches(runs: pd.DataFrame, key: str, value: Any) -> pd.Series:
    return runs[CONFIG + key].map(lambda found: same_value(found, value)).astype(bool)


def _strangers(runs: pd.DataFrame, planned: dict[str, list[Any]]) -> list[str]:
    """Say of runs that match no variant in what they differ from the plan."""
    reasons = []
    for _, run in runs.sort_values("run_id").iterrows():
        wrong = [
            f"{name} = {'not set' if is_missing(run[CONFIG + name]) else run[CONFIG + name]}, "
            f"expected {' or '.join(map(show_value, values))}"
            for name, values in planned.items()
            if not any(same_value(run[CONFIG + name], value) for value in values)
        ]
        why = "; ".join(wrong) or "its combination of levels is not planned"
        reasons.append(f"run {run['run_id']} matches no variant of the study: {why}")
    return reasons


def _entry(judged: list[tuple[Entry, str]]) -> tuple[Entry, str, list[str]]:
    """Return the entry of one variant and seed, what is wrong with it, and what was made again."""
    well = [one for one in judged if not one[1]]
    if len(judged) > 1 and len(well) == 1:
        ((entry, _),) = well
        replaced = tuple(other.runs[0] for other, problem in judged if problem)
        return replace(entry, replaced=replaced), "", [problem for _, problem in judged if problem]
    if len(judged) == 1:
        return *judged[0], []
    if not judged:
        return Entry((), None, "missing", []), "missing", []
    ids = [entry.runs[0] for entry, _ in judged]
    reasons = ", ".join(f"{entry.runs[0]} ({entry.state})" for entry, _ in judged)
    return Entry((), None, "duplicate", ids), f"{len(ids)} runs: {reasons}", []


def _judge(
    run: pd.Series, study: Study, epochs: pd.DataFrame, seconds: pd.Series
) -> tuple[Entry, str]:
    """Return a run's entry, variant and seed left open, and what is wrong with it, if anything."""
    name = run["run_id"]
    done, last = (
        (int(n) for n in epochs.loc[name, ["count", "max"]]) if name in epochs.index else (0, 0)
    )
    exact = bool(epochs["exact"].all())
    planned, longest = run.get(f"{CONFIG}epochs"), _whole(epochs["max"].max())
    planned = planned if isinstance(planned, int) and exact and len(epochs) else longest
    key = study.score_key()
    score, problem = run.get(SUMMARY + key, math.nan), ""
    # What the script set to NaN; W&B's offline files have null for it. An absent score is a fault.
    bad = -math.inf if study.logged.sign > 0 else math.inf
    no_number = score in (NAN, None, bad) or run.get(SUMMARY + study.logged.key) == NAN
    diverged = run.get(f"{SUMMARY}diverged") is True or no_number
    state = "diverged" if diverged else "finished"
    failed = not is_missing(run["exit_code"]) and run["exit_code"] not in (0, None)
    if run["state"] != "finished" or failed:
        state = run["state"] if run["state"] != "finished" else "failed"
        problem = f"run {name} is {state}, after epoch {last} of {planned}"
    elif not exact and last < ENOUGH * planned and state != "diverged":
        state = "short"
        problem = f"run {name} ends at {last:,}, others at {planned:,}"
    elif exact and (done != last or (last != planned and state != "diverged")):
        state = "short"
        problem = f"run {name} has {done} of {count(planned, 'epoch')}"
        if done != last:
            problem = f"run {name} lacks epochs: {count(done, 'row')}, the last of epoch {last}"
    elif not no_number and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        state = "failed"
        found = "none" if is_missing(score) else repr(score)
        problem = f"run {name} has no number as {key} in its summary: {found}"
    resumed = run.get(f"{SUMMARY}resumed_from_epoch")
    known = isinstance(resumed, int | float) and math.isfinite(resumed) and resumed > 0
    resumed = int(resumed) if known else 0
    return Entry((), None, state, [name], last, float(seconds.get(name, 0.0)), resumed), problem


def _whole(value: float) -> int:
    return 0 if pd.isna(value) else int(value)


def _out_of_bounds(study: Study, runs: pd.DataFrame) -> list[str]:
    """Name scores outside the metric's bounds, under every score rule."""
    reasons, (low, high) = [], study.logged.bounds
    for key in dict.fromkeys(study.score_key(rule) for rule in RULES):
        values = numbers(runs, key)
        for run, value in zip(runs["run_id"], values, strict=True):
            if np.isfinite(value) and study.logged.outside(np.array([value])).any():
                reasons.append(
                    f"run {run}: {key} = {value:g} lies outside the metric's bounds, {low:g} to "
                    f"{high:g}; declare other `bounds:` with the metric if the score is right"
                )
    return reasons


def _scored_at_other_steps(
    study: Study, runs: list[str], history: pd.DataFrame, axis: str
) -> list[str]:
    """Refuse scores that runs logged last at different steps: they are of other budgets.

    As far as the history has the score at all; steps may differ a little.
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
        f"{key} was logged last at {label(axis).lower()} {last.min():g} by run {least}, at "
        f"{last.max():g} by run {most}: scores of different budgets cannot be compared"
    ]


def _other_data(study: Study, runs: pd.DataFrame) -> list[str]:
    """Refuse published scores next to runs whose data are not those that the scores rest on."""
    notes = runs.get(f"{SUMMARY}data_note", pd.Series(dtype=object))
    found = sorted({str(note) for note in notes if not is_missing(note) and note})
    if not found or not study.declaration.published_scores:
        return []
    return [
        f"published_scores cannot be compared with runs on other data: {'; '.join(found)}. Run "
        "them on the official data (`make data`), or leave published_scores out"
    ]


def _doubts(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> dict[str, str]:
    """Return what the waivable checks found, by name.

    Two runs whose losses agree in every digit of every epoch have run the same thing twice.
    """
    waivable = {}
    if differ := recipe.differences(study, runs):
        waivable["recipe"] = f"{CHECKS['recipe']} ({'; '.join(differ)})"
    for name, compared in COMPARED.items():
        reasons = []
        for key in compared:
            values = runs.get(SUMMARY + key, pd.Series(dtype=object))
            values = values[~values.map(is_missing)].astype(str)
            if values.groupby(_blocks(study, runs.loc[values.index], name)).nunique().max() > 1:
                counts = values.value_counts()
                short = [_short_hash(value) for value in counts.index]
                parts = [f"{n} with {v}" for n, v in zip(counts, short, strict=True)]
                reasons.append(f"{key}: {', '.join(parts)}")
        reasons += _changed(runs, PARTS_OF_A_RUN[name])
        if reasons:
            waivable[name] = f"{CHECKS[name]} ({'; '.join(reasons)})"
    if reasons := _alike(study, runs, history):
        waivable["identical"] = f"{CHECKS['identical']} ({'; '.join(reasons)})"
    return waivable


def _changed(runs: pd.DataFrame, compared: list[str]) -> list[str]:
    """Name the runs that were continued under another value of what is compared."""
    reasons = []
    for key in compared:
        values = runs.get(SUMMARY + key, pd.Series(dtype=object))
        for run_id, value in zip(runs.loc[values.index, "run_id"], values, strict=True):
            if CHANGED in str(value):
                reasons.append(f"run {run_id} was continued with another {key}: {value}")
    return reasons


def _short_hash(value: str) -> str:
    """Return eight digits of a hash, with what follows it: "c0ffee00…-dirty"."""
    digits, dash, rest = value.partition("-")
    return value if len(digits) <= 12 else f"{digits[:8]}…{dash}{rest}"


def _alike(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> list[str]:
    """Name runs with the same numbers: in a variant, whose seed had no effect, or in any two runs.

    All that a run logged over time is compared, but for its clock, and its score; of runs of
    different variants only losses and score, since losses do not agree by chance as errors on few
    items do.
    """
    own = history[history["run_id"].isin(runs["run_id"])]
    numeric = own.columns.difference(["run_id", "epoch", *CLOCK])
    losses = [name for name in numeric if "loss" in name.lower()]
    scores = numbers(runs, study.score_key()).set_axis(runs["run_id"])
    whole, lost = {}, {}
    by_run = dict(list(own.sort_values("epoch").groupby("run_id")))
    for run_id in runs["run_id"]:
        rows = by_run.get(run_id, own.head(0))
        whole[run_id] = (scores[run_id], _content(rows[numeric]))
        lost[run_id] = scores[run_id], _content(rows[losses])
    reasons, seen = [], set()
    variant = runs[[CONFIG + key for key in [*study.factor_keys, *study.block_keys]]]
    by_variant = (
        variant.map(lambda v: f"{v!r} ").sum(axis=1)
        if len(variant.columns)
        else pd.Series("", runs.index)
    )
    for _, group in runs.groupby(by_variant):
        ids = group["run_id"].tolist()
        diverged = f"{SUMMARY}diverged" in group and (group[f"{SUMMARY}diverged"] == True).all()  # noqa: E712
        if len(ids) > 1 and len({whole[run] for run in ids}) == 1 and not diverged:
            reasons.append(f"the {study.declaration.replicate} had no effect: {' = '.join(ids)}")
            seen |= set(ids)
    by_content: dict[tuple[float, bytes], list[str]] = {}
    for run_id, content in sorted(lost.items()):
        if content[1] and run_id not in seen:
            by_content.setdefault(content, []).append(run_id)
    return reasons + [" = ".join(ids) for ids in by_content.values() if len(ids) > 1]


def _content(values: pd.DataFrame) -> bytes:
    """Return a table's numbers as bytes, to compare them digit by digit; nothing if it has none."""
    array = values.to_numpy(dtype=float).round(12)
    return array.tobytes() if np.isfinite(array).any() else b""


def _blocks(study: Study, runs: pd.DataFrame, check: str = "data") -> pd.Series:
    """Return the block of each run, for a check of the data, which blocks may have of their own."""
    block = pd.Series("", index=runs.index)
    for key in study.block_keys if check == "data" else []:
        block = block + f"{key}=" + runs[CONFIG + key].map(show_value) + " "
    return block


def _splitting(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return the factors that change the split: within each seed one split per level.

    None where that holds for all factors: then no runs would be left to be pairs.
    """
    column, seed = f"{SUMMARY}split_sha256", CONFIG + study.declaration.replicate
    if column not in runs or runs[column].map(is_missing).any() or runs.empty:
        return []
    hashes, seeds = runs[column].astype(str), runs[seed].astype(str) + _blocks(study, runs)
    if hashes.groupby(seeds).nunique().max() == 1:
        return []
    keys = [key for key in study.factor_keys if CONFIG + key in runs]
    levels = {key: runs[CONFIG + key].astype(str) for key in keys}
    found = [
        key
        for key in keys
        if levels[key].groupby([seeds, hashes]).nunique().max() == 1
        and hashes.groupby([seeds, levels[key]]).nunique().max() == 1
    ]
    return [] if len(found) == len(keys) else found  # else nothing would be left to pair


def _unpaired(study: Study, runs: pd.DataFrame, splitting: list[str]) -> list[str]:
    """Say where runs of one seed are no pairs: another split, or another order of the images."""
    problems = []
    alike = runs[CONFIG + study.declaration.replicate].astype(str)
    for key in [*splitting, *study.block_keys]:
        alike = alike + f", {key} = " + runs[CONFIG + key].astype(str)
    for name in PAIR_HASHES:
        if (column := SUMMARY + name) in runs:
            known = runs[~runs[column].map(is_missing).astype(bool)]
            hashes = known[column].astype(str).groupby(alike[known.index]).nunique()
            problems += [
                f"seed {which}: {number} different values of {name}; its runs are no pairs"
                for which, number in hashes[hashes > 1].items()
            ]
    return problems
