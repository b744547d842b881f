"""One run as it was found, from wherever it was read: config, summary and history apart."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs import axis
from analysis.runs.tables import CONFIG, NAN, SUMMARY
from lib.spec.errors import UserError

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class FetchError(UserError):
    """Runs that cannot be read; says which, why and what to do."""


@dataclass(frozen=True)
class Fetched:
    """One run as found: ``row`` for runs.csv, ``logged``: its history rows as they were logged."""

    row: dict[str, Any]
    logged: list[dict[str, Any]]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The history over the axis that this run has, one row per value."""
        return self.over(axis.find([self.logged]))[0]

    def over(self, name: str) -> tuple[list[dict[str, Any]], int]:
        """Return the history over an axis, and how many rows have no value of it."""
        rows, lacking = axis.merge(self.logged, name)
        return [{"run_id": self.run_id} | row for row in rows], lacking

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.row["run_id"]


def build_record(
    run_id: str,
    state: str,
    exit_code: int | None,
    source: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    rows: list[dict[str, Any]],
    url: str = "",
    created: str = "",
) -> Fetched:
    """Return the run that W&B's ``config``, ``summary`` and history ``rows`` make.

    Raises:
        FetchError: on a run id that is not letters, digits, - and _: it names files.
    """
    if not RUN_ID.fullmatch(run_id):
        raise FetchError(
            f"run id {run_id!r} from {source} is refused: ids must be 1 to 128 letters, digits, - "
            "or _, since they name files"
        )
    if not re.fullmatch(r"[a-z_ ]{1,20}", state):
        raise FetchError(f"run {run_id} from {source!r} has the state {state!r}, which W&B lacks")
    url = url if url.startswith(("https://", "http://")) else ""  # it becomes a link
    head = {"run_id": run_id, "state": state, "exit_code": exit_code, "source": source, "url": url}
    head["created"] = created
    head |= {CONFIG + key: number(value) for key, value in flat(config).items()}
    head |= {SUMMARY + key: _result(value) for key, value in loggable(summary).items()}
    if isinstance(runtime := summary.get("_runtime"), int | float):
        head[f"{SUMMARY}runtime_seconds"] = float(runtime)  # W&B's, from its start to its last row
    logged = [
        {k: number(v) for k, v in loggable(row).items()} | {axis.STEP: row.get(axis.STEP, i)}
        for i, row in enumerate(rows)
    ]
    for key, value in summary.items():  # define_metric: the bare name is the last value
        if isinstance(value, Mapping) and "_type" not in value and SUMMARY + key not in head:
            last = value.get("last", _last(logged, key))
            head |= {} if last is None else {SUMMARY + key: _result(last)}
    for key in {key for row in logged for key in row}:  # the last value is what W&B summarizes
        last = _last(logged, key)
        if SUMMARY + key not in head and isinstance(last, float) and math.isnan(last):
            head[SUMMARY + key] = NAN
    return Fetched(head, logged)


def _last(logged: list[dict[str, Any]], key: str) -> Any:
    """Return the last value of a history key, or None."""
    found = [row[key] for row in sorted(logged, key=lambda row: row[axis.STEP]) if key in row]
    return found[-1] if found else None


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with nested names joined by dots, without W&B's own keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key.startswith("_"):
            continue
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out W&B's own keys, which begin with an underscore, and pictures and tables.

    A server gives a picture as a mapping, offline files as one key for each of its entries. Other
    mappings, such as the summaries of `define_metric`, become keys joined by dots.
    """
    pictures = tuple(key.removesuffix("_type") for key in values if key.endswith("._type"))
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(("_", *pictures)):
            continue
        if isinstance(value, Mapping) and "_type" not in value:
            found |= {f"{key}.{name}": one for name, one in loggable(value).items()}
        elif isinstance(value, str | int | float | None):
            found[key] = value
    return found


def _result(value: Any) -> Any:
    """Return a summary's value; NaN as text, so that it is not taken for an absent one."""
    value = number(value)
    return NAN if isinstance(value, float) and math.isnan(value) else value


def number(value: Any) -> Any:
    """Undo W&B's text for the numbers that JSON lacks."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
