"""Download, verify and unpack the three official archives of the traffic-sign benchmark.

    python -m lib.download data/GTSRB

About 365 MB from the benchmark's public archive. What is there and verified is not fetched again;
an archive that was broken off is fetched anew; a part appears unpacked or not at all.
"""

import argparse
import shutil
import urllib.error
import zipfile
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import check_integrity, download_url

from lib.gtsrb import DataError

URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


@dataclass(frozen=True)
class Archive:
    """An official archive: ``member`` in it becomes ``target`` below the data folder."""

    name: str
    size: int  # bytes
    md5: str
    member: str
    target: str


ARCHIVES = (
    Archive(
        "GTSRB_Final_Training_Images.zip",
        276_294_756,
        "f33fd80ac59bff73c82d25ab499e03a3",
        "GTSRB/Final_Training",
        "Final_Training",
    ),
    Archive(
        "GTSRB_Final_Test_Images.zip",
        88_978_620,
        "c7e4e6327067d32654124b0fe9e82185",
        "GTSRB/Final_Test",
        "Final_Test",
    ),
    Archive(
        "GTSRB_Final_Test_GT.zip",
        99_620,
        "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
        "GT-final_test.csv",
        "GT-final_test.csv",
    ),
)


def download(root: Path, url: str = URL, archives: tuple[Archive, ...] = ARCHIVES) -> None:
    """Bring the official layout into ``root``; do what is still missing.

    Raises:
        DataError: without network, on a wrong checksum, on a full disk; names address and folder.
    """
    for archive in archives:
        places = [root / archive.target, root / "Final_Test" / archive.target]
        if found := next((place for place in places if place.exists()), None):
            print(f"{found} is there already")
            continue
        fetch(root / "archives", url, archive)
        unpack(root, archive)


def fetch(folder: Path, url: str, archive: Archive) -> None:
    """Download one archive into ``folder`` unless it is there and verified; check size and MD5."""
    path = folder / archive.name
    if path.exists() and not check_integrity(path, archive.md5):
        print(f"{path} is incomplete or damaged; fetching it anew")
        path.unlink()
    try:
        download_url(url + archive.name, folder, archive.name, archive.md5)
        if path.stat().st_size != archive.size:
            raise RuntimeError("wrong size")
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        found = f"; {path.stat().st_size:,} bytes arrived" if path.exists() else ""
        raise DataError(
            f"could not download {url + archive.name} ({archive.size:,} bytes) to {folder}: {error}"
            f"{found}. Try again, or download it in a browser, put it there and try again."
        ) from error


def unpack(root: Path, archive: Archive) -> None:
    """Unpack one verified archive's member to its place below ``root``, in one move."""
    part = root / f".{archive.target}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(root / "archives" / archive.name) as file:
            file.extractall(part)
        (part / archive.member).rename(root / archive.target)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"could not unpack {archive.name} into {root}: {error}. Is there room on the disk?"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def main() -> None:
    """Download, verify and unpack the official traffic-sign archives."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path, help="data folder, e.g. data/GTSRB")
    try:
        download(parser.parse_args().root)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
