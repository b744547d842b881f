"""Estimate the spread over seeds and the run time of a planned study from an earlier one."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs import per_item, score_checks
from analysis.runs.selection import with_numeric_seeds
from analysis.runs.tables import (
    CONFIG,
    SUMMARY,
    TableError,
    encode,
    numbers,
    read_tables,
    with_settings,
)
from analysis.statistics import design
from lib.spec.study import NUISANCE_FIELDS, RULES, Study
from lib.spec.sweep import same_value, show_value
from lib.spec.words import count

OUTLIER = 8  # robust standard deviations from what variant and seed predict


@dataclass(frozen=True)
class Pilot:
    """Estimates from earlier runs: spread over seeds within a variant, and run times.

    ``deviation``: standard deviation of a run's score after removing the effects of variant and
    seed. ``without_outliers``: the same without the ``outliers``. ``seconds_per_epoch``: the
    median. ``startup_seconds``: median seconds of a run outside its epochs; both are None if
    unknown. ``failed``: how many of the ``runs`` failed; their scores are left out. ``mismatches``:
    differences from the planned recipe, by config key. ``residuals``: of the planned variants over
    the seeds without a failed run or outlier, (variants, seeds), first for the declared score rule,
    then for others; empty if the pilot lacks a variant or has too few seeds.
    """

    deviation: float
    without_outliers: float
    outliers: int
    seconds_per_epoch: float | None
    startup_seconds: float | None
    runs: int
    failed: int
    mismatches: dict[str, str]
    residuals: list[np.ndarray]


def read_pilot(folder: Path, study: Study) -> Pilot:
    """Return the spread and the run times from the tables of an earlier study.

    If no run is missing, the common effect of a seed on all variants is removed, since it cancels
    in paired contrasts. For a study with blocks, of the mean over blocks.

    Raises:
        TableError: if the tables lack the study's score, if a variant has two runs with the same
            seed (the pilot varied something else), if no variant has two finished runs, or if it
            does not show the spread of the mean over the study's blocks.
    """
    runs, history = read_tables(folder)
    runs = with_settings(runs, [*study.factor_keys, study.declaration.replicate])
    runs = with_numeric_seeds(runs, study.declaration.replicate, study.seeds)
    seed, key = CONFIG + study.declaration.replicate, study.score_key()
    names = [CONFIG + name for name in study.factor_keys if CONFIG + name in runs]
    scores = numbers(runs, key)
    if scores.isna().all() or seed not in runs or (study.factor_keys and not names):
        wanted = ", ".join(study.factor_keys) or study.declaration.replicate
        raise TableError(f"{folder}/runs.csv has no scores {key} or no column for {wanted}")
    runs = runs.assign(score=scores)[runs["state"] == "finished"]
    table = per_item.read(folder)
    failed = score_checks.failed_runs(study, runs)  # and those that predict a single class
    failed |= runs["run_id"].map(lambda run: per_item.collapsed(table, run)).astype(bool)
    runs = runs.assign(score=runs["score"].mask(failed))[failed | runs["score"].notna()]
    failed = failed[runs.index]
    blocks = _block_columns(study, runs, folder)
    plain = runs[[*names, seed, *blocks]].map(encode)
    if (duplicate := plain.duplicated()).any():
        keys = ", ".join(name.removeprefix(CONFIG) for name in plain)
        raise TableError(
            f"{folder}: several runs have the same {keys}, for example "
            f"{runs['run_id'][duplicate].iloc[0]}. Did this pilot vary something else?"
        )
    all_runs, all_failed = runs, failed
    if blocks:
        runs, failed = _averaged(study, runs, failed, [*names, seed], blocks)
    plain = runs[[*names, seed]].map(encode)
    plain = plain.assign(score=runs["score"], variant="all")
    table = plain.pivot_table(index=seed, columns=names or "variant", values="score")
    deviation = _spread(table)
    if deviation is None:
        raise TableError(
            f"{folder}: no variant has two finished runs, so the spread cannot be estimated"
        )
    centered = table - table.median()
    centered = centered.sub(centered.median(axis=1), axis=0)
    typical = 1.4826 * np.nanmedian(np.abs(centered))  # SD of a normal distribution from its MAD
    off = np.abs(centered) > OUTLIER * typical
    without = _spread(table.mask(off)) if typical > 0 else None
    return Pilot(
        deviation,
        without or deviation,
        int(off.to_numpy().sum()),
        *_times(all_runs, history),
        len(all_runs),
        int(all_failed.sum()),
        _mismatches(study, all_runs),
        _residuals(study, runs, failed, off, names, seed),
    )


def _block_columns(study: Study, runs: pd.DataFrame, folder: Path) -> list[str]:
    """Return the columns of the study's blocks; empty without blocks.

    Raises:
        TableError: if the runs do not show the spread of the mean over the blocks.
    """
    if len(study.blocks) < 2:
        return []
    columns, scale = [CONFIG + key for key in study.block_keys], study.declaration.block_scale
    if scale != "raw":
        raise TableError(
            f"{study.name} averages over blocks on the scale {scale!r}. The spread on this scale "
            "is not estimated from a pilot; plan without --pilot"
        )
    if lacking := [name.removeprefix(CONFIG) for name in columns if name not in runs]:
        raise TableError(
            f"{study.name} averages over {count(len(study.blocks), 'block')}, and {folder} has no "
            f"config value {', '.join(lacking)}. Use a pilot with runs in the same blocks"
        )
    return columns


def _averaged(
    study: Study, runs: pd.DataFrame, failed: pd.Series, keys: list[str], blocks: list[str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Return one row per variant and seed, with its mean scores over blocks, and which failed.

    ``keys``, ``blocks``: the columns of variant and seed, and of the block. Without a run in each
    block, or with a failed one, the scores are NaN.
    """
    wanted = {tuple(encode(block[key]) for key in study.block_keys) for block in study.blocks}
    of_block = runs[blocks].map(encode).apply(tuple, axis=1).isin(wanted)
    scores = ["score", *(SUMMARY + study.score_key(rule) for rule in RULES)]
    scores = [name for name in scores if name in runs]
    rows, lost = [], []
    for group in runs[keys].map(encode)[of_block].groupby(keys, sort=False).groups.values():
        fails = bool(failed[group].any())
        whole = len(group) == len(study.blocks) and not fails
        values = runs.loc[group, scores].apply(pd.to_numeric, errors="coerce")
        mean = values.mean(skipna=False) if whole else values.mean() * np.nan
        rows.append(runs.loc[group[0]].drop(scores).to_dict() | mean.to_dict())
        lost.append(fails)
    return pd.DataFrame(rows), pd.Series(lost)


def _times(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[float | None, float | None]:
    """Return the median seconds per epoch, and of a run outside its epochs; None if unknown."""
    if "seconds" not in history:
        return None, None
    epochs = history[history["run_id"].isin(runs["run_id"])]
    if not epochs["seconds"].notna().any():
        return None, None
    outside = numbers(runs, "runtime_seconds").set_axis(runs["run_id"])
    outside = (outside - epochs.groupby("run_id")["seconds"].sum()).dropna()
    if f"{SUMMARY}resumed_from_epoch" in runs:  # a resumed run starts more than once
        unbroken = numbers(runs, "resumed_from_epoch").set_axis(runs["run_id"]).fillna(0) == 0
        outside = outside[unbroken.reindex(outside.index).fillna(True)]
    startup = float(max(0.0, outside.median())) if len(outside) else None
    return float(epochs["seconds"].median()), startup


def _residuals(
    study: Study,
    runs: pd.DataFrame,
    failed: pd.Series,
    off: pd.DataFrame,
    names: list[str],
    seed: str,
) -> list[np.ndarray]:
    """Return the residuals of the planned variants, one array per score rule that all runs have."""
    keys = [name.removeprefix(CONFIG) for name in names]
    wanted = [tuple(encode(config[key]) for key in keys) for config in study.configs.values()]
    if set(keys) != set(study.factor_keys) or len(set(wanted)) < len(wanted) or len(wanted) < 2:
        return []
    columns = [one[0] if len(keys) == 1 else one for one in wanted]
    if not set(columns) <= set(off.columns):
        return []
    found: list[np.ndarray] = []
    plain = runs[[*names, seed]].map(encode)
    for rule in (study.rule, *(rule for rule in RULES if rule != study.rule)):
        scores = numbers(runs, study.score_key(rule)).mask(failed)
        table = plain.assign(score=scores).pivot(index=seed, columns=names, values="score")
        usable = table[columns].mask(off[columns].reindex(table.index)).dropna()
        one = design.residuals(usable.to_numpy().T)
        if one is not None and (not found or one.shape == found[0].shape):
            found.append(one)
        elif not found:
            return []
    return found


def _mismatches(study: Study, runs: pd.DataFrame) -> dict[str, str]:
    found = {}
    for name, value in study.fixed.items():
        used = runs.get(CONFIG + name)
        if used is None or name in NUISANCE_FIELDS or name == "data":
            continue
        if not all(same_value(one, value) for one in used):
            shown = ", ".join(sorted({show_value(one) for one in used}))
            found[name] = f"{name} = {shown}, planned {show_value(value)}"
    return found


def _spread(scores: pd.DataFrame) -> float | None:
    """Return the standard deviation within variant and seed of a table (seeds, variants).

    The effect of a seed is removed if every seed has runs of several variants. Missing runs reduce
    the degrees of freedom.
    """
    residuals = scores - scores.mean()
    freedom = int((scores.count() - 1).clip(lower=0).sum())
    if scores.shape[1] > 1 and (scores.count(axis=1) > 1).all():
        residuals = residuals.sub(residuals.mean(axis=1), axis=0)
        freedom -= scores.shape[0] - 1
    return float(np.sqrt(np.nansum(residuals.to_numpy() ** 2) / freedom)) if freedom > 0 else None


def contrast_deviation(study: Study, deviation: float) -> float:
    """Return the standard deviation over seeds of a main effect, given that of a run.

    A main effect is the difference between two levels' means over the other factors. With
    independent runs its variance is 2 deviation² / (variants per level). The factor with the most
    levels is used, because its contrasts have the largest variance. Without factors a run is
    compared with a fixed number, so the result is ``deviation``.
    """
    if not study.factors:
        return deviation
    most = max(len(levels) for levels in study.factors.values())
    return deviation * math.sqrt(2 / (len(study.variants) // most))
