"""Cache decoded images on disk until the files that they were decoded from change."""

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
    """Return a hash of all files' names below ``root``, sizes and modification times.

    Reading the contents would take too long. ``salt``: what else the decoded images depend on.
    """
    lines = [salt]
    for file in files:
        status = file.stat()
        name = os.fspath(file)[len(os.fspath(root)) :]
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def cached(
    path: Path, source: str, build: Callable[[], dict[str, Any]], hashed: Sequence[str]
) -> dict[str, Any]:
    """Return the result of ``build``, from the cache file ``path`` if that is still valid.

    The file is valid if its fingerprint is ``source`` and its tensors named in ``hashed`` have the
    hash stored under "sha256". Otherwise it is rebuilt, by one process while the others wait.
    """
    if value := _read_cache(path, source, hashed):
        return value
    # One lock for the folder, since the leftovers of other files are removed too.
    with locked(path.with_name("lock"), f"waiting: another process is building {path.parent}"):
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
    complete = all(isinstance(tensor, torch.Tensor) for tensor in tensors)
    if complete and sha256(*tensors) == value.get("sha256"):
        return value
    print(f"{path} does not match its hash, rebuilding it", flush=True)
    return None
