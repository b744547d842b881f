"""Check that every variant and seed has one finished run, with equal epochs and recipe."""

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.runs.axis import EPOCH, label
from analysis.runs.lengths import ENOUGH, lengths_of, logged_lengths, whole
from analysis.runs.pairing import splitting_factors, unpaired_seeds
from analysis.runs.score_checks import (
    no_number,
    other_data,
    out_of_bounds,
    require_score,
    scored_at_other_steps,
)
from analysis.runs.tables import CONFIG, SUMMARY, TableError, is_missing, keys, numbers
from analysis.runs.waivable import CHECKS, failed_waivable
from lib.spec.study import LEAST_EPOCHS, Study, Variant
from lib.spec.sweep import same_value, show_value
from lib.spec.words import count

MOST_NAMED = 5  # runs in a message about many


@dataclass(frozen=True)
class Entry:
    """An expected variant and seed: its ``state``, the ids of its runs, epochs and seconds.

    States: finished, diverged, missing, duplicate, short, failed, or W&B's state of an unfinished
    run. ``resumed``: the epoch after which the run was last resumed from a checkpoint, or 0.
    ``replaced``: faulty runs that were rerun; the run in ``runs`` is included instead.
    """

    variant: Variant
    seed: Any
    state: str
    runs: list[str]
    epochs: int = 0
    seconds: float = 0.0
    resumed: int = 0
    replaced: tuple[str, ...] = ()
    block: str = ""  # name of the block; empty if there are no blocks


@dataclass(frozen=True)
class Completeness:
    """All expected entries and, as texts, the problems that prevent a comparison.

    ``waivable``: messages of failed checks that can be waived, by name in ``CHECKS``.
    ``unpaired``: why runs of one seed are not pairs, such as different splits of the data.
    ``splitting``: factors that change the data split, such as a fold: within each seed, each of
    their levels has its own split. Contrasts over these factors are unpaired.
    ``repeated``: messages about faulty runs that were rerun, and about excluded unfinished runs.
    """

    entries: list[Entry]
    problems: list[str]
    waivable: dict[str, str] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    splitting: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    @property
    def included(self) -> list[str]:
        """The ids of all included runs, by block, variant and seed."""
        return [run for entry in self.entries for run in entry.runs]

    @property
    def epochs(self) -> int:
        """The number of epochs of the longest run."""
        return max(entry.epochs for entry in self.entries)

    def runs(self, variant: Variant) -> list[str]:
        """Return the ids of a variant's runs, by seed."""
        return [run for entry in self.entries if entry.variant == variant for run in entry.runs]


def check(
    study: Study,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    axis: str = EPOCH,
    any_length: bool = False,
) -> Completeness:
    """Compare the runs that the study expects with the tables; ``axis``: the history's axis.

    ``any_length``: finished runs may have different numbers of epochs or steps; if they do, this is
    a failed check instead of a problem.

    Raises:
        TableError: when a config key of the sweep or of ``free:``, or the score, is missing from
            all runs.
    """
    runs = runs.reset_index(drop=True)
    planned = _planned(study)
    if missing := [name for name in planned if CONFIG + name not in runs]:
        raise TableError(
            f"no run has {', '.join(missing)} in its config; check that these runs belong to this "
            "sweep"
        )
    if unknown := [key for key in study.declaration.free if CONFIG + key not in runs]:
        raise TableError(
            f"free: no run has {', '.join(unknown)} in its config; available keys: "
            f"{', '.join(keys(runs, CONFIG))}"
        )
    require_score(study, runs, history)
    fits = pd.Series(True, index=runs.index)
    for name, value in study.fixed.items():
        fits &= _matches(runs, name, value)
    configured = {e for e in runs.get(f"{CONFIG}epochs", []) if isinstance(e, int)}
    configured = configured.pop() if len(configured) == 1 else None
    epochs = lengths_of(history, axis, configured) if len(history) else logged_lengths(runs)
    if "seconds" in history:
        seconds = history.groupby("run_id")["seconds"].sum()
    else:
        seconds = numbers(runs, "runtime_seconds").set_axis(runs["run_id"]).fillna(0.0)
    entries, problems, repeated, used = [], [], [], set()
    for block, variant, seed in study.expected:
        mask = fits & _matches(runs, study.declaration.replicate, seed)
        for name, level in (study.configs[variant] | block).items():
            mask &= _matches(runs, name, level)
        matching = runs[mask]
        used |= set(matching["run_id"])
        checked = [
            _check_run(run, study, epochs, seconds, axis, any_length)
            for _, run in matching.iterrows()
        ]
        entry, problem, replaced = _entry(checked)
        entry = replace(entry, variant=variant, seed=seed, block=study.block_name(block))
        entries.append(entry)
        repeated += [f"{_place(study, entry)}: {text}; it was rerun" for text in replaced]
        if problem:
            problems.append(f"{_place(study, entry)}: {problem}")
    problems += _unmatched(runs[~runs["run_id"].isin(used)], planned)
    included = runs[runs["run_id"].isin(Completeness(entries, problems).included)]
    problems += out_of_bounds(study, included)
    problems += other_data(study, included)
    finished = [run for entry in entries if entry.state == "finished" for run in entry.runs]
    differ = scored_at_other_steps(study, finished, history, axis)
    waivable = {}
    if any_length:
        differ += _different_lengths(study, entries, axis)
        waivable = {"epochs": f"{CHECKS['epochs']} ({'; '.join(differ)})"} if differ else {}
    else:
        problems += differ
    longest = max(entry.epochs for entry in entries)
    if axis == EPOCH and 0 < longest < LEAST_EPOCHS[study.rule]:
        problems.append(
            f"score: the {study.rule_words} needs at least {LEAST_EPOCHS[study.rule]} epochs, but "
            f"the runs have {count(longest, 'epoch')}; declare another `score:`"
        )
    splitting = splitting_factors(study, included)
    return Completeness(
        entries=entries,
        problems=problems,
        waivable=waivable if problems else waivable | failed_waivable(study, included, history),
        unpaired=unpaired_seeds(study, included, splitting),
        splitting=splitting,
        repeated=repeated,
    )


def _place(study: Study, entry: Entry) -> str:
    """Return the block, variant and seed of an entry: "batch_norm=True, optimizer=sgd, seed=3"."""
    return ", ".join(
        [entry.block] * bool(entry.block)
        + [study.variant_name(entry.variant)] * bool(study.factors)
        + [f"{study.declaration.replicate}={show_value(entry.seed)}"]
    )


def summarize_problems(study: Study, found: Completeness) -> list[str]:
    """Return the problems, with a single message for the seeds that are missing everywhere."""
    missing = []
    for seed in study.seeds:
        entries = [entry for entry in found.entries if same_value(entry.seed, seed)]
        if all(entry.state == "missing" for entry in entries):
            missing.append(seed)
    if not missing:
        return found.problems
    listed = {
        f"{_place(study, entry)}: missing"
        for entry in found.entries
        if any(same_value(entry.seed, seed) for seed in missing)
    }
    rest = [problem for problem in found.problems if problem not in listed]
    every = ["variant"] * (len(study.variants) > 1) + ["block"] * (len(study.blocks) > 1)
    where = f" in every {' and '.join(every)}" if every else ""
    return [f"{name_seeds(study, missing)} missing{where}", *rest]


def name_seeds(study: Study, seeds: list[Any]) -> str:
    """Return seeds as text, three or more consecutive integers as a range: "seeds 1, 3 to 9"."""
    name = study.declaration.replicate
    name += "s" * (name == "seed" and len(seeds) > 1)
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        return f"{name} {', '.join(map(show_value, seeds))}"
    parts = []
    for _, group in itertools.groupby(enumerate(sorted(seeds)), lambda pair: pair[1] - pair[0]):
        values = [value for _, value in group]
        parts += [f"{values[0]} to {values[-1]}"] if len(values) > 2 else map(str, values)
    return f"{name} {', '.join(parts)}"


def _planned(study: Study) -> dict[str, list[Any]]:
    """Return the planned values of each config key."""
    planned: dict[str, list[Any]] = {name: [value] for name, value in study.fixed.items()}
    for config in [*study.configs.values(), *study.blocks]:
        for name, level in config.items():
            planned.setdefault(name, [])
            if not any(same_value(level, known) for known in planned[name]):
                planned[name].append(level)
    return planned | {study.declaration.replicate: study.seeds}


def _matches(runs: pd.DataFrame, key: str, value: Any) -> pd.Series:
    return runs[CONFIG + key].map(lambda actual: same_value(actual, value)).astype(bool)


def _unmatched(runs: pd.DataFrame, planned: dict[str, list[Any]]) -> list[str]:
    """Return messages about runs that match no variant: how they differ from the plan.

    One message per kind of difference, with the first ``MOST_NAMED`` runs.
    """
    kinds: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for _, run in runs.sort_values("run_id").iterrows():
        wrong = {
            name: f"{name} = {'not set' if is_missing(v := run[CONFIG + name]) else v}, "
            f"expected {' or '.join(map(show_value, values))}"
            for name, values in planned.items()
            if not any(same_value(run[CONFIG + name], value) for value in values)
        }
        why = "; ".join(wrong.values()) or "its combination of levels is not planned"
        kinds.setdefault(tuple(wrong), []).append((run["run_id"], why))
    problems = []
    for found in kinds.values():
        ids, (first, why) = [run for run, _ in found], found[0]
        if len(ids) == 1:
            problems.append(f"run {first} matches no variant of the study: {why}")
            continue
        more = f" and {len(ids) - MOST_NAMED} others" * (len(ids) > MOST_NAMED)
        problems.append(
            f"runs {', '.join(ids[:MOST_NAMED])}{more} match no variant of the study; for {first}: "
            f"{why}"
        )
    return problems


def _entry(checked: list[tuple[Entry, str]]) -> tuple[Entry, str, list[str]]:
    """Return the entry of one variant and seed, its problem, and the problems of replaced runs.

    ``checked``: entry and problem of each of its runs. The problem is empty if there is none.
    """
    valid = [entry for entry, problem in checked if not problem]
    if len(checked) > 1 and len(valid) == 1:
        faulty = [(entry, problem) for entry, problem in checked if problem]
        replaced = tuple(entry.runs[0] for entry, _ in faulty)
        return replace(valid[0], replaced=replaced), "", [problem for _, problem in faulty]
    if len(checked) == 1:
        return *checked[0], []
    if not checked:
        return Entry((), None, "missing", []), "missing", []
    ids = [entry.runs[0] for entry, _ in checked]
    states = ", ".join(f"{entry.runs[0]} ({entry.state})" for entry, _ in checked)
    return Entry((), None, "duplicate", ids), f"{len(ids)} runs: {states}", []


def _check_run(
    run: pd.Series,
    study: Study,
    epochs: pd.DataFrame,
    seconds: pd.Series,
    axis: str,
    any_length: bool,
) -> tuple[Entry, str]:
    """Return a run's entry, without variant and seed, and its problem, empty if there is none."""
    name = run["run_id"]
    columns, known = ["count", "max", "missing"], name in epochs.index
    done, last, missing = (int(n) for n in epochs.loc[name, columns]) if known else (0, 0, 0)
    exact = bool(epochs["exact"].all())
    planned, longest = run.get(f"{CONFIG}epochs"), whole(epochs["max"].max())
    configured = isinstance(planned, int) and exact and len(epochs) > 0
    planned = planned if configured else longest
    gap = int(epochs["gap"].max()) if configured else 1  # the last evaluation may be earlier
    key = study.score_key()
    score, problem = run.get(SUMMARY + key, math.nan), ""
    diverged = run.get(f"{SUMMARY}diverged") is True or no_number(study, run)
    state = "diverged" if diverged else "finished"
    failed = not is_missing(run["exit_code"]) and run["exit_code"] not in (0, None)
    if run["state"] != "finished" or failed:
        state = run["state"] if run["state"] != "finished" else "failed"
        problem = f"run {name} is {state} after epoch {last} of {planned}"
    elif not exact and last < ENOUGH * planned and state != "diverged" and not any_length:
        state, unit = "short", label(axis).lower()
        problem = f"run {name} ends at {unit} {last:,}, but the longest run at {planned:,}"
    elif exact and missing:
        state = "short"
        problem = f"run {name} has missing epochs: {count(done, 'row')}, but last epoch {last}"
    elif exact and not (planned - gap < last <= planned or state == "diverged" or any_length):
        state = "short"
        problem = f"run {name} has {last} of {count(planned, 'epoch')}"
    elif not no_number(study, run) and (
        isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
    ):
        state = "failed"
        problem = f"run {name}: {key} in the summary must be a finite number, got {score!r}"
        if is_missing(score):
            problem = f"run {name} has no {key} in its summary"
    resumed = run.get(f"{SUMMARY}resumed_from_epoch")
    known = isinstance(resumed, int | float) and math.isfinite(resumed) and resumed > 0
    resumed = int(resumed) if known else 0
    return Entry((), None, state, [name], last, float(seconds.get(name, 0.0)), resumed), problem


def _different_lengths(study: Study, entries: list[Entry], axis: str) -> list[str]:
    """Return a message with the lengths of finished runs, if they differ and are no factor."""
    lengths = [entry.epochs for entry in entries if entry.state == "finished"]
    enough = 1.0 if axis == EPOCH else ENOUGH
    if "epochs" in study.factor_keys or not lengths or min(lengths) >= enough * max(lengths):
        return []
    unit = label(axis).lower().removesuffix("s")
    return [f"{min(lengths):,} to {max(lengths):,} {unit}s"]
