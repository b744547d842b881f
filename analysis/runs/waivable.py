"""Checks that `analysis.report --allow NAME` waives: recipe, data, code, scale, identical runs."""

import re

import numpy as np
import pandas as pd

from analysis.runs import recipe
from analysis.runs.score_checks import two_scales
from analysis.runs.tables import CONFIG, SUMMARY, is_missing, numbers
from lib.spec.study import CHANGED, Study
from lib.spec.sweep import show_value

# Words in the names of history columns that differ even in identical runs: time and machine.
CLOCK = {"time", "seconds", "second", "secs", "sec", "ms", "runtime", "walltime", "elapsed", "eta"}
CLOCK |= {"duration", "latency", "timestamp", "sps", "fps", "ips", "throughput", "speed"}
CLOCK |= {"memory", "mem", "gpu", "cpu"}


def is_clock(name: str) -> bool:
    """Return whether a history column or summary key measures time or the machine."""
    return bool(CLOCK & set(re.split(r"[^a-z0-9]", name.lower())))


# Checks that `analysis.report --allow NAME` waives, and the message if they fail.
CHECKS = {
    "seeds": "not every variant has every planned run",
    "epochs": "finished runs have different numbers of epochs or steps",
    "recipe": "settings other than the factors and the seed differ between runs",
    "data": "the runs used different data",
    "commit": "the runs used different commits of the code",
    "versions": "the runs used different library versions",
    "scale": "some runs seem to have logged fractions and others percentages",
    "identical": "runs that should differ have identical losses in all digits",
}


COMPARED = {
    "data": ["data_sha256"],
    "commit": ["git_commit"],
    "versions": ["python_version", "numpy_version", "torch_version"],
}


# Summary keys that must not change when a run is resumed, by check.
SAME_WITHIN_RUN = COMPARED | {"versions": [*COMPARED["versions"], "threads", "device"]}


def failed_waivable(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> dict[str, str]:
    """Return the messages of the waivable checks that failed, by name."""
    waivable = {}
    if differ := recipe.differences(study, runs):
        waivable["recipe"] = f"{CHECKS['recipe']} ({'; '.join(differ)})"
    for name, compared in COMPARED.items():
        parts = []
        for key in compared:
            values = runs.get(SUMMARY + key, pd.Series(dtype=object))
            values = values[~values.map(is_missing)].astype(str)
            if values.groupby(blocks_of(study, runs.loc[values.index], name)).nunique().max() > 1:
                counts = values.value_counts()
                short = [_short_hash(value) for value in counts.index]
                shares = [f"{n} with {v}" for n, v in zip(counts, short, strict=True)]
                parts.append(f"{key}: {', '.join(shares)}")
        parts += _changed(runs, SAME_WITHIN_RUN[name])
        if parts:
            waivable[name] = f"{CHECKS[name]} ({'; '.join(parts)})"
    if parts := two_scales(study, runs):
        waivable["scale"] = f"{CHECKS['scale']} ({'; '.join(parts)})"
    if parts := _identical(study, runs, history):
        waivable["identical"] = f"{CHECKS['identical']} ({'; '.join(parts)})"
    return waivable


def _changed(runs: pd.DataFrame, compared: list[str]) -> list[str]:
    """Return messages about runs that were resumed with another value of a compared key."""
    problems = []
    for key in compared:
        values = runs.get(SUMMARY + key, pd.Series(dtype=object))
        for run_id, value in zip(runs.loc[values.index, "run_id"], values, strict=True):
            if CHANGED in str(value):
                problems.append(f"run {run_id} was resumed with another {key}: {value}")
    return problems


def _short_hash(value: str) -> str:
    """Return the first eight digits of a hash and its suffix: "c0ffee00…-dirty"."""
    digits, dash, rest = value.partition("-")
    return value if len(digits) <= 12 else f"{digits[:8]}…{dash}{rest}"


def _identical(study: Study, runs: pd.DataFrame, history: pd.DataFrame) -> list[str]:
    """Return messages about identical runs: all runs of a variant, or any two runs.

    Within a variant, the score and all history columns except the clock's are compared; identical
    runs mean that the seed had no effect. Any other runs are compared by score and losses only,
    because errors on few items may be equal by chance.
    """
    logged = history[history["run_id"].isin(runs["run_id"])]
    numeric = logged.columns.difference(["run_id", "epoch"])
    numeric = [name for name in numeric if not is_clock(name)]
    losses = [name for name in numeric if "loss" in name.lower()]
    scores = numbers(runs, study.score_key()).set_axis(runs["run_id"])
    with_history, with_losses = {}, {}
    by_run = dict(list(logged.sort_values("epoch").groupby("run_id")))
    for run_id in runs["run_id"]:
        rows = by_run.get(run_id, logged.head(0))
        with_history[run_id] = (scores[run_id], _content(rows[numeric]))
        with_losses[run_id] = (scores[run_id], _content(rows[losses]))
    problems, reported = [], set()
    variant = runs[[CONFIG + key for key in [*study.factor_keys, *study.block_keys]]]
    by_variant = (
        variant.map(lambda v: f"{v!r} ").sum(axis=1)
        if len(variant.columns)
        else pd.Series("", runs.index)
    )
    for _, group in runs.groupby(by_variant):
        ids = group["run_id"].tolist()
        diverged = f"{SUMMARY}diverged" in group and (group[f"{SUMMARY}diverged"] == True).all()  # noqa: E712
        if len(ids) > 1 and len({with_history[run] for run in ids}) == 1 and not diverged:
            problems.append(f"the {study.declaration.replicate} had no effect: {' = '.join(ids)}")
            reported |= set(ids)
    by_content: dict[tuple[float, bytes], list[str]] = {}
    for run_id, content in sorted(with_losses.items()):
        if content[1] and run_id not in reported:
            by_content.setdefault(content, []).append(run_id)
    return problems + [" = ".join(ids) for ids in by_content.values() if len(ids) > 1]


def _content(values: pd.DataFrame) -> bytes:
    """Return a table's numbers as bytes, rounded to 12 decimals; empty without a finite number."""
    array = values.to_numpy(dtype=float).round(12)
    return array.tobytes() if np.isfinite(array).any() else b""


def blocks_of(study: Study, runs: pd.DataFrame, check: str = "data") -> pd.Series:
    """Return each run's block for the data check (blocks may use different data); else empty."""
    block = pd.Series("", index=runs.index)
    for key in study.block_keys if check == "data" else []:
        block = block + f"{key}=" + runs[CONFIG + key].map(show_value) + " "
    return block
