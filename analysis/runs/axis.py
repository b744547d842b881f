"""The axis of histories: the epoch, step or other key that a script logs next to its metrics."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lib.spec.words import capitalize

EPOCH = "epoch"
STEP = "_step"  # W&B's own counter of log calls, present in every run
# Names to try, in this order, if the declaration does not set `step:`.
KNOWN = (EPOCH, "Epoch", "train/epoch", "global_step", "train/global_step", "trainer/global_step")
KNOWN += ("env_step", "total_timesteps", "timesteps", "iteration", "iter", "step", "Step")
KNOWN += ("epoch/epoch", "time/total_timesteps", STEP)

Row = dict[str, Any]


def find(histories: Iterable[Sequence[Row]]) -> str:
    """Return the first known axis that every run with a history logs next to a metric.

    One that changes within runs comes before one that is constant, such as an epoch that stays 0
    while the script counts steps; W&B's own counter does not count here. ``epoch`` if there is
    none.
    """
    known = [rows for rows in histories if rows]
    found = [
        name
        for name in KNOWN
        if known and all(any(_carries(row, name) for row in rows) for rows in known)
    ]
    for name in found:
        if name != STEP and any(_changes(rows, name) for rows in known):
            return name
    return found[0] if found else EPOCH


def _changes(rows: Sequence[Row], name: str) -> bool:
    return len({row[name] for row in rows if _carries(row, name)}) > 1


def _carries(row: Row, name: str) -> bool:
    has_metric = any(_is_number(v) for k, v in row.items() if k not in KNOWN)
    return _is_number(row.get(name)) and has_metric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def merge(rows: Iterable[Row], name: str) -> tuple[list[Row], int]:
    """Return one row per value of the axis, sorted, and the number of rows with an invalid value.

    Rows with the same axis value, as logged by a resumed run, are merged; the last value of each
    metric is kept. W&B's own keys are dropped, and the axis comes first. A row is dropped if its
    axis value is missing or not a finite number; only rows that have the axis key and a metric are
    counted.
    """
    by_value: dict[float, Row] = {}
    invalid = 0
    for row in sorted(rows, key=lambda row: row.get(STEP, 0)):
        value = row.get(name)
        metrics = {k: v for k, v in row.items() if v is not None and k != name and k[0] != "_"}
        if not _is_number(value):
            invalid += name in row and bool(metrics)
            continue
        at = int(value) if float(value).is_integer() else float(value)
        by_value[at] = by_value.get(at, {name: at}) | metrics
    return [by_value[at] for at in sorted(by_value)], invalid


def label(name: str) -> str:
    """Return an axis label: "Epoch", "Global step"."""
    return capitalize(name.rpartition("/")[2].lstrip("_").replace("_", " "))
