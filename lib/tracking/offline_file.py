"""Check that W&B's offline file is complete, without importing wandb, which takes a second.

The file is a LevelDB log: a header of 7 bytes, then blocks of 32 KiB that contain records, each
with a CRC-32, a length and a type (whole record, or first, middle or last part). A record is a
protocol buffer; the number of its message field is its kind: history, summary, exit, …
Source: wandb/proto/wandb_internal.proto, message Record; github.com/google/leveldb, log_format.md
"""

import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# First bytes of the file (the last one is the version, 0), block size, header size of the file and
# of each record.
MAGIC, BLOCK, HEAD = b":W&B\xe1\xbe\x00", 32_768, 7
WHOLE, FIRST, LAST = 1, 2, 4  # types of a record or part of one (3: in the middle)
PATIENCE_S = 10  # how long to wait for W&B to close the file after a run
HISTORY, EXIT = 2, 18  # field numbers of Record: kinds of records
METADATA = (16, 200)  # field numbers of control and _info, which may precede the kind


def count_records(path: Path) -> Counter[int]:
    """Return the number of records in the file by kind (field number).

    Stops at the first truncated record or wrong checksum. Returns an empty counter if the file
    cannot be read or is not W&B's.
    """
    counts: Counter[int] = Counter()
    try:
        data = path.read_bytes()
    except OSError:
        return counts
    if not data.startswith(MAGIC):
        return counts
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
            counts[_kind(parts)] += 1
        at += HEAD + length
    return counts


def is_whole(path: Path, rows: int = 0, patience: float = 0.0) -> bool:
    """Return whether the file has an exit record and at least ``rows`` history records.

    ``patience``: seconds to wait for that, since W&B's process closes the file shortly after the
    script's `finish`.
    """
    deadline = time.monotonic() + patience
    while True:
        counts = count_records(path)
        if counts[EXIT] > 0 and counts[HISTORY] >= rows:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def file_of(folder: Path, run_id: str) -> Path | None:
    """Return the offline file of a run in a study's folder that was written last, or None."""
    files = list(folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))
    return newest(files) if files else None


def newest(files: Sequence[Path]) -> Path:
    """Return the file that was written last.

    Folders' names do not tell: their time is local, and a run may move to another time zone.
    """
    if len(files) == 1:
        return files[0]
    return max(files, key=lambda file: (file.exists() and file.stat().st_mtime_ns, str(file)))


def _kind(record: bytes) -> int:
    """Return the kind of a record: the number of its first message field that is no metadata."""
    at = 0
    while at < len(record):
        tag, at = _varint(record, at)
        length, at = _varint(record, at)  # or the value, of a field that is not a message
        if tag & 7 == 2:  # a message, length-delimited
            if tag >> 3 not in METADATA:
                return tag >> 3
            at += length
    return 0


def _varint(record: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at position ``at``, and the position after it."""
    value, shift = 0, 0
    while at < len(record):
        value |= (record[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if not record[at - 1] & 128:
            break
    return value, at
