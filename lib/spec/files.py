"""Write files so that a reader sees the old one or the new one, never half of either."""

import contextlib
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import torch

from lib.spec.errors import UserError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write`` with a temporary file beside ``path``, flush it and move it into place.

    Raises:
        UserError: naming ``path`` when the disk is full or the folder cannot be written; an earlier
            file at ``path`` is then untouched, and the temporary one removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise UserError(
            f"cannot write {path}: {error}. What stood there before is untouched; "
            "free some space or choose another folder, then start again."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_torch(path: Path) -> Any | None:
    """Return what torch.save wrote to ``path``; None, and a word on it, where that is damaged."""
    try:
        if not zipfile.is_zipfile(path):
            raise RuntimeError("cut off, or not written by torch.save")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError) as error:
        print(f"{path} is unreadable: {error}", flush=True)
        return None


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
    return value if value and value["source"] == source else None


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file ``path``; where another process holds it, print ``busy`` and wait.

    The operating system releases the lock when its process ends, however it ends.

    Raises:
        UserError: when the folder cannot be written.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(busy, flush=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"cannot write in {path.parent}: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()
