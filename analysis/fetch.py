r"""Collect a study's runs into tables: runs.csv, history.csv and test_images.csv.

    python -m analysis.fetch gtsrb_short
    python -m analysis.fetch entity/project/sweep_id
    python -m analysis.fetch entity/project --filter '{"config.algo": "ppo"}' --study mine.yaml

runs.csv has one row per run, history.csv one row per run and epoch, and test_images.csv one row per
test item and a column per run. A source is one of:

- a study's name (its runs are in runs/<name>) or a folder of offline runs;
- a sweep or project on a W&B server, as a path or as its URL; --filter or --group selects runs;
- CSV exports of the W&B app: the runs table, and charts for curves (requires --sweep).

Several sources, such as a sweep and its fill-in sweep, are read as one study. Without --sweep or a
local YAML of the same name, a sweep's configuration is read from the server. For runs without a
sweep, the levels of the declared factors are collected from the runs' configurations and written to
sweep.yaml next to the tables. Runs that are finished in the existing tables are not read again.
Output files of runs (.npz) are copied to files/ next to the tables.

`python -m analysis.report` runs the same steps before it writes a report.
"""

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.runs import axis, per_item, selection, wandb_csv, wandb_offline, wandb_server
from analysis.runs.record import Fetched, FetchError
from analysis.runs.tables import FORMULA, TableError, read_tables, runs_table, write_tables
from lib.spec.declaration import read_declaration
from lib.spec.errors import command
from lib.spec.files import write_atomically
from lib.spec.load import load_study
from lib.spec.metric import count
from lib.spec.study import ROOT, Places, Study

SWEEP = "sweep.yaml"  # next to the tables: the sweep from the server, or collected from the runs
FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RUNS = ROOT / "runs"  # the local agent writes a study's runs here


def collect(
    sources: Sequence[str | Path],
    out: Path,
    study: Study | None,
    prune: bool = False,
    filters: dict[str, Any] | None = None,
    step: str | None = None,
) -> str:
    """Read the runs of ``sources`` into the tables in ``out``; return a summary as text.

    ``study``: None if it is only known after the runs have been read. ``filters``: in W&B's syntax.
    ``step``: the declared axis of histories. ``prune``: remove finished runs that are no longer in
    any source from the tables; by default they are kept.

    Raises:
        FetchError: when a source cannot be read (the runs read until then are written first), or
            when no runs match or a run is in two sources (the tables are then not changed).
    """
    runs, history = _earlier(out)
    files = out / per_item.FILES
    damaged = per_item.to_fetch_again(files)
    known = dict(zip(runs["run_id"], runs["source"], strict=True))
    known = {run_id: source for run_id, source in known.items() if run_id not in damaged}
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
            unchanged, reading = wandb_csv.fetch_exports(exports, _config_keys(study))
        elif Path(source).is_dir():
            unchanged, reading = wandb_offline.fetch_folder(Path(source), known, files)
            reading = (run for run in reading if selection.matches(run.row, filters or {}))
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
    if not prune or failure:
        kept |= gone
    runs = pd.concat(
        [runs[runs["run_id"].isin(kept)], runs_table([f.row for f in fetched])],
        ignore_index=True,
    )
    step = step or axis.find(f.logged for f in fetched)
    earlier = history[history["run_id"].isin(kept)]
    if len(earlier):
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
    if without_items and len(without_items) < len(finished):
        text += f"\nno per-item test outputs for runs {', '.join(without_items)}"
    return text


def is_export(source: str | Path) -> bool:
    """Return whether a source is a CSV file, exported from the W&B app."""
    return str(source).endswith(".csv")


def _config_keys(study: Study | None) -> list[str]:
    """Return the export's configuration columns: the parameters of the study's sweeps."""
    if study is None:
        raise FetchError("a CSV export requires the sweep's YAML; pass it with --sweep")
    return list(dict.fromkeys(key for sweep in study.sweeps for key in sweep.parameters))


def _history_rows(axis_key: str, fetched: Sequence[Fetched]) -> list[dict[str, Any]]:
    """Return the runs' history rows over an axis; print how many were dropped and why."""
    histories, dropped, empty = [], 0, []
    for run in fetched:
        rows, number = run.over(axis_key)
        histories += rows
        dropped += number
        if not rows and any(len(row) > 1 for row in run.logged):
            empty.append(run.run_id)
    if dropped:
        print(f"dropping {count(dropped, 'history row')}: {axis_key} is not a finite number")
    if empty:
        print(
            f"no history over {axis_key} in runs {', '.join(empty)}; set another axis with `step:` "
            "in the declaration"
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


@dataclass(frozen=True)
class Request:
    """The command-line arguments: sources, filters, and paths of the study's files."""

    sources: Sequence[str]
    sweep: Path | None = None
    declaration: Path | None = None
    out: Path | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    prune: bool = False


def resolve(asked: Request) -> tuple[Study, list[str | Path], Path]:
    """Return the study, the sources still to be read, and the folder for its tables.

    The first source may be a study's name, whose runs are in runs/<name> and runs/fill_in_<name>,
    or a folder of tables, which leaves no source to read. The configuration of a sweep on a server
    is read from there. Runs without a sweep are fetched here, because the study's levels are
    collected from their configurations.

    Raises:
        StudyError: when the study cannot be found.
        FetchError: when a folder of tables is followed by other sources, or a server cannot be
            read.
    """
    first = asked.sources[0]
    is_tables = (Path(first) / "runs.csv").exists()
    is_name = "/" not in first and not Path(first).is_dir()
    sweep, name = asked.sweep, asked.sweep.stem if asked.sweep else Path(first).name
    if is_tables and sweep is None and (Path(first) / SWEEP).exists():
        sweep = Path(first) / SWEEP
    is_name = is_name and not is_export(first)
    on_server = not is_name and not Path(first).is_dir() and not is_export(first)
    if is_export(first) and sweep is None:
        _config_keys(None)
    if on_server and sweep is None:
        return _from_server(asked, wandb_server.address(first))
    is_folder = Path(first).is_dir() and not is_tables
    if is_folder and sweep is None and not Places().sweep(name).exists():
        raise FetchError(f"a folder of offline runs needs its sweep: add --sweep {name}.yaml")
    study = load_study(name, sweep=sweep, declaration=asked.declaration)
    folder = asked.out or (Path(first) if is_tables else study.places.tables(study.name))
    if is_tables and len(asked.sources) > 1:
        raise FetchError(
            f"{first} contains tables, which cannot be combined with other sources "
            f"({', '.join(asked.sources[1:])}); pass the folders or sweeps that its runs came from"
        )
    if is_tables or is_name:
        _copy_tables(Path(first) if is_tables else study.places.tables(study.name), folder)
    if is_tables:
        return study, [], folder
    if not is_name:
        return study, list(asked.sources), folder
    places = [RUNS / sweep.name for sweep in study.sweeps]
    fill_in = re.compile(rf"fill_in_{re.escape(study.name)}(_\d+)?")
    places += sorted(place for place in RUNS.glob("fill_in_*") if fill_in.fullmatch(place.name))
    places = [place for place in places if (place / "wandb").is_dir()]  # runs have started there
    if not places and not asked.sources[1:] and not (folder / "runs.csv").exists():
        raise FetchError(
            f"no runs of {study.name} in {RUNS}; run `python -m lib.agent {study.name}`, or pass "
            "their folder or sweep as source"
        )
    return study, [*places, *asked.sources[1:]], folder


def _from_server(
    asked: Request, where: wandb_server.Address
) -> tuple[Study, list[str | Path], Path]:
    """Return study, sources and folder for runs on a server, without a local sweep YAML."""
    raw = wandb_server.sweep_config(where) if where.sweep else None
    name = asked.declaration.stem if asked.declaration else where.sweep or where.project
    if raw and isinstance(raw.get("name"), str) and FILE_NAME.fullmatch(raw["name"]):
        name = asked.declaration.stem if asked.declaration else raw["name"]
    if Places().sweep(name).exists() and asked.out is None:
        return (
            load_study(name, declaration=asked.declaration),
            list(asked.sources),
            Places().tables(name),
        )
    folder = asked.out or Places().tables(name)
    if raw is not None:
        _write_sweep(folder, raw, f"The sweep {where.path}, read from the server.")
        study = load_study(name, sweep=folder / SWEEP, declaration=asked.declaration)
        return study, list(asked.sources), folder
    path = asked.declaration or Places().declaration(name)
    if not path.exists():
        raise FetchError(
            f"{where.path} is a project, not a sweep; pass a declaration with at least `metric:` "
            "and `factors:` as --study, and select its runs with --filter or --group; see "
            "docs/own-study.md"
        )
    declared = read_declaration(path)
    print(collect(asked.sources, folder, None, asked.prune, asked.filters, declared.step))
    runs, _ = read_tables(folder)
    _write_sweep(folder, selection.sweep_of(runs, declared), "Levels of the fetched runs.")
    return load_study(name, sweep=folder / SWEEP, declaration=path), [], folder


def _write_sweep(folder: Path, raw: dict[str, Any], about: str) -> None:
    text = f"# {about}\n" + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    write_atomically(folder / SWEEP, text.encode())


def _copy_tables(source: Path, folder: Path) -> None:
    """Copy the tables of ``source`` to ``folder``, unless it already contains tables."""
    if (folder / "runs.csv").exists() or not (source / "runs.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("history.csv", per_item.NAME, "runs.csv"):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Collect a study's runs into runs.csv, history.csv and test_images.csv."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add_source_arguments(parser)
    asked = request(parser.parse_args(argv))
    study, sources, out = resolve(asked)
    if sources:
        step = study.declaration.step
        print(collect(sources, out, study, asked.prune, asked.filters, step))


def request(arguments: argparse.Namespace) -> Request:
    """Return the parsed arguments as a ``Request``.

    Raises:
        FetchError: when --filter is not a JSON object.
    """
    filters: Any = {}
    if arguments.filter:
        try:
            filters = json.loads(arguments.filter)
        except ValueError as error:
            filters = error
        if not isinstance(filters, dict):
            raise FetchError(
                f"--filter must be a JSON object in the syntax of W&B's API, such as "
                f'{{"config.algo": "ppo"}}, got {arguments.filter!r}'
            )
    if arguments.group:
        filters = filters | {"group": arguments.group}
    return Request(
        arguments.sources,
        arguments.sweep,
        arguments.declaration,
        arguments.out,
        filters,
        arguments.prune,
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that fetch and report share: sources, filters and paths."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="a study's name, a folder of offline runs, entity/project/sweep_id, entity/project, "
        "the URL of either, or CSV exports of the W&B app; several sources are read as one study",
    )
    parser.add_argument(
        "--filter", help="select runs of a project or folder, as JSON in W&B's syntax"
    )
    parser.add_argument("--group", help="select the runs of this W&B group; W&B projects only")
    parser.add_argument(
        "--sweep", type=Path, help="the sweep's YAML (default: sweeps/<name of the source>.yaml)"
    )
    parser.add_argument(
        "--study",
        dest="declaration",
        type=Path,
        help="the declaration's YAML (default: analysis/studies/<name>.yaml)",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove finished runs from the tables if they are no longer in any source",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for tables and report (default: analysis/results/<name>)"
    )


if __name__ == "__main__":
    main()
