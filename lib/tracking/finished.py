"""Write and check the marker of a finished run: finished.json in the run's folder.

It contains summary, config, and name, size and modification time of W&B's offline file. It is
written only after that file was found complete: on a full disk W&B continues without writing, so a
script can exit with code 0 although its history is lost.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.spec.files import FINISHED, write_json
from lib.tracking.offline_file import is_whole, newest

PREFIX = "offline-run-"
Files = dict[str, Path]  # the newest offline file by run id


def write(
    folder: Path,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    file: Path | None = None,
    program_sha256: str = "",
) -> None:
    """Mark the run in ``folder`` as finished, with its summary and its complete configuration.

    ``file``: its complete offline file; None for a run on a server. ``program_sha256``: the hash of
    its script, for scripts that log no commit.
    """
    values: dict[str, Any] = {"summary": dict(summary), "config": dict(config)}
    if program_sha256:
        values["program_sha256"] = program_sha256
    if file is not None:
        status = file.stat()
        values |= {"file": f"{file.parent.name}/{file.name}", "bytes": status.st_size}
        values |= {"written_ns": status.st_mtime_ns}
    write_json(folder / FINISHED, values)


def read(folder: Path) -> dict[str, Any] | None:
    """Return the marker of the run in ``folder``, with summary and config; None if unfinished."""
    try:
        marker = json.loads((folder / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    if isinstance(marker, dict) and {"summary", "config"} <= set(marker):
        return marker
    # Markers of an earlier version contain only the summary.
    return {"summary": marker if isinstance(marker, dict) else {}, "config": {}}


def offline_files(study: Path) -> Files:
    """Return the offline file of each run in a study's folder that was written last.

    With one directory scan; see ``offline_file.newest``.
    """
    found: dict[str, list[Path]] = {}
    wandb = study / "wandb"
    for name in os.listdir(wandb) if wandb.is_dir() else []:
        if name.startswith(PREFIX):
            run_id = name.removeprefix(PREFIX).partition("-")[2]  # after date and time
            found.setdefault(run_id, []).append(wandb / name / f"run-{run_id}.wandb")
    return {run_id: newest(files) for run_id, files in found.items()}


def is_kept(folder: Path, files: Files) -> bool:
    """Return whether a run finished and its offline file is intact.

    The file must have the size in the marker. If its modification time differs (it was copied, for
    example) or the marker, by an earlier version, does not name a file, the file is read: its
    checksums must be right up to the exit record. A marker without a file is of a run on a server,
    which has its history.
    """
    marker = read(folder)
    if marker is None:
        return False
    if "file" not in marker:
        file = files.get(folder.name)
        return file is None or is_whole(file)
    file = folder.parent / "wandb" / marker["file"]
    if not file.exists():
        return False
    status = file.stat()
    if status.st_size != marker.get("bytes"):
        return False
    return status.st_mtime_ns == marker.get("written_ns") or is_whole(file)
