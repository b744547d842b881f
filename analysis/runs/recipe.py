"""The recipe: config keys that must be equal in all runs, and how they differ."""

from typing import Any

import pandas as pd

from analysis.runs.tables import CONFIG, SUMMARY, encode, is_missing, keys
from lib.spec.study import NUISANCE_FIELDS, Study

NOT_SET = "not set"
MOST_RUNS = 3  # a message lists the run ids of a value if there are at most this many


def recipe(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the config values that all ``runs`` share, by key.

    Without factors, blocks, the seed and the declared ``free`` keys.
    """
    shared = {}
    for key in recipe_keys(study, runs):
        values = {_text(value) for value in runs[CONFIG + key]}
        if len(values) == 1:
            shared[key] = runs[CONFIG + key].iloc[0]
    return shared


def recipe_keys(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return the config keys that must be equal in all runs."""
    free = {*study.factor_keys, *study.block_keys, study.declaration.replicate}
    free |= {*study.declaration.free, *NUISANCE_FIELDS}
    hashes = SUMMARY + "data_sha256"
    if hashes in runs and not runs[hashes].map(is_missing).any():
        free.add("data")  # a path that differs between machines; the hash is compared instead
    return [key for key in keys(runs, CONFIG) if key not in free]


def differences(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return a message for each recipe key that differs between ``runs``."""
    return [
        _describe(study, runs, key)
        for key in recipe_keys(study, runs)
        if len({_text(value) for value in runs[CONFIG + key]}) > 1
    ]


def _describe(study: Study, runs: pd.DataFrame, key: str) -> str:
    """Return the values of a recipe key, and the factor, block or seed it is confounded with."""
    values = runs[CONFIG + key].map(_text)
    for column in [*study.factor_keys, *study.block_keys, study.declaration.replicate]:
        levels = runs[CONFIG + column].map(_text)
        by_level = values.groupby(levels).unique()
        if len(by_level) > 1 and all(len(distinct) == 1 for distinct in by_level):
            if len(by_level) == 2:
                (a, v), (b, w) = ((level, distinct[0]) for level, distinct in by_level.items())
                text = f"{v} in all runs of {column}={a}, {w} in all runs of {column}={b}"
            else:
                text = "; ".join(f"{d[0]} with {column}={a}" for a, d in by_level.items())
            return f"{key}: {text}: confounded with {column}"
    counts = values.value_counts()
    parts = []
    for value, number in counts.items():
        ids = runs["run_id"][values == value].tolist()
        listed = f" ({', '.join(ids)})" if number <= MOST_RUNS else ""
        parts.append(f"{value} in {number} run{'' if number == 1 else 's'}{listed}")
    return f"{key}: {', '.join(parts)}: not confounded with a single factor"


def unchecked(study: Study, runs: pd.DataFrame) -> str:
    """Return what cannot be checked for runs of CSV exports; empty without these.

    An export has settings and results side by side. A column with one value in each variant that
    differs between variants is one or the other; the sentence names it.
    """
    exported = runs[runs["source"].astype(str).str.endswith(".csv")]
    if exported.empty:
        return ""
    block, variant = (pd.Series("", index=exported.index) for _ in range(2))
    for key in study.block_keys:
        block = block + exported[CONFIG + key].map(_text) + " "
    for key in study.factor_keys:
        variant = variant + exported[CONFIG + key].map(_text) + " "
    found = []
    for key in keys(exported, SUMMARY):
        values = exported[SUMMARY + key].map(_text)
        each = values.groupby([block, variant]).nunique()
        differ = values.groupby(block).nunique().max() > 1  # between variants of a block
        if (each == 1).all() and differ and len(values) > len(each):
            shown = sorted(set(values))
            found.append(f"{key} ({', '.join(shown[:4])}{', …' * (len(shown) > 4)})")
    text = (
        "The CSV export does not say which columns are settings, so only "
        f"{', '.join(keys(exported, CONFIG))} were compared between runs, not the whole recipe."
    )
    if found:
        text += (
            " These columns have one value per variant and differ between variants; a setting "
            f"among them is confounded with the factors: {'; '.join(found)}."
        )
    return text


def _text(value: Any) -> str:
    """Return a text that is equal for equal values, such as 5 and 5.0, but not true and "true"."""
    return NOT_SET if is_missing(value) else encode(_canonical(value))


def _canonical(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
