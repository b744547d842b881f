"""A run in the common form of all sources: config, summary and history in separate namespaces."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs import axis
from analysis.runs.tables import CONFIG, GROUP, JOB_TYPE, NAN, SUMMARY, WANDB
from lib.spec.errors import UserError
from lib.spec.sweep import flat, show_value

SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.=,~-]{0,127}")  # W&B allows more characters


class FetchError(UserError):
    """Runs cannot be read; the message says which, why and what to do."""


@dataclass(frozen=True)
class Fetched:
    """A fetched run. ``row``: its row of runs.csv; ``logged``: its history rows, as logged."""

    row: dict[str, Any]
    logged: list[dict[str, Any]]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The history over the axis found in this run, one row per axis value."""
        return self.over(axis.find([self.logged]))[0]

    def over(self, name: str) -> tuple[list[dict[str, Any]], int]:
        """Return the history over an axis, and the number of rows with an invalid axis value."""
        rows, invalid = axis.merge(self.logged, name)
        return [{"run_id": self.run_id} | row | {"run_id": self.run_id} for row in rows], invalid

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
    group: str | None = None,
    job_type: str | None = None,
) -> Fetched:
    """Return a run built from W&B's ``config``, ``summary`` and history ``rows``.

    Raises:
        FetchError: when the run id or state is invalid.
    """
    if not SAFE_ID.fullmatch(run_id):
        raise FetchError(
            f"{source}: run ids name files, so they must be 1 to 128 letters, digits or any of "
            f"- _ . = , ~, and begin with a letter, digit, - or _, got {run_id!r}"
        )
    if not re.fullmatch(r"[a-z_ ]{1,20}", state):
        raise FetchError(
            f"run {run_id} from {source!r}: state must be at most 20 lowercase letters, spaces or "
            f"_, got {state!r}"
        )
    url = url if url.startswith(("https://", "http://")) else ""  # the report links to it
    head = {"run_id": run_id, "state": state, "exit_code": exit_code, "source": source, "url": url}
    head["created"] = created
    named = {GROUP: group, JOB_TYPE: job_type}
    head |= {WANDB + key: value for key, value in named.items() if value}
    settings, unlike = flat({key: v for key, v in config.items() if not key.startswith("_")})
    if unlike:
        name, values = next(iter(unlike.items()))
        raise FetchError(
            f"run {run_id} from {source!r} has two values of {name} in its config: "
            f"{show_value(values[0])} and {show_value(values[1])}, one nested and one under a name "
            "with a dot. The script used one of them. Correct the config to that value, or exclude "
            "the run"
        )
    head |= {CONFIG + key: number(value) for key, value in settings.items()}
    head |= {SUMMARY + key: _result(value) for key, value in loggable(summary).items()}
    if isinstance(runtime := summary.get("_runtime"), int | float):
        head[f"{SUMMARY}runtime_seconds"] = float(runtime)  # until the last log call
    logged = [
        {k: number(float(v) if isinstance(v, bool) else v) for k, v in loggable(row).items()}
        | {axis.STEP: row.get(axis.STEP, i)}
        for i, row in enumerate(rows)
    ]
    for key, value in summary.items():  # define_metric stores a mapping; use its last value
        if isinstance(value, Mapping) and "_type" not in value and SUMMARY + key not in head:
            last = value.get("last", _last(logged, key))
            head |= {} if last is None else {SUMMARY + key: _result(last)}
    for key in {key for row in logged for key in row}:  # W&B's summary contains the last value
        last = _last(logged, key)
        if SUMMARY + key not in head and isinstance(last, float) and math.isnan(last):
            head[SUMMARY + key] = NAN
    return Fetched(head, logged)


def _last(logged: list[dict[str, Any]], key: str) -> Any:
    """Return the last value of a history key, or None."""
    values = [row[key] for row in sorted(logged, key=lambda row: row[axis.STEP]) if key in row]
    return values[-1] if values else None


def loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` without W&B's own keys (leading underscore), media and tables.

    A server returns media as a mapping, offline files have one key for each entry of that mapping.
    Other mappings, such as the summaries of `define_metric`, become keys joined by dots.
    """
    media = tuple(key.removesuffix("_type") for key in values if key.endswith("._type"))
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith(("_", *media)):
            continue
        if isinstance(value, Mapping) and "_type" not in value:
            kept |= {f"{key}.{name}": item for name, item in loggable(value).items()}
        elif isinstance(value, str | int | float | None):
            kept[key] = value
    return kept


def _result(value: Any) -> Any:
    """Return a summary value; NaN as text, to distinguish it from a missing value."""
    value = number(value)
    return NAN if isinstance(value, float) and math.isnan(value) else value


def number(value: Any) -> Any:
    """Convert W&B's text for NaN and infinity, which JSON cannot represent, to a number."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
