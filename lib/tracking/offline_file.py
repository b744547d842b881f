"""Is W&B's offline file whole? Read its records without W&B, which takes a second to import.

The file is a LevelDB log: a head of 7 bytes, blocks of 32 KiB, and in them records, each with a
CRC-32, a length and a type (whole, first, middle or last part). A record is a protocol buffer
whose fields after the number are of one kind each: history, summary, exit, …
Source: wandb/proto/wandb_internal.proto, message Record; github.com/google/leveldb, log_format.md
"""

import time
import zlib
from collections import Counter
from pathlib import Path

MAGIC, BLOCK, HEAD = b":W&B\xe1\xbe\x00", 32_768, 7  # the last byte: version 0
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
PATIENCE_S = 10  # after a run, for its file to be closed
HISTORY, RUN, EXIT = 2, 17, 18  # numbers of the fields of a Record
ABOUT = (16, 200)  # control and _info, which come before what the record holds


def count_records(path: Path) -> Counter[int]:
    """Return how many records of each kind (number of the field) the file holds.

    Reading ends where the file breaks off or a checksum is wrong. An unreadable file holds nothing.
    """
    found: Counter[int] = Counter()
    try:
        data = path.read_bytes()
    except OSError:
        return found
    if not data.startswith(MAGIC):
        return found
    at, parts = HEAD, b""
    while at + HEAD <= len(data):
        if (left := BLOCK - at % BLOCK) < HEAD:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        body = data[at + HEAD : at + HEAD + length]
        crc = zlib.crc32(body, zlib.crc32(data[at + 6 : at + 7]))
        if len(body) < length or crc != int.from_bytes(data[at : at + 4], "little"):
            break
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            found[_kind(parts)] += 1
        at += HEAD + length
    return found


def is_whole(path: Path, rows: int = 0, patience: float = 0.0) -> bool:
    """Say whether the file has its run's exit and at least ``rows`` rows of history before it.

    ``patience``: seconds to wait until it has, since W&B's own process closes it a moment after the
    script's `finish`.
    """
    deadline = time.monotonic() + patience
    while True:
        found = count_records(path)
        if found[EXIT] > 0 and found[HISTORY] >= rows:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def file_of(folder: Path, run_id: str) -> Path | None:
    """Return the newest offline file of a run below a study's folder, or None."""
    found = sorted(folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))
    return found[-1] if found else None


def _kind(record: bytes) -> int:
    """Return the number of the first field of a Record that is a message: what it holds."""
    at = 0
    while at < len(record):
        tag, at = _varint(record, at)
        length, at = _varint(record, at)  # or the record's own number
        if tag & 7 == 2:  # a message, length-delimited
            if tag >> 3 not in ABOUT:
                return tag >> 3
            at += length
    return 0


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(record):
        value |= (record[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not record[at - 1] & 128:
            break
    return value, at
