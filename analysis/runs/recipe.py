"""Is everything else equal? Config keys that are no factor must agree over all runs."""

from typing import Any

import pandas as pd

from analysis.runs.tables import CONFIG, SUMMARY, encode, is_missing, keys
from lib.spec.study import NUISANCE_FIELDS, Study

NOT_SET = "not set"
MOST_RUNS = 3  # run ids that a message names


def recipe(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the config values that all ``runs`` share, by key.

    Factors, the seed and the keys that the declaration calls ``free`` are left out.
    """
    found = {}
    for key in recipe_keys(study, runs):
        values = {_text(value) for value in runs[CONFIG + key]}
        if len(values) == 1:
            found[key] = runs[CONFIG + key].iloc[0]
    return found


def recipe_keys(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return the config keys that must agree over all runs."""
    free = {*study.factor_keys, *study.block_keys, study.declaration.replicate}
    free |= {*study.declaration.free, *NUISANCE_FIELDS}
    hashes = SUMMARY + "data_sha256"
    if hashes in runs and not runs[hashes].map(is_missing).any():
        free.add("data")  # a path, which differs between machines; the hash is what is compared
    return [key for key in keys(runs, CONFIG) if key not in free]


def differences(study: Study, runs: pd.DataFrame) -> list[str]:
    """Name each recipe key that differs over ``runs``, with the levels that it varies with."""
    return [
        _describe(study, runs, key)
        for key in recipe_keys(study, runs)
        if len({_text(value) for value in runs[CONFIG + key]}) > 1
    ]


def _describe(study: Study, runs: pd.DataFrame, key: str) -> str:
    values = runs[CONFIG + key].map(_text)
    for column in [*study.factor_keys, *study.block_keys, study.declaration.replicate]:
        levels = runs[CONFIG + column].map(_text)
        by_level = values.groupby(levels).unique()
        if len(by_level) > 1 and all(len(found) == 1 for found in by_level):
            if len(by_level) == 2:
                (a, one), (b, other) = ((level, found[0]) for level, found in by_level.items())
                reason = f"{one} in all runs of {column}={a}, {other} in all runs of {column}={b}"
            else:
                reason = "; ".join(f"{found[0]} with {column}={a}" for a, found in by_level.items())
            return f"{key}: {reason}: confounded with {column}"
    counts = values.value_counts()
    parts = []
    for value, number in counts.items():
        own = runs["run_id"][values == value].tolist()
        named = f" ({', '.join(own)})" if number <= MOST_RUNS else ""
        parts.append(f"{value} in {number} run{'' if number == 1 else 's'}{named}")
    return f"{key}: {', '.join(parts)}: along with no single factor"


def _text(value: Any) -> str:
    """Return text that is the same for equal values: 5 and 5.0, but not true and "true"."""
    return NOT_SET if is_missing(value) else encode(_canonical(value))


def _canonical(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
