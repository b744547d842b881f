"""Write files atomically, lock files, and read YAML with clear errors."""

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import filelock
import yaml

from lib.spec.errors import UserError

# Errors of file systems that do not support locks.
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
FINISHED = "finished.json"  # in the folder of a finished run, see lib/tracking/finished.py
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # names a run's folder
MOST_NODES = 100_000  # in a YAML file after expanding aliases, against "billion laughs"


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write ``content`` (bytes, or a function that writes to an open file) to ``path`` atomically.

    Raises:
        UserError: if the disk is full or the folder cannot be written. An earlier file at ``path``
            is then unchanged, and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot write {path}: {error}. An earlier file is unchanged. Free some space or choose "
        "another folder, then run the command again."
    )


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files; if the disk is full, none of them is changed.

    Raises:
        UserError: see ``write_atomically``.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    place = next(iter(contents))
    try:
        for place, content in contents.items():
            with open(temporary[place], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for place, path in temporary.items():
            os.replace(path, place)
    except OSError as error:
        raise _unwritable(place, error) from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes; the caller must hold the folder's lock.

    Each can be as large as a checkpoint, and nothing else removes them.
    """
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)


def lock_of(path: Path) -> filelock.BaseFileLock:
    """Return the file lock ``path``, or a soft lock if the file system does not support locks.

    Mounted drives often do not. A soft lock is a file that exists while the lock is held; it
    remains if its process is killed.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return lock
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        print(f"{path.parent} does not support locks, using {path.name}.soft instead", flush=True)
        return filelock.SoftFileLock(f"{path}.soft")
    lock.release()
    return lock


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock ``path``; if another process holds it, print ``busy`` and wait.

    The operating system releases the lock, unless it is soft, when the process exits or is killed.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_of(path)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        soft = isinstance(lock, filelock.SoftFileLock)
        hint = f" (if there is no such process, remove {lock.lock_file})" if soft else ""
        print(busy + hint, flush=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader (YAML 1.1) with checks.

    ``unclear``: messages about unquoted numbers that YAML 1.1 reads as text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.unclear: list[str] = []


def _plain_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a text scalar; add unquoted numbers, such as 1e-3, to ``loader.unclear``."""
    if node.style is None:
        with contextlib.suppress(ValueError):
            number = float(node.value)
            loader.unclear.append(
                f"line {node.start_mark.line + 1}: {node.value} is text in YAML 1.1, not a number. "
                f"Write {with_a_dot(number)} for the number or '{node.value}' for the text"
            )
    return loader.construct_scalar(node)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a node after expanding aliases."""
    if id(node) not in known:
        known[id(node)] = 1  # for a node that contains itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [p for part in parts for p in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in flat)
    return known[id(node)]


def with_a_dot(number: float) -> str:
    """Return a number as YAML 1.1 reads it: with a dot if it has an exponent."""
    if not math.isfinite(number):
        return ".nan" if math.isnan(number) else ".inf" if number > 0 else "-.inf"
    text = repr(number)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    """Construct a mapping; raise a ValueError on duplicate keys, of which PyYAML keeps the last."""
    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if twice := [name for name in names if names.count(name) > 1 and name != "<<"]:
        line = node.start_mark.line + 1
        raise ValueError(f"line {line}: duplicate key {twice[0]!r}; keep one of them")
    yield from loader.construct_yaml_map(node)


_Loader.add_constructor("tag:yaml.org,2002:str", _plain_text)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


NUMBER_KEYS = ("looks",)  # top-level keys whose mappings have numbers as keys


def read_yaml(path: Path, unclear: list[str] | None = None) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    ``unclear``: a list to which messages about unquoted numbers that YAML 1.1 reads as text are
    added; without it such numbers raise.

    Raises:
        UserError: if the file cannot be read, has several documents or is not a mapping, or has
            keys that are not text (``on`` and ``yes`` are true in YAML 1.1).
    """
    try:
        loader, documents = _Loader(path.read_text(encoding="utf-8")), []
        while loader.check_node():
            node = loader.get_node()
            if _size(node, {}) > MOST_NODES:
                raise ValueError(f"its aliases expand to more than {MOST_NODES:,} values")
            documents.append(loader.construct_document(node))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    messages = [f"{path}, {message}" for message in loader.unclear]
    if messages and unclear is None:
        raise UserError(messages[0])
    if unclear is not None:
        unclear += messages
    if len(documents) > 1:
        raise UserError(f"{path} has {len(documents)} YAML documents; write one per file")
    if not documents or not isinstance(documents[0], dict):
        raise UserError(f"{path} is not a mapping; write lines of the form `key: value`")
    others = {key: value for key, value in documents[0].items() if key not in NUMBER_KEYS}
    _only_text_keys(path, others)
    return documents[0]


def _only_text_keys(path: Path, mapping: dict[Any, Any]) -> None:
    for key, value in mapping.items():
        if not isinstance(key, str):
            hint = " (on, off, yes and no are booleans in YAML 1.1)" if type(key) is bool else ""
            raise UserError(f"{path}: the key {key!r} is not text{hint}. Put it in quotes.")
        if isinstance(value, dict):
            _only_text_keys(path, value)
