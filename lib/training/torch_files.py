"""Read what torch.save wrote, or say why it cannot be read."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_torch(path: Path) -> Any | None:
    """Return what torch.save wrote to ``path``; None, and a line that says why, if it is damaged.

    torch.load does not compare the checksums that torch.save writes; the archive's own test does.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise RuntimeError("cut off, or not written by torch.save")
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise RuntimeError(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign pickle raises nearly anything
        reason = f"{path} is unreadable: {error} ({type(error).__name__})"
        print(" ".join(reason.split())[:500], flush=True)
    return None
