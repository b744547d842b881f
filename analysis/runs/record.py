"""One run as it was found, from wherever it was read: config, summary and history apart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs.tables import CONFIG, SUMMARY
from lib.spec.errors import UserError

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class FetchError(UserError):
    """Runs that cannot be read; says which, why and what to do."""


@dataclass(frozen=True)
class Fetched:
    """One run as found: ``row`` for runs.csv, ``history`` rows for history.csv."""

    row: dict[str, Any]
    history: list[dict[str, Any]]

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
    url = url if url.startswith(("https://", "http://")) else ""  # it becomes a link
    head = {"run_id": run_id, "state": state, "exit_code": exit_code, "source": source, "url": url}
    head |= {CONFIG + key: number(value) for key, value in flat(config).items()}
    head |= {SUMMARY + key: number(value) for key, value in loggable(summary).items()}
    if isinstance(runtime := summary.get("_runtime"), int | float):
        head[f"{SUMMARY}runtime_seconds"] = float(runtime)  # W&B's, from its start to its last row
    by_epoch: dict[int, dict[str, Any]] = {}  # a resumed run repeats epochs: the last value counts
    for row in sorted(rows, key=lambda row: row.get("_step", 0)):
        if row.get("epoch") is not None:  # W&B writes it into rows of pictures, too
            row = {key: value for key, value in row.items() if value is not None}
            values = {key: number(value) for key, value in loggable(row).items()}
            if not (isinstance(row["epoch"], int | float) and row["epoch"] >= 1):
                raise FetchError(
                    f"run {run_id} from {source} logs epoch {row['epoch']!r}; epochs are counted "
                    "from 1"
                )
            by_epoch[int(row["epoch"])] = by_epoch.get(int(row["epoch"]), {}) | values
    history = [{"run_id": run_id, **by_epoch[epoch]} for epoch in sorted(by_epoch)]
    return Fetched(head, history)


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

    A server gives a picture as a mapping, offline files as one key for each of its entries.
    """
    pictures = tuple(key.removesuffix("_type") for key in values if key.endswith("._type"))
    return {
        key: value
        for key, value in values.items()
        if not key.startswith(("_", *pictures)) and isinstance(value, str | int | float | None)
    }


def number(value: Any) -> Any:
    """Undo W&B's text for the numbers that JSON lacks."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
