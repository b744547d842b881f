r"""Collect a study's runs into tables: runs.csv, history.csv and test_images.csv.

    python -m analysis.fetch gtsrb_short
    python -m analysis.fetch entity/project/sweep_id
    python -m analysis.fetch entity/project --filter '{"config.algo": "ppo"}' --study mine.yaml

The tables have one row per run, per epoch, and per test item with a column per run. A source is a
study's name (its runs are in runs/<name>), a folder of offline runs, a sweep on a W&B server, or a
project there, whose runs --filter or --group choose; the address from the browser will do; or
exports of the W&B app (*.csv: the runs table, and charts for curves; with --sweep). Several
(a sweep, its fill-in) are read as one study. A sweep's YAML is read from the server where none is
given; runs without a sweep are compared by the declaration and what their configurations vary
(sweep.yaml next to the tables says what was found). Runs that an earlier call found finished are
not read again. What runs saved (.npz) is copied to files/ next to the tables.

`python -m analysis.report` does the same before it reports.
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
from lib.spec.metric import count
from lib.spec.study import ROOT, Places, Study, load_study

SWEEP = "sweep.yaml"  # next to the tables: a sweep that was read from a server, or from its runs
FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RUNS = ROOT / "runs"  # where the local agent puts a study's runs


def collect(
    sources: Sequence[str | Path],
    out: Path,
    study: Study | None,
    prune: bool = False,
    filters: dict[str, Any] | None = None,
    step: str | None = None,
) -> str:
    """Read the runs of ``sources`` into the tables in ``out``; return what was done, in words.

    ``study``: None where it is only known from the runs. ``filters``: in W&B's syntax. ``step``:
    the declared axis of histories. Finished runs that the tables have and the sources no longer
    have are kept, or removed with ``prune``.

    Raises:
        FetchError: when a source cannot be read; what was read before is then written.
    """
    runs, history = _earlier(out)
    files = out / per_item.FILES
    again = per_item.to_fetch_again(files)
    known = dict(zip(runs["run_id"], runs["source"], strict=True))
    known = {run_id: source for run_id, source in known.items() if run_id not in again}
    kept, fetched = set(), []
    failure: BaseException | None = None
    exports = [Path(source) for source in sources if is_export(source)]
    for source in [*(s for s in sources if not is_export(s)), *([exports] if exports else [])]:
        if source is exports:
            same, reading = wandb_csv.fetch_exports(exports, _config_keys(study))
        elif Path(source).is_dir():
            same, reading = wandb_offline.fetch_folder(Path(source), known, files)
            reading = (run for run in reading if selection.matches(run.row, filters or {}))
        else:
            where = wandb_server.address(str(source))
            same, reading = wandb_server.fetch_runs(where, known, files, filters)
        read = []
        try:
            read.extend(reading)
        except (FetchError, KeyboardInterrupt) as error:
            failure = error
        found = same | {run.run_id for run in read}
        if twice := found & (kept | {run.run_id for run in fetched}):
            raise FetchError(f"{source} has run(s) of another source: {', '.join(twice)}")
        kept |= same
        fetched += read
        if failure:
            break
    if not kept and not fetched:  # earlier tables stay as they are
        raise failure or FetchError(
            f"{', '.join(map(str, sources))}: no runs"
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
    rows = _over(step, fetched)
    history = pd.concat([earlier, pd.DataFrame(rows)], ignore_index=True)
    first = [*study.factor_keys, *study.fixed] if study else []
    write_tables(out, runs, _numeric(history), first, step)
    finished = runs["run_id"][runs["state"] == "finished"].tolist()
    lacking = per_item.write(out, finished)
    if failure:
        raise failure
    words = (
        f"{count(len(fetched), 'run')} read, {len(runs)} in {out / 'runs.csv'}: {len(finished)} "
        "finished"
    )
    words += f", of {len(study.expected)} expected" if study and study.seeds else ""
    if gone:
        done = "removed" if prune else "kept (--prune removes them)"
        words += f"; {count(len(gone), 'finished run')} that the sources no longer have {done}"
    if lacking and len(lacking) < len(finished):
        words += f"\nwithout test outputs per item: {', '.join(lacking)}"
    return words


def is_export(source: str | Path) -> bool:
    """Say whether a source is a CSV file, an export of the W&B app."""
    return str(source).endswith(".csv")


def _config_keys(study: Study | None) -> list[str]:
    """Return the columns of an export that are settings: what the study's sweeps set."""
    if study is None:
        raise FetchError("an export of the W&B app needs its sweep's YAML: give it with --sweep")
    return list(dict.fromkeys(key for sweep in study.sweeps for key in sweep.parameters))


def _over(name: str, fetched: Sequence[Fetched]) -> list[dict[str, Any]]:
    """Return the runs' histories over an axis; say which rows have no value of it."""
    found, lacking, without = [], 0, []
    for run in fetched:
        rows, number = run.over(name)
        found += rows
        lacking += number
        if not rows and any(len(row) > 1 for row in run.logged):
            without.append(run.run_id)
    if lacking:
        print(f"{count(lacking, 'history row')} left out: {name} is no finite number there")
    if without:
        print(
            f"no history over {name}: {', '.join(without)}; name another axis with `step:` in the "
            "declaration"
        )
    return found


def _numeric(history: pd.DataFrame) -> pd.DataFrame:
    """Leave out history columns that hold text or have names like formulas: they are no curves."""
    if odd := [name for name in history if str(name)[:1] in FORMULA or "\n" in str(name)]:
        print(f"history columns left out for their names: {', '.join(map(repr, odd))}")
        history = history.drop(columns=odd)
    text = [
        name
        for name in history.columns.drop("run_id", errors="ignore")
        if history[name].map(lambda value: isinstance(value, str)).any()
    ]
    if text:
        print(f"history columns with text are left out: {', '.join(text)}")
    return history.drop(columns=text)


def _earlier(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished runs that an earlier call wrote, and their histories."""
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
    """What the command line asks for: sources, and where the parts of the study are."""

    sources: Sequence[str]
    sweep: Path | None = None
    declaration: Path | None = None
    out: Path | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    prune: bool = False


def resolve(asked: Request) -> tuple[Study, list[str | Path], Path]:
    """Return the study, the sources that are still to be read, and the folder of its tables.

    The first source may be the name of a study, whose runs are in runs/<name> and
    runs/fill_in_<name>, or the folder of its tables, which is then read as it is. A sweep on a
    server brings its own configuration; runs without a sweep are read at once, since the study is
    what they vary.

    Raises:
        StudyError: when the study cannot be found.
        FetchError: when further sources follow a folder of tables, or a server cannot be read.
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
    study = load_study(name, sweep=sweep, declaration=asked.declaration)
    folder = asked.out or (Path(first) if is_tables else study.places.tables(study.name))
    if is_tables and len(asked.sources) > 1:
        raise FetchError(
            f"{first} holds tables, to which {', '.join(asked.sources[1:])} cannot be added; name "
            "the folders or sweeps that the runs came from"
        )
    if is_tables or is_name:
        _copy_tables(Path(first) if is_tables else study.places.tables(study.name), folder)
    if is_tables:
        return study, [], folder
    if not is_name:
        return study, list(asked.sources), folder
    places = [RUNS / sweep.name for sweep in study.sweeps]
    gaps = re.compile(rf"fill_in_{re.escape(study.name)}(_\d+)?")
    places += sorted(place for place in RUNS.glob("fill_in_*") if gaps.fullmatch(place.name))
    return study, [*(place for place in places if place.is_dir()), *asked.sources[1:]], folder


def _from_server(
    asked: Request, where: wandb_server.Address
) -> tuple[Study, list[str | Path], Path]:
    """Return study, sources and folder of runs on a server of which no sweep's YAML is here."""
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
        _write_sweep(folder, raw, f"The sweep {where.path}, as the server has it.")
        study = load_study(name, sweep=folder / SWEEP, declaration=asked.declaration)
        return study, list(asked.sources), folder
    path = asked.declaration or Places().declaration(name)
    if not path.exists():
        raise FetchError(
            f"{where.path} is a project: say with --study what is compared in it, at least "
            "`metric:` and `factors:`, and with --filter or --group which runs; see "
            "docs/own-study.md"
        )
    declared = read_declaration(path)
    print(collect(asked.sources, folder, None, asked.prune, asked.filters, declared.step))
    runs, _ = read_tables(folder)
    _write_sweep(folder, selection.sweep_of(runs, declared), "What the fetched runs vary.")
    return load_study(name, sweep=folder / SWEEP, declaration=path), [], folder


def _write_sweep(folder: Path, raw: dict[str, Any], about: str) -> None:
    text = f"# {about}\n" + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    write_atomically(folder / SWEEP, text.encode())


def _copy_tables(source: Path, folder: Path) -> None:
    """Begin in ``folder`` with the tables of ``source``, unless it has some of its own."""
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
    if not sources and not (out / "runs.csv").exists():
        raise FetchError(
            f"no runs of {study.name} in {RUNS}; make them with `python -m lib.agent "
            f"{study.name}`, or name their folder or sweep"
        )
    if sources:
        step = study.declaration.step
        print(collect(sources, out, study, asked.prune, asked.filters, step))


def request(arguments: argparse.Namespace) -> Request:
    """Return what the command line asks for.

    Raises:
        FetchError: when --filter is no JSON mapping.
    """
    filters: Any = {}
    if arguments.filter:
        try:
            filters = json.loads(arguments.filter)
        except ValueError as error:
            filters = error
        if not isinstance(filters, dict):
            raise FetchError(
                f"--filter {arguments.filter!r} is no JSON mapping. Write it as W&B's API does: "
                '\'{"config.algo": "ppo"}\''
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
    """Add what fetch and report share: sources, --sweep, --study, --out."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="a study's name, a folder of offline runs, entity/project/sweep_id, entity/project, "
        "the address of either in the browser, or CSV exports of the W&B app; several are read as "
        "one study",
    )
    parser.add_argument(
        "--filter", help="which runs of a project or folder, as JSON in W&B's syntax"
    )
    parser.add_argument("--group", help="which runs of a project: those of this W&B group")
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
        help="remove finished runs from the tables that the sources no longer have",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for tables and report (default: analysis/results/<name>)"
    )


if __name__ == "__main__":
    main()
