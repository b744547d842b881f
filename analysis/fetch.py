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
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analysis.grid import GridError, load_sweep
from analysis.runs import per_item
from analysis.runs.tables import TableError, read_tables, write_tables
from analysis.runs.wandb_offline import Fetched, FetchError, fetch_folder, make, public

TRIES = 4  # of a run on a server, before fetching breaks off


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
    config, summary = public(run.config), public(dict(run.summary))
    rows = [dict(row) for row in run.scan_history() if row]
    for file in run.files([per_item.SCORES, per_item.OVERLAYS]):
        file.download(root=str(files / run.id), replace=True).close()
    exit_code = 0 if run.state == "finished" else None
    source = "/".join(run.path)
    fetched = make(run.id, run.state, exit_code, source, config, summary, rows)
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
        files = arguments.out / per_item.FILES
        kept, fetched, broken_off = set(), [], None
        for source in arguments.sources:
            if Path(source).is_dir():
                same, reading = fetch_folder(Path(source), known, files)
            else:
                same, reading = fetch_server(_sweep_path(source), known, files)
            read = []
            try:
                read.extend(reading)
            except FetchError as error:
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
        if (lacking := per_item.write(arguments.out, finished)) and len(lacking) < len(finished):
            print(f"without per-image test outputs: {', '.join(lacking)}")
        if broken_off:
            raise broken_off
    except (GridError, FetchError, TableError, OSError) as error:
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
