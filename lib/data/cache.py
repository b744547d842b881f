"""Keep decoded images on disk, as long as the files that they came from stay as they are."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from lib.spec.files import locked, remove_leftovers, write_atomically
from lib.training.seeding import sha256
from lib.training.torch_files import read_torch


def fingerprint(salt: str, root: Path, files: Iterable[Path | os.DirEntry]) -> str:
    """Hash name below ``root``, size and time of every file: cheap, and changes when any does."""
    lines = [salt]
    for file in files:
        status = file.stat()
        name = os.fspath(file)[len(os.fspath(root)) :]
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def cached(
    path: Path, source: str, build: Callable[[], dict[str, Any]], hashed: Sequence[str]
) -> dict[str, Any]:
    """Return what ``build`` made of ``source`` (a fingerprint), from ``path`` where that is there.

    Of several processes one builds and the others wait for it. ``hashed``: the names of the tensors
    whose hash is the value's ``sha256``; it is computed of what was read, and a file whose own
    hash is another is built again.
    """
    if value := _read_cache(path, source, hashed):
        return value
    with locked(path.with_suffix(".lock"), f"waiting: another process builds {path}"):
        remove_leftovers(path.parent)
        value = _read_cache(path, source, hashed)
        if value is None:
            value = build() | {"source": source}
            write_atomically(path, lambda file: torch.save(value, file))
    return value


def _read_cache(path: Path, source: str, hashed: Sequence[str]) -> dict[str, Any] | None:
    value = read_torch(path) if path.exists() else None
    if not isinstance(value, dict) or value.get("source") != source:
        return None
    tensors = [value.get(name) for name in hashed]
    whole = all(isinstance(one, torch.Tensor) for one in tensors)
    if whole and sha256(*tensors) == value.get("sha256"):
        return value
    print(f"{path} does not hold what its hash says; it is built again", flush=True)
    return None
