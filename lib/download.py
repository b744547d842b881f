"""Download, verify and unpack the public data sets, as far as they need no registration.

    python -m lib.download gtsrb data/GTSRB            # traffic signs, three archives, 365 MB
    python -m lib.download minijsrt data/miniJSRT      # chest radiographs with lung fields

The JSRT originals and the SCR masks of the lung study need a registration; see lib/data/jsrt.py.
What is there and verified is not downloaded again; an archive with another checksum is kept under
another name and downloaded again; a part appears unpacked or not at all.
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
    """An archive that could not be had; says which, why and what to do."""


@dataclass(frozen=True)
class Archive:
    """An official archive: ``member`` in it becomes ``target`` below the data folder."""

    name: str
    digest: str  # MD5 or SHA-256, whichever its publisher or finder gives, in hexadecimal
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
    """Bring the official layout into ``root``; do what is still missing.

    Raises:
        DownloadError: no network, wrong checksum, full disk; names address and folder.
    """
    for archive in archives:
        places = [root / archive.target, root / "Final_Test" / archive.target]
        if found := next((place for place in places if place.exists()), None):
            print(f"{found} is there already")
            continue
        fetch(root / "archives", url, archive)
        unpack(root, archive)


def fetch(folder: Path, url: str, archive: Archive) -> None:
    """Download one archive into ``folder`` unless it is there and verified.

    Raises:
        DownloadError: no network, wrong checksum, full disk; names address and folder.
    """
    algorithm = {32: "md5", 64: "sha256"}[len(archive.digest)]
    path = folder / archive.name
    if path.exists() and pooch.file_hash(str(path), alg=algorithm) != archive.digest:
        aside = next(p for k in itertools.count(1) if not (p := Path(f"{path}.other{k}")).exists())
        path.rename(aside)
        print(f"{path} has another checksum than the official archive: kept as {aside.name}")
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
            f"could not download {url + archive.name} to {folder}: {error}. Try again, or download "
            "it in a browser, put it there and run the command again."
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
        raise DownloadError(
            f"could not unpack {archive.name} into {root}: {error}. Is there room on the disk?"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@command
def main() -> None:
    """Download, verify and unpack a public data set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=ARCHIVES, help="which data set")
    parser.add_argument("root", type=Path, help="data folder, e.g. data/GTSRB")
    arguments = parser.parse_args()
    download(arguments.root, URLS[arguments.name], ARCHIVES[arguments.name])


if __name__ == "__main__":
    main()
