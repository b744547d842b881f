"""Download, verify and unpack the public data sets that need no registration.

    python -m lib.download gtsrb data/GTSRB            # traffic signs, three archives, 365 MB
    python -m lib.download minijsrt data/miniJSRT      # chest radiographs with lung fields

The original JSRT images and the SCR masks of the lung study need a registration; see
lib/data/jsrt.py. Files that are already unpacked and archives with the right checksum are skipped.
An archive with a wrong checksum is renamed, not deleted, and the right one is downloaded.
"""

import argparse
import itertools
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from lib.spec.errors import UserError, command

URLS = {
    "gtsrb": "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",
    "minijsrt": "http://imgcom.jsrt.or.jp/imgcom/wp-content/uploads/2019/07/",
}


class DownloadError(UserError):
    """Raised when an archive cannot be downloaded or unpacked."""


@dataclass(frozen=True)
class Archive:
    """An official archive: its ``member`` is moved to ``target`` in the data folder."""

    name: str
    digest: str  # hexadecimal MD5 or SHA-256
    member: str
    target: str


GTSRB = (
    Archive(
        "GTSRB_Final_Training_Images.zip",
        "f33fd80ac59bff73c82d25ab499e03a3",
        "GTSRB/Final_Training",
        "Final_Training",
    ),
    Archive(
        "GTSRB_Final_Test_Images.zip",
        "c7e4e6327067d32654124b0fe9e82185",
        "GTSRB/Final_Test",
        "Final_Test",
    ),
    Archive(
        "GTSRB_Final_Test_GT.zip",
        "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
        "GT-final_test.csv",
        "GT-final_test.csv",
    ),
)


MINIJSRT = (
    Archive(
        "segmentation02.zip",
        "f1432af4fcbd69342cf1bf2ca3d0d43b9535cdc6b160b86191b5b67de2fdbf3c",
        "segmentation",
        "segmentation",
    ),
)
ARCHIVES = {"gtsrb": GTSRB, "minijsrt": MINIJSRT}


def download(root: Path, url: str, archives: tuple[Archive, ...]) -> None:
    """Download and unpack the archives into ``root``; skip those that are unpacked already.

    Raises:
        DownloadError: on a missing network, a wrong checksum or a full disk.
    """
    for archive in archives:
        places = [root / archive.target, root / "Final_Test" / archive.target]
        if existing := next((place for place in places if place.exists()), None):
            print(f"{existing} already exists, skipping")
            continue
        fetch(root / "archives", url, archive)
        unpack(root, archive)


def fetch(folder: Path, url: str, archive: Archive) -> None:
    """Download one archive into ``folder``, unless it is there with the right checksum.

    Raises:
        DownloadError: on a missing network, a wrong checksum or a full disk.
    """
    algorithm = {32: "md5", 64: "sha256"}[len(archive.digest)]
    path = folder / archive.name
    if path.exists() and pooch.file_hash(str(path), alg=algorithm) != archive.digest:
        aside = next(p for k in itertools.count(1) if not (p := Path(f"{path}.other{k}")).exists())
        path.rename(aside)
        print(
            f"{path} does not have the checksum of the official archive: renamed to {aside.name}, "
            "downloading the official one"
        )
    try:
        pooch.retrieve(
            url + archive.name,
            known_hash=f"{algorithm}:{archive.digest}",
            fname=archive.name,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True),
        )
    except (OSError, ValueError) as error:  # ValueError: the checksum is wrong
        raise DownloadError(
            f"failed to download {url + archive.name} to {folder}: {error}. Try again, or download "
            "the file in a browser, move it to that folder and run the command again."
        ) from error


def unpack(root: Path, archive: Archive) -> None:
    """Unpack the member of one verified archive to its target below ``root``, atomically.

    Raises:
        DownloadError: on a damaged archive or a full disk.
    """
    part = root / f".{archive.target}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(root / "archives" / archive.name) as file:
            file.extractall(part)
        (part / archive.member).rename(root / archive.target)
    except (OSError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"failed to unpack {archive.name} into {root}: {error}. Is the disk full?"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@command
def main() -> None:
    """Download, verify and unpack a public data set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=ARCHIVES, help="name of the data set")
    parser.add_argument("root", type=Path, help="data folder, such as data/GTSRB")
    arguments = parser.parse_args()
    download(arguments.root, URLS[arguments.name], ARCHIVES[arguments.name])


if __name__ == "__main__":
    main()
