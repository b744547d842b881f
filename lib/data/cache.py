"""Keep decoded images on disk, as long as the files that they came from stay as they are."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from lib.spec.files import locked, write_atomically
from lib.training.torch_files import read_torch


def fingerprint(salt: str, root: Path, files: Iterable[Path | os.DirEntry]) -> str:
    """Hash name below ``root``, size and time of every file: cheap, and changes when any does."""
    lines = [salt]
    for file in files:
        status = file.stat()
        name = os.fspath(file)[len(os.fspath(root)) :]
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def cached(path: Path, source: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``build`` made of ``source`` (a fingerprint), from ``path`` where that is there.

    Of several processes one builds and the others wait for it.
    """
    if value := _read_cache(path, source):
        return value
    with locked(path.with_suffix(".lock"), f"waiting: another process builds {path}"):
        value = _read_cache(path, source)
        if value is None:
            value = build() | {"source": source}
            write_atomically(path, lambda file: torch.save(value, file))
    return value


def _read_cache(path: Path, source: str) -> dict[str, Any] | None:
    value = read_torch(path) if path.exists() else None
    return value if isinstance(value, dict) and value.get("source") == source else None
