"""Whether runs with the same seed are pairs: hashes of the data split and order."""

import pandas as pd

from analysis.runs.tables import CONFIG, SUMMARY, is_missing
from analysis.runs.waivable import blocks_of
from lib.spec.study import Study

PAIR_HASHES = ("split_sha256", "order_sha256")  # data split; order of the first epoch


def splitting_factors(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return the factors whose levels each have their own data split within each seed.

    Empty if this holds for all factors, because no pairs would be left.
    """
    column, seed = f"{SUMMARY}split_sha256", CONFIG + study.declaration.replicate
    if column not in runs or runs[column].map(is_missing).any() or runs.empty:
        return []
    hashes, seeds = runs[column].astype(str), runs[seed].astype(str) + blocks_of(study, runs)
    if hashes.groupby(seeds).nunique().max() == 1:
        return []
    keys = [key for key in study.factor_keys if CONFIG + key in runs]
    levels = {key: runs[CONFIG + key].astype(str) for key in keys}
    splitting = [
        key
        for key in keys
        if levels[key].groupby([seeds, hashes]).nunique().max() == 1
        and hashes.groupby([seeds, levels[key]]).nunique().max() == 1
    ]
    return [] if len(splitting) == len(keys) else splitting


def unpaired_seeds(study: Study, runs: pd.DataFrame, splitting: list[str]) -> list[str]:
    """Return messages about seeds whose runs differ in the data split or order, so are unpaired."""
    problems = []
    group = runs[CONFIG + study.declaration.replicate].astype(str)
    for key in [*splitting, *study.block_keys]:
        group = group + f", {key} = " + runs[CONFIG + key].astype(str)
    for name in PAIR_HASHES:
        if (column := SUMMARY + name) in runs:
            known = runs[~runs[column].map(is_missing).astype(bool)]
            hashes = known[column].astype(str).groupby(group[known.index]).nunique()
            problems += [
                f"{study.declaration.replicate} {which}: {number} different values of {name}"
                for which, number in hashes[hashes > 1].items()
            ]
    return problems
