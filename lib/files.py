"""Write files so that a reader sees the old one or the new one, never half of either."""

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import torch

from lib.errors import UserError


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
