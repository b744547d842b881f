r"""Collect a study's runs into tables: runs.csv, history.csv and test_images.csv.

    python -m analysis.fetch runs/gtsrb_short --sweep sweeps/gtsrb_short.yaml \
        --out analysis/results/gtsrb_short
    python -m analysis.fetch entity/project/sweep_id --sweep sweeps/gtsrb.yaml \
        --out analysis/results/gtsrb

They have a row a run, a row an epoch, and a row a test image with a column a run.
A source is a folder of offline runs or a sweep on a W&B server; several (a sweep, its fill-in) are
read as one study. Runs that an earlier call found finished are not read again. What runs saved
(.npz) is copied to files/ beside the tables.
"""

import argparse
import functools
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analysis import images, offline
from analysis.grid import GridError, load_sweep
from analysis.tables import TableError, read_tables, write_tables

CHUNK = 16  # runs that one process reads
TRIES = 4  # of a run on a server, before fetching breaks off
STATE_OF_EXIT = {0: "finished", 255: "killed"}


class FetchError(RuntimeError):
    """Runs that cannot be read; says which, why and what to do."""


@dataclass(frozen=True)
class Fetched:
    """One run as found: ``row`` for runs.csv, ``history`` rows for history.csv."""

    row: dict[str, Any]
    history: list[dict[str, Any]]


def fetch_folder(
    folder: Path, known: dict[str, str], files: Path
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids that need no reading, and an iterator over the others, read several at a time.

    Of each run below ``folder`` the last attempt that finished counts; where none did, the newest.
    ``known`` (run id -> source) need no reading while their newest file is still that source. What
    a run saved is copied to ``files``/<run id>.
    """
    attempts: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        attempts.setdefault(path.stem.removeprefix("run-"), []).append(path)
    if not attempts:
        raise FetchError(
            f"{folder}/wandb has no offline runs; was the agent's --out another folder?"
        )
    kept = {i for i, files in attempts.items() if known.get(i) == files[-1].parent.name}
    new = {i: files for i, files in attempts.items() if i not in kept}

    def read() -> Iterator[Fetched]:
        runs = list(new.items())
        chunks = [runs[i : i + CHUNK] for i in range(0, len(runs), CHUNK)]
        bar = tqdm(total=len(runs), desc="reading runs", unit="run", disable=None)
        with bar, ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for run in itertools.chain.from_iterable(pool.map(_read_runs, chunks)):
                if isinstance(run, offline.OfflineError):
                    raise run
                run_id = run.row["run_id"]
                for name in (images.SCORES, images.OVERLAYS):
                    if (folder / run_id / name).exists():
                        (files / run_id).mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(folder / run_id / name, files / run_id / name)
                bar.update()
                yield run

    return kept, read()


def fetch_server(
    sweep_path: str, known: dict[str, str], files: Path
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids that need no reading, and an iterator over the sweep's other runs.

    What a run saved is downloaded to ``files``/<run id>.

    Raises:
        FetchError: when the server or the sweep cannot be reached, also while iterating.
    """
    # Four retries, half a minute: with W&B's default of many the process hangs at its exit.
    os.environ.setdefault("WANDB_X_GRAPHQL_RETRY_MAX", "4")
    import wandb  # takes a second; reading a folder does not need it

    try:
        runs = list(wandb.Api(timeout=120).sweep(sweep_path).runs)
    except Exception as error:  # W&B's client raises many kinds, some of them plain
        raise FetchError(
            f"cannot read the sweep {sweep_path}: {error}. Expected entity/project/sweep_id as "
            "`wandb sweep` prints it, and an account (`wandb login`) that may read it."
        ) from error
    kept = {run.id for run in runs if known.get(run.id) == "/".join(run.path)}
    new = [run for run in runs if run.id not in kept]

    def read() -> Iterator[Fetched]:
        for run in tqdm(new, desc="reading runs", unit="run", disable=None):
            yield _with_retries(functools.partial(_read_server_run, run, files), run.path)

    return kept, read()


def _read_server_run(run: Any, files: Path) -> Fetched:
    """Read one run of W&B's public API, with what it saved; its state is read again first."""
    run.load_full_data(force=True)
    config, summary = _public(run.config), _public(dict(run.summary))
    rows = [dict(row) for row in run.scan_history() if row]
    for file in run.files([images.SCORES, images.OVERLAYS]):
        file.download(root=str(files / run.id), replace=True).close()
    exit_code = 0 if run.state == "finished" else None
    source = "/".join(run.path)
    fetched = _fetched(run.id, run.state, exit_code, source, config, summary, rows)
    fetched.row["url"] = run.url
    return fetched


def _with_retries(read: Callable[[], Fetched], path: list[str]) -> Fetched:
    """Call ``read`` until it succeeds, after a second, two, four, ... at most TRIES times.

    Raises:
        FetchError: naming the run when the last try fails.
    """
    for again in range(TRIES):
        try:
            return read()
        except Exception as error:  # W&B's client raises many kinds, some of them plain
            failure = error
            if again < TRIES - 1:
                time.sleep(2**again)
    raise FetchError(
        f"reading {'/'.join(path)} broke off {TRIES} times: {failure}. What was read is kept; the "
        "same command reads the rest."
    ) from failure


def _read_runs(attempts: list[tuple[str, list[Path]]]) -> list[Fetched | offline.OfflineError]:
    """Read runs' offline files; of each run one attempt, see fetch_folder, or why there is none."""
    contents = iter(offline.read([file for _, files in attempts for file in files]))
    return [
        _attempt(run_id, [(file.parent.name, next(contents)) for file in files])
        for run_id, files in attempts
    ]


def _attempt(run_id: str, tries: list[tuple[str, Any]]) -> Fetched | offline.OfflineError:
    newest = None
    for source, records in reversed(tries):
        if isinstance(records, offline.OfflineError):
            newest = newest or records
            continue
        attempt = _from_records(run_id, source, records)
        if attempt.row["state"] == "finished":
            return attempt
        newest = newest or attempt
    return newest


def _from_records(run_id: str, source: str, records: list[dict[str, Any]]) -> Fetched:
    config, summary, rows, exit_code = {}, {}, [], None
    for record in records:
        match record.get("type"):
            case "run":
                config |= record["run"].get("config", {}).get("update", {})
            case "config":
                config |= record["config"].get("update", {})
            case "summary":
                summary |= record["summary"].get("update", {})
            case "history":
                rows.append(record["history"]["item"])
            case "exit":
                exit_code = record["exit"].get("exit_code", 0)
    state = "crashed" if exit_code is None else STATE_OF_EXIT.get(exit_code, "failed")
    return _fetched(run_id, state, exit_code, source, _public(config), _public(summary), rows)


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out W&B's own keys, which begin with an underscore, and pictures and tables."""
    return {
        key: value
        for key, value in values.items()
        if not key.startswith("_") and isinstance(value, str | int | float | None)
    }


def _fetched(
    run_id: str,
    state: str,
    exit_code: int | None,
    source: str,
    config: dict[str, Any],
    summary: dict[str, Any],
    rows: list[dict[str, Any]],
) -> Fetched:
    if both := set(config) & set(summary):
        raise FetchError(
            f"run {run_id}: {', '.join(sorted(both))} stands in both config and summary"
        )
    head = {"run_id": run_id, "state": state, "exit_code": exit_code, "source": source}
    head |= {key: _number(value) for key, value in (config | summary).items()}
    by_epoch = {}  # the last value of an epoch counts: a resumed run repeats some
    for row in sorted(rows, key=lambda row: row.get("_step", 0)):
        if row.get("epoch") is not None:  # W&B writes it into rows of pictures, too
            row = {key: value for key, value in row.items() if value is not None}
            values = {key: _number(value) for key, value in _public(row).items()}
            by_epoch[int(row["epoch"])] = by_epoch.get(int(row["epoch"]), {}) | values
    history = [{"run_id": run_id, **by_epoch[epoch]} for epoch in sorted(by_epoch)]
    return Fetched(head, history)


def _number(value: Any) -> Any:
    """Undo W&B's text for the numbers that JSON lacks."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def main() -> None:
    """Collect a study's runs into runs.csv, history.csv and test_images.csv."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="folder of offline runs, or entity/project/sweep_id; several are one study's parts",
    )
    parser.add_argument("--sweep", type=Path, required=True, help="the sweep's YAML")
    parser.add_argument("--out", type=Path, required=True, help="analysis/results/<study>")
    arguments = parser.parse_args()
    try:
        sweep = load_sweep(arguments.sweep)
        runs, history = _earlier(arguments.out)
        known = dict(zip(runs["run_id"], runs["source"], strict=True))
        files = arguments.out / images.FILES
        kept, fetched, broken_off = set(), [], None
        for source in arguments.sources:
            if Path(source).is_dir():
                same, reading = fetch_folder(Path(source), known, files)
            else:
                same, reading = fetch_server(_sweep_path(source), known, files)
            read = []
            try:
                read.extend(reading)
            except (FetchError, offline.OfflineError) as error:
                broken_off = error
            found = same | {run.row["run_id"] for run in read}
            if twice := found & (kept | {run.row["run_id"] for run in fetched}):
                raise FetchError(f"{source} has run(s) of another source: {', '.join(twice)}")
            kept |= same
            fetched += read
            if broken_off:
                break
        runs = pd.concat(
            [runs[runs["run_id"].isin(kept)], pd.DataFrame([f.row for f in fetched])],
            ignore_index=True,
        )
        new_history = pd.DataFrame([row for f in fetched for row in f.history])
        history = pd.concat([history[history["run_id"].isin(kept)], new_history], ignore_index=True)
        write_tables(arguments.out, runs, history, list(sweep.factors) + list(sweep.fixed))
        finished = runs["run_id"][runs["state"] == "finished"].tolist()
        if (lacking := images.write(arguments.out, finished)) and len(lacking) < len(finished):
            print(f"without per-image test outputs: {', '.join(lacking)}")
        if broken_off:
            raise broken_off
    except (GridError, FetchError, offline.OfflineError, TableError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    gone = len(set(known) - kept - {f.row["run_id"] for f in fetched})
    print(
        f"{len(fetched)} runs read, {len(runs)} in {arguments.out / 'runs.csv'}: {len(finished)} "
        f"finished, of {len(sweep.cells) * len(sweep.seeds)} expected"
        + (f"; {gone} no longer in the source, taken out" if gone else "")
    )


def _earlier(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished runs that an earlier call wrote, and their histories."""
    nothing = pd.DataFrame(columns=["run_id", "source"]), pd.DataFrame(columns=["run_id"])
    if not (folder / "runs.csv").exists():
        return nothing
    try:
        runs, history = read_tables(folder)
    except TableError as error:
        print(f"{error}; reading everything anew")
        return nothing
    runs = runs[(runs["state"] == "finished") & runs["run_id"].isin(history["run_id"])]
    return runs, history[history["run_id"].isin(runs["run_id"])]


def _sweep_path(source: str) -> str:
    if source.count("/") != 2:
        raise FetchError(f"{source!r} is neither a folder nor entity/project/sweep_id")
    return source


if __name__ == "__main__":
    main()
