"""Read CSV exports of the W&B app: the runs table for scores, charts for curves."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs.record import Fetched, FetchError, build_record
from analysis.runs.tables import decode

ABOUT = ("Name", "ID", "State", "Notes", "User", "Tags", "Created", "Updated", "End Time")
ABOUT += ("Runtime", "Sweep", "Group", "Job Type", "Host", "Hostname", "Commit", "GitHub")
SEPARATOR = " - "  # between run name and key in a chart's columns
EXTENT = ("__MIN", "__MAX")
NOT_SETTINGS = "a CSV export does not say which columns are settings"


def fetch_exports(
    paths: Sequence[Path], config_keys: Sequence[str]
) -> tuple[set[str], Iterator[Fetched]]:
    """Return an empty set (no run is skipped) and an iterator over the exported runs.

    ``config_keys``: the configuration columns. The runs table does not distinguish configuration
    from summary, so all other columns are taken as summary, and the recipe check only covers
    ``config_keys`` (``recipe.unchecked`` says so).

    Raises:
        FetchError: when there is no runs table, or a file is neither a runs table nor a chart.
    """
    tables, charts = [], []
    for path in paths:
        try:
            options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
            frame = pd.read_csv(path, header=None, **options)  # pandas would rename equal columns
            frame = frame[(frame != "").any(axis=1)]  # without blank lines
            frame = frame[1:].set_axis(frame.iloc[0].tolist(), axis=1)
        except UnicodeDecodeError as error:
            raise FetchError(f"cannot read {path}: not UTF-8 text; save it as UTF-8") from error
        except (OSError, ValueError) as error:
            raise FetchError(f"cannot read {path}: {error}") from error
        if {"Name", "State"} <= set(frame):
            tables.append((path, frame))
        elif any(SEPARATOR in column for column in frame.columns[1:]):
            charts.append((path, frame))
        else:
            raise FetchError(
                f"{path} is not an export of the W&B app; expected a runs table with the columns "
                f"Name and State, or a chart with columns such as `run{SEPARATOR}val/error`, got "
                f"{', '.join(frame.columns[:5])}"
            )
    if not tables:
        raise FetchError(
            f"{', '.join(map(str, paths))}: no runs table, only charts; add the runs table, which "
            "has the configurations and scores (in the app: Table, download, CSV)"
        )
    names = [name for _, table in tables for name in table["Name"]]
    histories = _histories(charts, names)
    runs = [run for path, table in tables for run in _runs(path, table, config_keys, histories)]
    ids = [run.run_id for run in runs]
    if duplicates := sorted({n for n, i in zip(names, ids, strict=True) if ids.count(i) > 1}):
        raise FetchError(
            f"duplicate run names {', '.join(duplicates)} (as run ids, which have only letters, "
            "digits, - and _); show the column ID in the app's table "
            "before exporting it"
        )
    if unknown := sorted(set(histories) - set(names)):
        print(f"skipping curves of runs that are not in the runs table: {', '.join(unknown)}")
    return set(), iter(runs)


def _runs(
    path: Path,
    table: pd.DataFrame,
    config_keys: Sequence[str],
    histories: dict[str, list[dict[str, Any]]],
) -> Iterator[Fetched]:
    if missing := [key for key in config_keys if key not in table]:
        raise FetchError(
            f"{path} has no column for the settings {', '.join(missing)}; show them in the app's "
            "table before exporting it"
        )
    for row in table.to_dict("records"):
        name = row["Name"]
        run_id = row.get("ID") or re.sub(r"[^A-Za-z0-9_-]+", "-", name)
        if len(run_id) > 128:
            raise FetchError(
                f"{path}: the name {name[:30]!r}… has over 128 letters; show the column ID in the "
                "app's table before exporting it"
            )
        values = {key: decode(text) for key, text in row.items() if text.strip()}
        config = {key: values.get(key) for key in config_keys}
        summary = {k: v for k, v in values.items() if k not in ABOUT and k not in config_keys}
        if isinstance(runtime := values.get("Runtime"), int | float):
            summary["_runtime"] = runtime
        state = row["State"].lower()
        code = 0 if state == "finished" else None
        logged, created = histories.get(name, []), row.get("Created", "")
        yield build_record(run_id, state, code, path.name, config, summary, logged, created=created)


def _histories(
    charts: Sequence[tuple[Path, pd.DataFrame]], names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return history rows by run name; a chart's first column is its axis.

    ``names``: of the runs in the table; a name may contain the separator.

    Raises:
        FetchError: if a chart's curves belong to several runs of the same name.
    """
    histories: dict[str, list[dict[str, Any]]] = {}
    for path, frame in charts:
        axis, curves = frame.columns[0], frame.columns[1:]
        for i, column in enumerate(curves, start=1):
            if column.endswith(EXTENT) or SEPARATOR not in column:
                continue
            known = [name for name in names if column.startswith(name + SEPARATOR)]
            name = max(known, key=len, default=column.split(SEPARATOR, 1)[0])
            if names.count(name) > 1 or list(curves).count(column) > 1:
                raise FetchError(
                    f"{path}: several runs are named {name!r}, so it is not known whose curve is "
                    "whose. Give each run its own name in the app and export both again, or leave "
                    "the chart out"
                )
            rows, key = histories.setdefault(name, []), column[len(name + SEPARATOR) :]
            for at, value in zip(frame.iloc[:, 0], frame.iloc[:, i], strict=True):
                if value.strip():
                    rows.append({axis: decode(at), key: decode(value)})
    return histories
