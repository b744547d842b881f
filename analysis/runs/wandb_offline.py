"""Read runs from W&B's offline files with W&B's own reader, several files per process.

`wandb leet inspect` reads one file per call and takes half a second to start, so a thousand runs
would take minutes.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.runs import axis, per_item
from analysis.runs.record import Fetched, FetchError, build_record
from analysis.runs.tables import CONFIG, SUMMARY, encode
from analysis.runs.waivable import SAME_WITHIN_RUN
from lib.spec.files import FINISHED
from lib.spec.study import CHANGED

END = "end of file "
CHUNK = 16  # runs per process
READER = "from analysis.runs import wandb_offline; wandb_offline.main()"
REMEDY = (
    "All other runs were read. Delete the folder of each of these files and run the sweep's "
    "command again; it reruns them, from a checkpoint if there is one."
)
DAMAGED = (
    "run {run_id} is marked as finished, but its file in {folder}/wandb/{source} is damaged: it "
    "has no exit record. Delete {folder}/{run_id}/finished.json and run the sweep's command again."
)
LINKED = (
    "runs {runs}: the output files per item are links to files that a later run may have "
    "overwritten, so they are not used; write them to the folder run.dir (docs/own-study.md)"
)
STATE_OF_EXIT = {0: "finished", 255: "killed"}


def fetch_folder(
    folder: Path, known: dict[str, str], files: Path, step: str | None = None
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids of runs already in the tables, and an iterator over the other runs.

    ``known``: the source of each run in the tables, by run id; a run is skipped if its newest file
    is still this source. If a run has several files, the last finished attempt is used, else the
    newest, with the history of the attempts that it continues. Output files of runs are copied to
    ``files``/<run id>. ``step``: the declared axis of histories.

    Raises:
        FetchError: when there are no runs; at the end of the iteration, listing unreadable files.
    """
    attempts: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        attempts.setdefault(path.stem.removeprefix("run-"), []).append(path)
    if not attempts:
        raise FetchError(
            f"no offline runs in {folder}/wandb; pass the folder that contains wandb/, such as the "
            "local agent's --out"
        )
    kept = {i for i, files in attempts.items() if known.get(i) == files[-1].parent.name}
    new = {i: files for i, files in attempts.items() if i not in kept}

    def read() -> Iterator[Fetched]:
        read_chunk = functools.partial(_read_runs, step=step)
        failed: list[FetchError] = []
        links: list[str] = []
        runs = list(new.items())
        chunks = [runs[i : i + CHUNK] for i in range(0, len(runs), CHUNK)]
        bar = tqdm(total=len(runs), desc="reading runs", unit="run", disable=None)
        with bar, ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for run in chain.from_iterable(pool.map(read_chunk, chunks)):
                if run is None:
                    continue
                if isinstance(run, FetchError):
                    failed.append(run)
                    continue
                run_id = run.run_id
                if run.row["state"] == "crashed" and (folder / run_id / FINISHED).exists():
                    print(DAMAGED.format(folder=folder, run_id=run_id, source=run.row["source"]))
                links += [run_id] * _copy_outputs(folder, run, files)
                bar.update()
                yield run
        if links:
            print(LINKED.format(runs=", ".join(links)))
        if failed:
            raise FetchError("\n".join([str(error) for error in failed] + [REMEDY]))

    return kept, read()


def _copy_outputs(folder: Path, run: Fetched, files: Path) -> bool:
    """Copy a run's output files per item to ``files``; return whether one is only a link.

    They are in the run's folder or, as W&B keeps them offline, next to its file. There, a file that
    was saved from elsewhere is a symbolic or hard link, perhaps to the same file as other runs'.
    """
    kept = folder / "wandb" / run.row["source"] / "files"
    linked = False
    for name in (per_item.SCORES, per_item.OVERLAYS):
        own, saved = folder / run.run_id / name, kept / name
        found = own if own.exists() else saved
        if found == saved and (
            found.is_symlink() or (found.exists() and found.stat().st_nlink > 1)
        ):
            linked = True
        elif found.exists():
            (files / run.run_id).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, files / run.run_id / name)
    return linked


def _read_runs(
    attempts: list[tuple[str, list[Path]]], step: str | None
) -> list[Fetched | FetchError | None]:
    """Read runs' offline files; return one attempt per run, chosen as in fetch_folder, or an error.

    None if all files of a run are truncated before its configuration, as after a kill.
    """
    contents = iter(read_files([file for _, files in attempts for file in files]))
    return [
        _attempt(run_id, [(file.parent.name, next(contents)) for file in files], step)
        for run_id, files in attempts
    ]


def _attempt(
    run_id: str, tries: list[tuple[str, Any]], step: str | None
) -> Fetched | FetchError | None:
    chosen, earlier = None, []
    for source, records in reversed(_in_order(tries)):
        if isinstance(records, FetchError):
            chosen = chosen or records
            continue
        if not {"run", "config", "exit"} & {record.get("type") for record in records}:
            if chosen is None:
                print(f"skipping {source}: its file is truncated before the run's configuration")
            continue
        attempt = _from_records(run_id, source, records)
        finished = attempt.row["state"] == "finished"
        if chosen is None or (finished and not _is_finished(chosen)):
            chosen, earlier = attempt, []
        else:
            earlier.append(attempt)
    return chosen if isinstance(chosen, FetchError) else _continued(chosen, earlier, step)


def _in_order(tries: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the attempts in the order of their start.

    The time in a folder's name is local: it may decrease if a run moves to another time zone. An
    attempt of which the start cannot be read keeps its place after the one before it.
    """
    starts, last = [], ""
    for _, records in tries:
        if not isinstance(records, FetchError):
            runs = [record["run"] for record in records if record.get("type") == "run"]
            last = next((run["start_time"] for run in runs if "start_time" in run), last)
        starts.append(last)
    return [tries[i] for i in sorted(range(len(tries)), key=starts.__getitem__)]


def _is_finished(attempt: Fetched | FetchError) -> bool:
    return isinstance(attempt, Fetched) and attempt.row["state"] == "finished"


def _continued(run: Fetched | None, earlier: Sequence[Fetched], step: str | None) -> Fetched | None:
    """Return a run with the part of its history that earlier attempts logged, newest first.

    Offline, W&B writes a run that was resumed under its id to a new file, which has only what was
    logged since. An attempt was continued if the next one has the same configuration and begins
    after it on the axis, without a gap: at most 1.5 times the largest step between values. Code,
    data and versions that differ between the parts are joined, as a run that resumes logs them.
    """
    for attempt in earlier if run else ():
        name = step or axis.find([run.logged])
        after, before = (sorted(row[name] for row in one.over(name)[0]) for one in (run, attempt))
        head = [value for value in before if after and value < after[0]]
        if name == axis.STEP or not head:
            continue
        gaps = [later - one for values in (head, after) for one, later in pairwise(values)]
        differ = [
            key.removeprefix(CONFIG)
            for key in sorted({*attempt.row, *run.row})
            if key.startswith(CONFIG) and encode(attempt.row.get(key)) != encode(run.row.get(key))
        ]
        about = f"run {run.run_id}: history up to {name} {head[-1]:g}"
        source = attempt.row["source"]
        if differ or after[0] - head[-1] > 1.5 * max(gaps, default=1):
            why = f"{', '.join(differ)} differ" if differ else f"the next is {after[0]:g}"
            print(f"{about} in {source} is not used, because {why}")
            continue
        print(f"{about} is from {source}, which {run.row['source']} continues")
        rows = [row for row in attempt.logged if row.get(name) in head] + run.logged
        rows = [row | {axis.STEP: number} for number, row in enumerate(rows)]
        row = attempt.row | run.row
        for key in {key for keys in SAME_WITHIN_RUN.values() for key in keys}:
            one, other = (part.row.get(SUMMARY + key) for part in (attempt, run))
            if one is not None and other is not None and one != other:
                row[SUMMARY + key] = f"{one}{CHANGED}{other}"
        resumed = f"{SUMMARY}resumed_from_epoch"
        if name == axis.EPOCH and resumed not in run.row:
            row[resumed] = head[-1]
        run = Fetched(row, rows)
    return run


def _from_records(run_id: str, source: str, records: list[dict[str, Any]]) -> Fetched:
    config, summary, rows, exit_code = {}, {}, [], None
    group, job_type = None, None
    for record in records:
        match record.get("type"):
            case "run":
                config |= record["run"].get("config", {}).get("update", {})
                group = record["run"].get("run_group", group)
                job_type = record["run"].get("job_type", job_type)
            case "config":
                config |= record["config"].get("update", {})
            case "summary":
                summary |= record["summary"].get("update", {})
            case "history":
                rows.append(record["history"]["item"])
            case "exit":
                exit_code = record["exit"].get("exit_code", 0)
    state = "crashed" if exit_code is None else STATE_OF_EXIT.get(exit_code, "failed")
    created = source.removeprefix("offline-run-").removesuffix(f"-{run_id}")  # 20260101_000000
    return build_record(
        run_id,
        state,
        exit_code,
        source,
        config,
        summary,
        rows,
        created=created,
        group=group,
        job_type=job_type,
    )


def read_files(files: list[Path]) -> list[list[dict[str, Any]] | FetchError]:
    """Return the records of each ``.wandb`` file, as `wandb leet inspect --json` gives them.

    A truncated file (of a killed run) gives the records before the end; an unreadable file gives an
    error instead.

    Raises:
        FetchError: when the reader itself fails to run.
    """
    program = [sys.executable, "-c", READER]
    paths = [str(file.resolve()) for file in files]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([*program, *paths], cwd=root, capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")
    ends = [i for i, line in enumerate(lines) if line.startswith(END)]
    if done.returncode or len(ends) < len(files):
        raise FetchError(
            f"W&B's reader failed to run: {done.stderr.strip()[-500:]}; check that wandb has at "
            "least the version in requirements.txt"
        )
    contents = []
    for file, start, end in zip(files, [-1, *ends], ends, strict=False):
        if failure := lines[end].removeprefix(END):
            contents.append(FetchError(f"cannot read {file}: {failure}"))
        else:
            contents.append([json.loads(line) for line in lines[start + 1 : end]])
    return contents


def main() -> None:
    """Print the records of the files given as arguments, one JSON line each.

    A line that begins with END follows each file, with the error if the file could not be read.
    """
    from wandb.cli.cli import cli  # the import takes two thirds of a second

    for path in sys.argv[1:]:
        with tempfile.TemporaryFile("w+") as errors:
            stderr = os.dup(2)
            os.dup2(errors.fileno(), 2)  # redirects the reader's child process too
            try:
                cli(["leet", "inspect", "--json", path], standalone_mode=False)
                code = 0
            except SystemExit as end:  # raised by this command in any case
                code = end.code
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            errors.seek(0)
            why = " ".join(errors.read().split())[-500:] or f"exit code {code}"
        print(f"{END}{why if code else ''}", flush=True)
