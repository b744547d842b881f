"""The axis of curves: epochs, steps or whatever a script logs its metrics against."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lib.spec.metric import capitalize

EPOCH = "epoch"
STEP = "_step"  # W&B's own count of log calls, which every run has
# The names that are looked for, in this order, where the declaration names none.
KNOWN = (EPOCH, "Epoch", "train/epoch", "global_step", "train/global_step", "trainer/global_step")
KNOWN += ("env_step", "total_timesteps", "timesteps", "iteration", "iter", "step", "Step", STEP)

Row = dict[str, Any]


def find(histories: Iterable[Sequence[Row]]) -> str:
    """Return the first known axis that every run with a history logs next to a metric."""
    known = [rows for rows in histories if rows]
    for name in KNOWN:
        if known and all(any(_carries(row, name) for row in rows) for rows in known):
            return name
    return EPOCH


def _carries(row: Row, name: str) -> bool:
    others = any(_is_number(v) for k, v in row.items() if k not in KNOWN)
    return _is_number(row.get(name)) and others


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def merge(rows: Iterable[Row], name: str) -> tuple[list[Row], int]:
    """Return one row per value of the axis, in its order, and how many rows have no such value.

    A resumed run repeats values: the last one counts. W&B's own keys are left out, and the axis
    comes first. Rows without any metric do not count as lacking a value.
    """
    by_value: dict[float, Row] = {}
    lacking = 0
    for row in sorted(rows, key=lambda row: row.get(STEP, 0)):
        value = row.get(name)
        own = {k: v for k, v in row.items() if v is not None and k != name and k[0] != "_"}
        if not _is_number(value):
            lacking += name in row and bool(own)
            continue
        at = int(value) if float(value).is_integer() else float(value)
        by_value[at] = by_value.get(at, {name: at}) | own
    return [by_value[at] for at in sorted(by_value)], lacking


def label(name: str) -> str:
    """Return words for an axis: "Epoch", "Global step"."""
    return capitalize(name.rpartition("/")[2].lstrip("_").replace("_", " "))
