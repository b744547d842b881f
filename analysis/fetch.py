r"""Collect a study's runs into tables: runs.csv, history.csv and test_images.csv.

    python -m analysis.fetch gtsrb_short
    python -m analysis.fetch entity/project/sweep_id --sweep sweeps/gtsrb.yaml

The tables have one row per run, per epoch, and per test item with a column per run. A source is a
study's name (its runs are in runs/<name>), a folder of offline runs, or a sweep on a W&B server;
several (a sweep, its fill-in) are read as one study. Runs that an earlier call found finished are
not read again. What runs saved (.npz) is copied to files/ next to the tables.

`python -m analysis.report` does the same before it reports.
"""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.runs import per_item, wandb_offline, wandb_server
from analysis.runs.record import FetchError
from analysis.runs.tables import TableError, read_tables, runs_table, write_tables
from lib.spec.errors import command
from lib.spec.metric import count
from lib.spec.study import ROOT, Study, load_study

RUNS = ROOT / "runs"  # where the local agent puts a study's runs


def collect(sources: Sequence[str | Path], out: Path, study: Study, prune: bool = False) -> str:
    """Read the runs of ``sources`` into the tables in ``out``; return what was done, in words.

    Finished runs that the tables have and the sources no longer have are kept, or removed with
    ``prune``.

    Raises:
        FetchError: when a source cannot be read; what was read before is then written.
    """
    runs, history = _earlier(out)
    known = dict(zip(runs["run_id"], runs["source"], strict=True))
    files = out / per_item.FILES
    kept, fetched, failure = set(), [], None
    for source in sources:
        if Path(source).is_dir():
            same, reading = wandb_offline.fetch_folder(Path(source), known, files)
        else:
            same, reading = wandb_server.fetch_sweep(_sweep_path(str(source)), known, files)
        read = []
        try:
            read.extend(reading)
        except FetchError as error:
            failure = error
        found = same | {run.run_id for run in read}
        if twice := found & (kept | {run.run_id for run in fetched}):
            raise FetchError(f"{source} has run(s) of another source: {', '.join(twice)}")
        kept |= same
        fetched += read
        if failure:
            break
    if failure and not kept and not fetched:
        raise failure  # nothing was read: earlier tables stay as they are
    gone = set(known) - kept - {run.run_id for run in fetched}
    if not prune or failure:
        kept |= gone
    runs = pd.concat(
        [runs[runs["run_id"].isin(kept)], runs_table([f.row for f in fetched])],
        ignore_index=True,
    )
    new_history = pd.DataFrame([row for f in fetched for row in f.history])
    history = pd.concat([history[history["run_id"].isin(kept)], new_history], ignore_index=True)
    write_tables(out, runs, _numeric(history), [*study.factor_keys, *study.fixed])
    finished = runs["run_id"][runs["state"] == "finished"].tolist()
    lacking = per_item.write(out, finished)
    if failure:
        raise failure
    words = (
        f"{count(len(fetched), 'run')} read, {len(runs)} in {out / 'runs.csv'}: {len(finished)} "
        f"finished, of {len(study.expected)} expected"
    )
    if gone:
        done = "removed" if prune else "kept (--prune removes them)"
        words += f"; {count(len(gone), 'finished run')} that the sources no longer have {done}"
    if lacking and len(lacking) < len(finished):
        words += f"\nwithout test outputs per item: {', '.join(lacking)}"
    return words


def _numeric(history: pd.DataFrame) -> pd.DataFrame:
    """Leave out history columns that hold text: they are no curves."""
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


def _sweep_path(source: str) -> str:
    if source.count("/") != 2:
        raise FetchError(
            f"{source!r} is neither a study's name, nor a folder of offline runs, nor "
            "entity/project/sweep_id"
        )
    return source


def resolve(
    sources: Sequence[str], sweep: Path | None, declaration: Path | None, out: Path | None
) -> tuple[Study, list[str | Path], Path]:
    """Return the study, the sources to read, and the folder of its tables.

    The first source may be the name of a study, whose runs are in runs/<name> and
    runs/fill_in_<name>, or the folder of its tables, which is then read as it is.

    Raises:
        StudyError: when the study cannot be found.
        FetchError: when further sources follow a folder of tables.
    """
    first = sources[0]
    is_tables = (Path(first) / "runs.csv").exists()
    is_name = "/" not in first and not Path(first).is_dir()
    name = sweep.stem if sweep else Path(first).name
    study = load_study(name, sweep=sweep, declaration=declaration)
    folder = out or (Path(first) if is_tables else study.places.tables(study.name))
    if is_tables and len(sources) > 1:
        raise FetchError(
            f"{first} holds tables, to which {', '.join(sources[1:])} cannot be added; name the "
            "folders or sweeps that the runs came from"
        )
    if is_tables or is_name:
        _copy_tables(Path(first) if is_tables else study.places.tables(study.name), folder)
    if is_tables:
        return study, [], folder
    if not is_name:
        return study, list(sources), folder
    places = [RUNS / sweep.name for sweep in study.sweeps]
    gaps = re.compile(rf"fill_in_{re.escape(study.name)}(_\d+)?")
    places += sorted(place for place in RUNS.glob("fill_in_*") if gaps.fullmatch(place.name))
    return study, [*(place for place in places if place.is_dir()), *sources[1:]], folder


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
    arguments = parser.parse_args(argv)
    study, sources, out = resolve(
        arguments.sources, arguments.sweep, arguments.declaration, arguments.out
    )
    if not sources:
        raise FetchError(
            f"no runs of {study.name} in {RUNS}; make them with `python -m lib.agent "
            f"{study.name}`, or name their folder or sweep"
        )
    print(collect(sources, out, study, arguments.prune))


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what fetch and report share: sources, --sweep, --study, --out."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="a study's name, a folder of offline runs, or entity/project/sweep_id; several are "
        "read as one study",
    )
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
