"""Write files so that a reader sees the old content or the new one; read YAML with clear errors."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import filelock
import yaml

from lib.spec.errors import UserError


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write ``content``, bytes or a function that writes to an open file, and move it into place.

    Raises:
        UserError: naming ``path`` when the disk is full or the folder cannot be written. An earlier
            file at ``path`` is then unchanged and the temporary file removed.
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
        raise UserError(
            f"cannot write {path}: {error}. The earlier file, if any, is unchanged; free some "
            "space or choose another folder, then run the command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file ``path``; while another process holds it, print ``busy`` and wait.

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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it; ``unclear``: the scalars in it that surprise people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.unclear: list[str] = []


def _plain_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Note an unquoted number that YAML 1.1 reads as text, such as 1e-3."""
    if node.style is None:
        with contextlib.suppress(ValueError):
            number = float(node.value)
            loader.unclear.append(
                f"line {node.start_mark.line + 1}: {node.value} is text to YAML 1.1, not a number. "
                f"Write {_with_a_dot(number)} for the number or '{node.value}' for the text"
            )
    return loader.construct_scalar(node)


def _with_a_dot(number: float) -> str:
    text = repr(number)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _plain_text)


COUNTED = ("looks",)  # top-level keys whose mapping has numbers as keys: seeds


def read_yaml(path: Path, unclear: list[str] | None = None) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Unquoted numbers that YAML 1.1 reads as text are told in ``unclear`` where that is given, and
    refused where not.

    Raises:
        UserError: when the file cannot be read, holds several documents or no mapping, has a key
            that is not text (``on`` and ``yes`` are true to YAML 1.1), or an unclear number.
    """
    try:
        loader, documents = _Loader(path.read_text(encoding="utf-8")), []
        while loader.check_data():
            documents.append(loader.get_data())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    told = [f"{path}, {one}" for one in loader.unclear]
    if told and unclear is None:
        raise UserError(told[0])
    if unclear is not None:
        unclear += told
    if len(documents) > 1:
        raise UserError(f"{path} holds {len(documents)} YAML documents; write one per file")
    if not documents or not isinstance(documents[0], dict):
        raise UserError(f"{path} is not a mapping of names to values")
    others = {key: value for key, value in documents[0].items() if key not in COUNTED}
    _only_text_keys(path, others)
    return documents[0]


def _only_text_keys(path: Path, mapping: dict[Any, Any]) -> None:
    for key, value in mapping.items():
        if not isinstance(key, str):
            hint = " (on, off, yes and no are booleans to YAML 1.1)" if type(key) is bool else ""
            raise UserError(f"{path}: the key {key!r} is not text{hint}. Put it in quotes.")
        if isinstance(value, dict):
            _only_text_keys(path, value)
