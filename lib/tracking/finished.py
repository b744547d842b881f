"""The marker that a run ended well: finished.json in its folder, with what it ran.

It also names W&B's offline file and its size, once that was seen to be whole: on a full disk W&B
goes on without writing, so that a script's good end says nothing about its history.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.spec.files import write_json
from lib.tracking.offline_file import is_whole

FINISHED = "finished.json"
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
        values |= {"file": f"{file.parent.name}/{file.name}", "bytes": file.stat().st_size}
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
    """Say whether a run ended well and its offline file still has the size that it had then.

    Markers of earlier versions do not name it: then it must be whole.

    A marker without a file is of a run on a server, which keeps its history.
    """
    marker = read(folder)
    if marker is None:
        return False
    file = files.get(folder.name)
    if "file" in marker:
        named = folder.parent / "wandb" / marker["file"]
        return named.exists() and named.stat().st_size == marker.get("bytes")
    return file is None or is_whole(file)
