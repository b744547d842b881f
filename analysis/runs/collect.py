"""Read the runs of sources, wherever they are, into one study's tables."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs import axis, per_item, selection, wandb_csv, wandb_offline, wandb_server
from analysis.runs.record import Fetched, FetchError
from analysis.runs.tables import (
    FORMULA,
    WANDB,
    TableError,
    is_missing,
    read_tables,
    runs_table,
    write_tables,
)
from lib.spec.study import Study
from lib.spec.words import count


def collect(
    sources: Sequence[str | Path],
    out: Path,
    study: Study | None,
    prune: bool = False,
    filters: dict[str, Any] | None = None,
    step: str | None = None,
    config_keys: Sequence[str] = (),
    fresh: bool = False,
) -> str:
    """Read the runs of ``sources`` into the tables in ``out``; return a summary as text.

    ``study``: None if it is only known after the runs have been read. ``filters``: in W&B's syntax.
    ``step``: the declared axis of histories. ``config_keys``: the columns of CSV exports that are
    settings, if ``study`` is None. ``prune``: remove finished runs that are no longer in
    any source from the tables; by default they are kept. ``fresh``: read runs again that are
    finished in the tables, as after a correction; another ``step`` than that of the tables does so.

    Raises:
        FetchError: when a source cannot be read (the runs read until then are written first), or
            when no runs match or a run is in two sources (the tables are then not changed).
    """
    runs, history = _earlier(out)
    moved = bool(step and len(history) and history.attrs["axis"] != step)
    files = out / per_item.FILES
    damaged = per_item.to_fetch_again(files)
    known = dict(zip(runs["run_id"], runs["source"], strict=True))
    settings = _config_keys(study) if study else list(config_keys)
    again = damaged | _without_names(runs, [*settings, *(filters or {})])
    known = {run_id: source for run_id, source in known.items() if run_id not in again}
    if fresh or moved:
        known = {}
    kept, fetched = set(), []
    failure: BaseException | None = None
    exports = [Path(source) for source in sources if is_export(source)]
    if exports and filters:
        raise FetchError(
            "--filter and --group cannot select runs of a CSV export; filter the table in the W&B "
            "app and export it again"
        )
    for source in [*(s for s in sources if not is_export(s)), *([exports] if exports else [])]:
        if source is exports:
            unchanged, reading = wandb_csv.fetch_exports(exports, settings)
        elif Path(source).is_dir():
            unchanged, reading = wandb_offline.fetch_folder(Path(source), known, files, step)
            if filters:
                reading = (run for run in reading if selection.matches(run.row, filters))
                unchanged &= _selected(runs, filters)
        else:
            where = wandb_server.address(str(source))
            unchanged, reading = wandb_server.fetch_runs(where, known, files, filters)
        read = []
        try:
            read.extend(reading)
        except (FetchError, KeyboardInterrupt) as error:
            failure = error
        ids = unchanged | {run.run_id for run in read}
        if duplicates := ids & (kept | {run.run_id for run in fetched}):
            raise FetchError(
                f"{source}: duplicate runs {', '.join(sorted(duplicates))}, also in an earlier "
                "source; each run must be in one source only"
            )
        kept |= unchanged
        fetched += read
        if failure:
            break
    if not kept and not fetched:  # do not change the existing tables
        raise failure or FetchError(
            f"no runs in {', '.join(map(str, sources))}"
            + (f" with the filter {json.dumps(filters)}" if filters else "")
        )
    gone = set(runs["run_id"]) - kept - {run.run_id for run in fetched}
    if filters and not prune and not failure:
        _require_selected(gone - _selected(runs, filters), out)
    if moved and failure:  # the tables cannot have two axes
        raise failure
    if moved and gone and not prune:
        raise FetchError(
            f"{out} has the histories of runs {', '.join(sorted(gone))} over "
            f"{history.attrs['axis']}, and these runs are in no source any more, so they cannot be "
            f"read over {step}. Add their source, remove them with --prune, or set `step: "
            f"{history.attrs['axis']}`"
        )
    if not prune or failure:
        kept |= gone
    runs = pd.concat(
        [runs[runs["run_id"].isin(kept)], runs_table([f.row for f in fetched])],
        ignore_index=True,
    )
    declared = step is not None
    complete = [f.logged for f in fetched if f.row["state"] == "finished"]
    step = step or axis.find(complete or [f.logged for f in fetched])
    earlier = history[history["run_id"].isin(kept)]
    if len(earlier) and not moved:
        step = earlier.attrs["axis"]
        earlier = earlier.rename(columns={"epoch": step, "epoch (logged)": "epoch"})
    rows = _history_rows(step, fetched)
    history = pd.concat([earlier, pd.DataFrame(rows)], ignore_index=True)
    first = [*study.factor_keys, *study.fixed] if study else []
    write_tables(out, runs, _numeric(history), first, step)
    finished = runs["run_id"][runs["state"] == "finished"].tolist()
    without_items = per_item.write(out, finished)
    if failure:
        raise failure
    text = (
        f"{count(len(fetched), 'run')} read, {len(runs)} in {out / 'runs.csv'}: {len(finished)} "
        "finished"
    )
    text += f", of {len(study.expected)} expected" if study and study.seeds else ""
    if gone:
        done = "removed" if prune else "kept (use --prune to remove)"
        text += f"; {count(len(gone), 'finished run')} no longer in any source: {done}"
        if prune and not declared and step == axis.STEP and len(earlier):
            text += f". The axis {step} is that of the first fetch; --fresh chooses it again"
    if without_items and len(without_items) < len(finished):
        text += f"\nno per-item test outputs for runs {', '.join(without_items)}"
    return text


def _selected(runs: pd.DataFrame, filters: dict[str, Any]) -> set[str]:
    """Return the ids of the tables' runs that match a filter.

    None of them if it has keys or operators that only a server knows.
    """
    found = set()
    for row in runs.to_dict("records"):
        known = {name: value for name, value in row.items() if not is_missing(value)}
        try:
            if selection.matches(known, filters):
                found.add(row["run_id"])
        except FetchError:
            return set()
    return found


def _require_selected(excluded: set[str], out: Path) -> None:
    """Raise a FetchError if runs of the tables would be compared although a filter excludes them.

    Runs that match the filter and are in no source any more are kept.
    """
    if excluded:
        raise FetchError(
            f"{out} has {count(len(excluded), 'finished run')} that this --filter or --group does "
            f"not select: {', '.join(sorted(excluded)[:5])}{' …' * (len(excluded) > 5)}. Remove "
            "them from the tables with --prune, or write other tables with --out"
        )


def is_export(source: str | Path) -> bool:
    """Return whether a source is a CSV file, exported from the W&B app."""
    return str(source).lower().endswith(".csv")


def _config_keys(study: Study) -> list[str]:
    """Return an export's configuration columns: the sweeps' parameters and the free keys."""
    parameters = [key for sweep in study.sweeps for key in sweep.parameters]
    return list(dict.fromkeys([*parameters, *study.declaration.free]))


def _without_names(runs: pd.DataFrame, wanted: Sequence[str]) -> set[str]:
    """Return the ids of runs that lack a wanted group or job type, as in tables without them."""
    found: set[str] = set()
    for key, column in selection.FILTER_KEYS.items():
        if key in wanted or column.removeprefix(WANDB) in wanted:
            has = runs.get(column, pd.Series(math.nan, runs.index))
            found |= set(runs["run_id"][has.map(is_missing)])
    return found


def _history_rows(axis_key: str, fetched: Sequence[Fetched]) -> list[dict[str, Any]]:
    """Return the runs' history rows over an axis; print how many were dropped and why."""
    histories, dropped, empty = [], 0, []
    alone, beside = Counter(), set()  # metrics in rows without the axis, and with it
    for run in fetched:
        rows, number = run.over(axis_key)
        histories += rows
        dropped += number
        if not rows and any(len(row) > 1 for row in run.logged):
            empty.append(run.run_id)
        for row in run.logged:
            metrics = {key for key in row if key[0] != "_"}
            if axis_key in row:
                beside |= metrics
            else:
                alone.update(metrics)
    if dropped:
        print(f"dropping {count(dropped, 'history row')}: {axis_key} is not a finite number")
    if empty:
        print(
            f"no history over {axis_key} in runs {', '.join(empty)}; set another axis with `step:` "
            "in the declaration"
        )
    if lost := {key: rows for key, rows in alone.items() if key not in beside and not empty}:
        shown = ", ".join(f"{key} ({count(rows, 'row')})" for key, rows in sorted(lost.items())[:5])
        print(
            f"without {axis_key} in the same row, so without a curve: {shown}"
            f"{' and others' * (len(lost) > 5)}. Log them together, or set `step: {axis.STEP}` in "
            "the declaration"
        )
    return histories


def _numeric(history: pd.DataFrame) -> pd.DataFrame:
    """Drop history columns that contain text, or whose names look like spreadsheet formulas."""
    if unsafe := [name for name in history if str(name)[:1] in FORMULA or "\n" in str(name)]:
        print(
            f"dropping history columns {', '.join(map(repr, unsafe))}: names must not begin with "
            f"one of {FORMULA} or contain a line break"
        )
        history = history.drop(columns=unsafe)
    text = [
        name
        for name in history.columns.drop("run_id", errors="ignore")
        if history[name].map(lambda value: isinstance(value, str)).any()
    ]
    if text:
        print(f"dropping history columns that contain text: {', '.join(text)}")
    return history.drop(columns=text)


def _earlier(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished runs in the existing tables, and their histories."""
    nothing = pd.DataFrame(columns=["run_id", "source"]), pd.DataFrame(columns=["run_id"])
    if not (folder / "runs.csv").exists():
        return nothing
    try:
        runs, history = read_tables(folder)
    except TableError as error:
        print(f"{error}. Reading all runs again.")
        return nothing
    runs = runs[(runs["state"] == "finished") & runs["run_id"].isin(history["run_id"])]
    return runs, history[history["run_id"].isin(runs["run_id"])]
