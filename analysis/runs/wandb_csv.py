"""Read exports of the W&B app: the runs table for scores, charts for curves."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs.record import Fetched, FetchError, build_record
from analysis.runs.tables import decode

ABOUT = ("Name", "ID", "State", "Notes", "User", "Tags", "Created", "Updated", "End Time")
ABOUT += ("Runtime", "Sweep", "Group", "Job Type", "Host", "Hostname", "Commit", "GitHub")
SEPARATOR = " - "  # between a run's name and the key, in a chart's columns
EXTENT = ("__MIN", "__MAX")


def fetch_exports(
    paths: Sequence[Path], config_keys: Sequence[str]
) -> tuple[set[str], Iterator[Fetched]]:
    """Return no ids, and an iterator over the runs that the exports name.

    ``config_keys``: columns that are settings; the app's runs table does not tell them from
    results, so all other columns count as results, and the recipe is only checked in these.

    Raises:
        FetchError: when none is a runs table, or a file is neither such a table nor a chart.
    """
    tables, charts = [], []
    for path in paths:
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise FetchError(f"cannot read {path}: {error}") from error
        if {"Name", "State"} <= set(frame):
            tables.append((path, frame))
        elif any(SEPARATOR in column for column in frame.columns[1:]):
            charts.append((path, frame))
        else:
            raise FetchError(
                f"{path} is no export of the W&B app: expected a runs table with the columns Name "
                f"and State, or a chart with columns such as `run{SEPARATOR}val/error`; it has "
                f"{', '.join(frame.columns[:5])}"
            )
    if not tables:
        raise FetchError(
            f"{', '.join(map(str, paths))}: charts only. Add the runs table (in the app: Table, "
            "download, CSV), which has the settings and scores"
        )
    histories = _histories(charts)
    runs = [run for path, table in tables for run in _runs(path, table, config_keys, histories)]
    ids = [run.run_id for run in runs]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise FetchError(
            f"{', '.join(twice)}: several runs of this name. Show the column ID in the app's table "
            "before you export it"
        )
    if unknown := sorted(set(histories) - {name for _, table in tables for name in table["Name"]}):
        print(f"curves of runs that are in no runs table are left out: {', '.join(unknown)}")
    return set(), iter(runs)


def _runs(
    path: Path,
    table: pd.DataFrame,
    config_keys: Sequence[str],
    histories: dict[str, list[dict[str, Any]]],
) -> Iterator[Fetched]:
    if lacking := [key for key in config_keys if key not in table]:
        raise FetchError(
            f"{path} has no column {', '.join(lacking)}, which the sweep sets; show it in the "
            "app's table before you export it"
        )
    for row in table.to_dict("records"):
        name = row["Name"]
        run_id = row.get("ID") or re.sub(r"[^A-Za-z0-9_-]+", "-", name)
        values = {key: decode(text) for key, text in row.items() if text.strip()}
        config = {key: values.get(key) for key in config_keys}
        summary = {k: v for k, v in values.items() if k not in ABOUT and k not in config_keys}
        if isinstance(runtime := values.get("Runtime"), int | float):
            summary["_runtime"] = runtime
        state = row["State"].lower()
        code = 0 if state == "finished" else None
        logged, created = histories.get(name, []), row.get("Created", "")
        yield build_record(run_id, state, code, path.name, config, summary, logged, created=created)


def _histories(charts: Sequence[tuple[Path, pd.DataFrame]]) -> dict[str, list[dict[str, Any]]]:
    """Return history rows by the runs' names; a chart's first column is its axis."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _, frame in charts:
        axis = frame.columns[0]
        for column in frame.columns[1:]:
            if column.endswith(EXTENT) or SEPARATOR not in column:
                continue
            name, key = column.split(SEPARATOR, 1)
            rows = found.setdefault(name, [])
            for at, value in zip(frame[axis], frame[column], strict=True):
                if value.strip():
                    rows.append({axis: decode(at), key: decode(value)})
    return found
