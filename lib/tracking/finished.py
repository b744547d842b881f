"""The marker that a run ended well: finished.json in its folder, with what it ran.

It also names W&B's offline file, its size and when it was written, once that was seen to be whole:
on a full disk W&B continues without writing, so that a script's exit code says nothing about its
history.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.spec.files import FINISHED, write_json
from lib.tracking.offline_file import is_whole

PREFIX = "offline-run-"
Files = dict[str, Path]  # the newest offline file by run id


def write(
    folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any], file: Path | None = None
) -> None:
    """Mark the run in ``folder`` as finished, with its summary and its resolved configuration.

    ``file``: its offline file, which is whole; None for a run that is on a server.
    """
    values: dict[str, Any] = {"summary": dict(summary), "config": dict(config)}
    if file is not None:
        about = file.stat()
        values |= {"file": f"{file.parent.name}/{file.name}", "bytes": about.st_size}
        values |= {"written_ns": about.st_mtime_ns}
    write_json(folder / FINISHED, values)


def read(folder: Path) -> dict[str, Any] | None:
    """Return summary and config of a finished run, or None where it has not finished."""
    try:
        found = json.loads((folder / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    if isinstance(found, dict) and {"summary", "config"} <= set(found):
        return found
    return {"summary": found if isinstance(found, dict) else {}, "config": {}}


def offline_files(study: Path) -> Files:
    """Return the newest offline file of each run below a study's folder, in one look."""
    found: Files = {}
    wandb = study / "wandb"
    for name in sorted(os.listdir(wandb)) if wandb.is_dir() else []:
        if name.startswith(PREFIX):
            run_id = name.removeprefix(PREFIX).partition("-")[2]  # after date and time
            found[run_id] = wandb / name / f"run-{run_id}.wandb"
    return found


def is_kept(folder: Path, files: Files) -> bool:
    """Say whether a run ended well and its offline file is as it was then.

    A file of another size is not. One that was written since (or copied, or is of a marker by an
    earlier version) is read: its checksums must be right up to the run's exit. A marker without a
    file is of a run on a server, which keeps its history.
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
    about = file.stat()
    if about.st_size != marker.get("bytes"):
        return False
    return about.st_mtime_ns == marker.get("written_ns") or is_whole(file)
