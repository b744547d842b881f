"""Load files of torch.save with a check of their checksums."""

import zipfile
from pathlib import Path
from typing import Any

import torch


def read_torch(path: Path) -> Any | None:
    """Return the content of a file of torch.save; print a message and return None if damaged.

    torch.load ignores the checksums in the file, so zipfile checks them first.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise RuntimeError("truncated, or not written by torch.save")
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise RuntimeError(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise errors of any type
        message = f"cannot read {path}: {error} ({type(error).__name__})"
        print(" ".join(message.split())[:500], flush=True)
    return None
