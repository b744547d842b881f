"""The German Traffic Sign Recognition Benchmark: official folders in, uint8 tensors out.

    python -m lib.gtsrb data/GTSRB      # check the folder and build its cache

Layout (any image size; test labels are also found one or two folders further up or down):

    Final_Training/Images/<class, 5 digits>/<track>_<frame>.ppm   and   GT-<class>.csv
    Final_Test/Images/<5 digits>.ppm                              and   Final_Test/GT-final_test.csv

Source: Stallkamp et al. 2012, https://benchmark.ini.rub.de
"""

import argparse
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from lib.data.cache import cached, fingerprint
from lib.spec.errors import UserError, command
from lib.training.seeding import sha256

CLASSES = 43
SIZE = 32  # pixels; unless told otherwise images become SIZE × SIZE, as in the template
CACHE_FORMAT = 2
MOST_MISTAKES = 200  # whose pixels a run keeps: some 400 kB at 32 × 32


class DataError(UserError):
    """The data folder is not as it should be; says where and what to do."""


@dataclass(frozen=True)
class Images:
    """One part of the data: images (N, 3, S, S) uint8, labels (N,) int64 in 0..42.

    ``tracks`` (N,) int64: frames of the same physical sign share a number; -1 where not known
    (test). ``widths`` (N,) int64: of the original images, in pixels. ``names``: file names
    below the part's Images folder.
    """

    images: torch.Tensor
    labels: torch.Tensor
    tracks: torch.Tensor
    widths: torch.Tensor
    names: list[str]

    @property
    def indices(self) -> torch.Tensor:
        """The index of every image (N,), where the images are."""
        return torch.arange(len(self.labels), device=self.labels.device)

    def to(self, device: torch.device) -> "Images":
        """Return the same images with their tensors on ``device``."""
        tensors = (self.images, self.labels, self.tracks, self.widths)
        tensors = (tensor.to(device) for tensor in tensors)
        return Images(*tensors, self.names)


@dataclass(frozen=True)
class Data:
    """The official training and test parts and the SHA-256 of their pixels, labels and tracks."""

    train: Images
    test: Images
    sha256: str


def load(root: str | Path, size: int = SIZE) -> Data:
    """Return the data below ``root``, from its cache, which is (re)built when the source changed.

    Every image is resized to ``size`` × ``size`` pixels; each size has a cache of its own.

    Raises:
        DataError: a missing folder or CSV, a missing or truncated image, a wrong class id, ...
    """
    root = Path(root)
    parts = {name: _load_part(root, name, size) for name in ("train", "test")}
    digests = "".join(part["sha256"] for part in parts.values())
    train, test = (
        Images(**{name: part[name] for name in ("images", "labels", "tracks", "widths", "names")})
        for part in parts.values()
    )
    return Data(train, test, hashlib.sha256(digests.encode()).hexdigest())


def split_by_track(
    part: Images, val_fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted int64 indices of the training and validation images.

    A track is 30 frames of one sign, so whole tracks go to one side: a split by image would leak.
    In each class ``val_fraction`` (in [0, 1)) of the tracks, rounded, at least one, is validation;
    0 gives an empty validation set.

    Raises:
        DataError: when a class has too few tracks to leave one on each side.
    """
    labels, tracks = part.labels.numpy(), part.tracks.numpy()
    is_val = np.zeros(len(labels), dtype=bool)
    if val_fraction > 0:
        for label in np.unique(labels):
            own = np.unique(tracks[labels == label])
            count = max(1, round(val_fraction * len(own)))
            if count >= len(own):
                raise DataError(
                    f"class {label} has {len(own)} track(s): val_fraction = {val_fraction} leaves "
                    "none for training; use a smaller one (0: no validation) or more data"
                )
            chosen = generator.permutation(own)[:count]
            is_val |= (labels == label) & np.isin(tracks, chosen)
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def test_metadata(
    data: Data, labels: torch.Tensor, predicted: torch.Tensor, probability: torch.Tensor
) -> dict[str, list[str] | torch.Tensor]:
    """Return what is known of the test images beside their outcomes (N,), for a run's own file.

    ``names`` (N,); ``widths`` (N,); ``in_training`` (N,) bool: whether a training image is the same
    in every pixel; ``mistakes`` (M,) int64: the images that were mistaken, first those whose true
    class was the least probable, at most MOST_MISTAKES; ``mistaken_images`` (M, 3, S, S).
    """
    trained = {hash(image.tobytes()) for image in data.train.images.numpy()}  # 64 bits each
    twins = torch.tensor([hash(image.tobytes()) in trained for image in data.test.images.numpy()])
    wrong = (predicted != labels).nonzero()[:, 0]
    wrong = wrong[probability[wrong].argsort(stable=True)][:MOST_MISTAKES]
    about = {"names": data.test.names, "widths": data.test.widths, "in_training": twins}
    return about | {"mistakes": wrong, "mistaken_images": data.test.images[wrong]}


def _load_part(root: Path, name: str, size: int) -> dict:
    folder = root / ("Final_Training" if name == "train" else "Final_Test")
    if not folder.is_dir():
        raise DataError(
            f"{folder} not found. Expected the official GTSRB layout below {root}: "
            "`make data` downloads it, `python -m lib.synthetic FOLDER` draws a stand-in."
        )

    def build() -> dict:
        table = _training_table(folder) if name == "train" else _test_table(folder, root)
        return _decode(table, folder / "Images", name, size)

    source = fingerprint(f"{CACHE_FORMAT} {size}", root, [*root.glob("*.csv"), *_files(folder)])
    return cached(root / "cache" / f"{name}-{size}px.pt", source, build)


def _files(folder: Path) -> Iterator[os.DirEntry]:
    """Give every image and table below ``folder``; scandir, since there are 52,000."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _files(Path(entry))
        elif entry.name.endswith((".ppm", ".csv")):
            yield entry


def _training_table(folder: Path) -> pd.DataFrame:
    """Return name, label and track of every training image, checked against the class CSVs."""
    images, rows = folder / "Images", []
    missing = [f"{c:05d}" for c in range(CLASSES) if not (images / f"{c:05d}").is_dir()]
    if missing:
        raise DataError(
            f"{images} lacks {len(missing)} of {CLASSES} class folders: {', '.join(missing)}; "
            "unpack the training archive again"
        )
    for label in range(CLASSES):
        name = f"{label:05d}"
        table = _read_csv(images / name / f"GT-{name}.csv")
        if (wrong := table[table["ClassId"] != label]).size:
            raise DataError(
                f"{images / name}/GT-{name}.csv: {wrong['Filename'].iloc[0]} has class "
                f"{wrong['ClassId'].iloc[0]}, but the folder's is {label}"
            )
        _compare_files(images / name, table["Filename"])
        tracks = pd.to_numeric(table["Filename"].str.split("_").str[0], errors="coerce")
        if tracks.isna().any():
            bad = table["Filename"][tracks.isna()].iloc[0]
            raise DataError(f"{images / name / bad}: expected a name like 00012_00029.ppm")
        rows.append(
            pd.DataFrame(
                {
                    "name": name + "/" + table["Filename"],
                    "label": label,
                    "track": 100_000 * label + tracks.astype(int),
                    "width": table["Width"],
                }
            )
        )
    return pd.concat(rows).sort_values("name", ignore_index=True)


def _test_table(folder: Path, root: Path) -> pd.DataFrame:
    """Return name and label (track -1) of every test image, checked against the ground truth."""
    places = [folder, folder / "Images", root]
    csv = next(
        (p / "GT-final_test.csv" for p in places if (p / "GT-final_test.csv").exists()), None
    )
    if csv is None:
        raise DataError(
            f"GT-final_test.csv not found in {', '.join(map(str, places))}; it comes in "
            "GTSRB_Final_Test_GT.zip (the .test.csv beside the images has no classes)"
        )
    table = _read_csv(csv)
    if (wrong := table[~table["ClassId"].between(0, CLASSES - 1)]).size:
        raise DataError(
            f"{csv}: {wrong['Filename'].iloc[0]} has class {wrong['ClassId'].iloc[0]}; "
            f"allowed are 0 to {CLASSES - 1}"
        )
    _compare_files(folder / "Images", table["Filename"])
    columns = {"name": table["Filename"], "label": table["ClassId"], "width": table["Width"]}
    table = pd.DataFrame(columns | {"track": -1})
    return table.sort_values("name", ignore_index=True)


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise DataError(f"{path} not found; unpack the archive again")
    try:
        table = pd.read_csv(path, sep=";", dtype={"Filename": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a GTSRB CSV: {error}") from error
    if lacking := {"Filename", "ClassId", "Width"} - set(table.columns):
        raise DataError(f"{path} lacks the column(s) {', '.join(sorted(lacking))} (separator ';')")
    if table.empty:
        raise DataError(f"{path} lists no image")
    whole = [pd.api.types.is_integer_dtype(table[name]) for name in ("ClassId", "Width")]
    if not all(whole) or table["Filename"].isna().any():
        raise DataError(f"{path}: an entry is empty, or a ClassId or Width is no whole number")
    if (twice := table["Filename"].duplicated()).any():
        raise DataError(f"{path} lists {table['Filename'][twice].iloc[0]} twice")
    return table


def _compare_files(folder: Path, listed: pd.Series) -> None:
    found = {path.name for path in folder.glob("*.ppm")}
    if not found:
        raise DataError(f"{folder} has no .ppm image; unpack the archive again")
    if lacking := sorted(set(listed) - found):
        raise DataError(
            f"{folder} lacks {len(lacking)} image(s) that its CSV lists, first {lacking[0]}; "
            "unpack the archive again"
        )
    if extra := sorted(found - set(listed)):
        raise DataError(
            f"{folder} has {len(extra)} image(s) that its CSV does not list, first {extra[0]}"
        )


def _decode(table: pd.DataFrame, folder: Path, name: str, size: int) -> dict:
    images = torch.empty(len(table), 3, size, size, dtype=torch.uint8)
    bar = tqdm(table["name"], desc=f"decoding {name} images", unit="image", disable=None)
    for i, file in enumerate(bar):
        images[i] = _read_image(folder / file, size)
    labels = torch.tensor(table["label"].to_numpy())
    tracks = torch.tensor(table["track"].to_numpy())
    return {
        "images": images,
        "labels": labels,
        "tracks": tracks,
        "widths": torch.tensor(table["width"].to_numpy()),
        "names": table["name"].tolist(),
        "sha256": sha256(images, labels, tracks),
    }


def _read_image(path: Path, size: int) -> torch.Tensor:
    """Return (3, size, size) uint8; other sizes are resized bilinearly with antialiasing."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or no image ({error}); unpack it again") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@command
def main() -> None:
    """Check a data folder, build its cache and say what is in it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", help="folder with Final_Training and Final_Test")
    data = load(parser.parse_args().root)
    tracks = len(data.train.tracks.unique())
    print(f"train: {len(data.train.names)} images, {tracks} tracks")
    print(f"test:  {len(data.test.names)} images")
    print(f"SHA-256 of pixels, labels and tracks: {data.sha256}")
