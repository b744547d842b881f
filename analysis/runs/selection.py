"""Select the runs of a study, and collect their levels if there is no sweep."""

import re
from typing import Any

import pandas as pd

from analysis.runs.record import FetchError
from analysis.runs.tables import (
    CONFIG,
    GROUP,
    JOB_TYPE,
    SUMMARY,
    WANDB,
    is_missing,
    keys,
    with_settings,
)
from lib.spec.declaration import Declaration
from lib.spec.sweep import same_value

FILTER_KEYS = {"group": WANDB + GROUP, "jobType": WANDB + JOB_TYPE}  # W&B's names in filters
WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")
OPERATORS = ("$in", "$nin", "$ne", "$exists")


def matches(row: dict[str, Any], filters: dict[str, Any]) -> bool:
    """Return whether a run of an offline folder matches filters in W&B's syntax.

    Keys are config.<name>, summary_metrics.<name> (or summary.<name>), state, group and jobType. A
    filter's value is the required value, or a mapping of ``OPERATORS``.

    Raises:
        FetchError: when a key or operator is not supported for runs in a folder.
    """
    for key, condition in filters.items():
        column = FILTER_KEYS.get(key, key.replace("summary_metrics.", SUMMARY))
        if key != "state" and not column.startswith((CONFIG, SUMMARY, WANDB)):
            raise FetchError(
                "--filter: for runs in a folder, keys must be config.<name>, "
                f"summary_metrics.<name>, state, group or jobType, got {key!r}"
            )
        tests = condition if isinstance(condition, dict) else {"$in": [condition]}
        for operator, value in tests.items():
            if operator not in OPERATORS:
                raise FetchError(
                    "--filter: for runs in a folder, operators must be one of "
                    f"{', '.join(OPERATORS)}, got {operator!r} for {key}"
                )
            if not _holds(operator, row.get(column), value, column in row):
                return False
    return True


def _holds(operator: str, actual: Any, value: Any, exists: bool) -> bool:
    if operator == "$exists":
        return exists == bool(value)
    if operator == "$ne":
        return not same_value(actual, value)
    among = any(same_value(actual, item) for item in value)
    return among if operator == "$in" else not among


def sweep_of(runs: pd.DataFrame, declared: Declaration) -> dict[str, Any]:
    """Return a sweep configuration with the levels of ``runs``, for runs without a sweep.

    Its parameters are the declared factors, keys of arms, blocks and replicate. Numbers are sorted;
    other levels are in the order of ``runs``.

    Raises:
        FetchError: when the declaration has no factors, or a key that no run has.
    """
    declared_keys = settings_of(declared)
    runs = with_settings(runs, declared_keys)
    available = [*keys(runs, CONFIG), *keys(runs, WANDB)]
    if not declared_keys:
        varied = [key for key in keys(runs, CONFIG) if len(_levels(runs, key)) > 1]
        raise FetchError(
            "no sweep is known for these runs. Pass the sweep's YAML as --sweep, or add `factors:` "
            "or `arms:` to the declaration, such as `factors: {optimizer: [adam, sgd]}`; keys that "
            f"vary between the runs: {', '.join(varied) or 'none'}"
        )
    parameters = {}
    for key in declared_keys:
        if key not in available and key == declared.replicate:
            others = [k for k in keys(runs, CONFIG) if k not in declared_keys]
            varied = [k for k in others if len(_levels(runs, k)) > 1]
            raise FetchError(
                f"no run has the key {key} in its config, which tells repeated runs apart. Set "
                f"`seed:` of the declaration to the key that does (keys that vary: "
                f"{', '.join(varied) or 'none'}), or to {{repeat: true}} if repeated runs have "
                "identical configurations"
            )
        if key not in available:
            raise FetchError(
                f"no run has the declared key {key} in its config; available keys: "
                f"{', '.join(available)}"
            )
        levels = _levels(runs, key)
        if key == declared.replicate:
            own = runs[_compared(runs, declared)]
            own = own if len(own) else runs
            levels = _levels(own, key)
            of_numbers = [level for level in levels if not isinstance(level, str)]
            levels = _levels(with_numeric_seeds(own, key, of_numbers), key)
        parameters[key] = {"values": levels}
    return {"method": "grid", "parameters": parameters}


def _compared(runs: pd.DataFrame, declared: Declaration) -> pd.Series:
    """Return which runs have declared levels of all factors, or the settings of one of the arms."""

    def has(key: str, levels: list[Any]) -> pd.Series:
        values = runs[CONFIG + key] if CONFIG + key in runs else pd.Series(None, runs.index)
        return values.map(lambda value: any(same_value(value, one) for one in levels)).astype(bool)

    chosen = pd.Series(True, runs.index)
    for key, levels in (declared.factors or {}).items():
        chosen &= has(key, levels)
    if declared.arms:
        any_arm = pd.Series(False, runs.index)
        for arm in declared.arms.values():
            of_arm = pd.Series(True, runs.index)
            for key, level in arm.items():
                of_arm &= has(key, [level])
            any_arm |= of_arm
        chosen &= any_arm
    return chosen


def settings_of(declared: Declaration) -> list[str]:
    """Return the declared config keys: factors or keys of arms, then blocks, then the replicate.

    Empty if neither factors nor arms are declared.
    """
    compared = [*(declared.factors or {})]
    compared += [key for arm in (declared.arms or {}).values() for key in arm]
    if not compared:
        return []
    replicate = [] if declared.repeats else [declared.replicate]
    return list(dict.fromkeys([*compared, *declared.block, *replicate]))


def _levels(runs: pd.DataFrame, key: str) -> list[Any]:
    """Return the distinct values of a config key; numbers sorted."""
    levels: list[Any] = []
    for value in runs[CONFIG + key]:
        if not is_missing(value) and not any(same_value(value, known) for known in levels):
            levels.append(value)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels)
    return sorted(levels) if numbers else levels


def with_numeric_seeds(runs: pd.DataFrame, key: str, seeds: list[Any]) -> pd.DataFrame:
    """Return ``runs`` with whole numbers that are text in the column of the seed, ``key``, as int.

    One script may log the seed 3 and another "3". Unless one of ``seeds``, those of the study, is
    text, there are none, or a run has other text.
    """
    if CONFIG + key not in runs or not seeds or any(isinstance(seed, str) for seed in seeds):
        return runs
    texts = [value for value in runs[CONFIG + key] if isinstance(value, str)]
    if not all(map(WHOLE.fullmatch, texts)):
        return runs
    converted = pd.Series(map(_number, runs[CONFIG + key]), index=runs.index, dtype=object)
    return runs.assign(**{CONFIG + key: converted})


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) else value
