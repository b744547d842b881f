"""The marker that a run of ours ended well: finished.json in its folder, with what it ran."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.spec.files import write_json

FINISHED = "finished.json"


def write(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Mark the run in ``folder`` as finished, with its summary and its resolved configuration."""
    write_json(folder / FINISHED, {"summary": dict(summary), "config": dict(config)})


def read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return summary and config of a finished run, or None where it has not finished."""
    try:
        found = json.loads((folder / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    if isinstance(found, dict) and {"summary", "config"} <= set(found):
        return found
    return {"summary": found if isinstance(found, dict) else {}, "config": {}}
