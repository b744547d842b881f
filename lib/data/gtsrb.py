"""Load the German Traffic Sign Recognition Benchmark (GTSRB) into uint8 tensors.

    python -m lib.gtsrb data/GTSRB      # check the folder and build its cache

Recognizes the official folders, Kaggle's and others (lib/data/gtsrb_layouts.py), with images of any
size. The same pixels, labels and tracks have the same hash in every layout.

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

from lib.data import gtsrb_layouts
from lib.data.cache import cached, fingerprint
from lib.spec.errors import DataError, command
from lib.training.seeding import sha256

SIZE = 32  # default side of the resized images in pixels, as in the assignment's template
CACHE_FORMAT = 2
MOST_MISTAKES = 200  # misclassified test images that a run saves, about 400 kB at 32 × 32


@dataclass(frozen=True)
class Images:
    """The training or the test images (N, 3, S, S) uint8 and their labels (N,) int64 in 0..42.

    ``tracks`` (N,) int64: a number shared by all frames of one physical sign; -1 for test images,
    whose tracks are unknown. ``widths`` (N,) int64: of the original images, in pixels. ``names``:
    file names as in the official archives, below their Images folders.
    """

    images: torch.Tensor
    labels: torch.Tensor
    tracks: torch.Tensor
    widths: torch.Tensor
    names: list[str]

    @property
    def indices(self) -> torch.Tensor:
        """The indices of all images (N,), on their device."""
        return torch.arange(len(self.labels), device=self.labels.device)

    def to(self, device: torch.device) -> "Images":
        """Return the same images with their tensors on ``device``."""
        tensors = (self.images, self.labels, self.tracks, self.widths)
        tensors = (tensor.to(device) for tensor in tensors)
        return Images(*tensors, self.names)


@dataclass(frozen=True)
class Data:
    """Training and test images with the SHA-256 of their pixels, labels and tracks.

    ``note``: how they differ from the official images; empty if they do not.
    """

    train: Images
    test: Images
    sha256: str
    note: str = ""

    @property
    def about(self) -> dict[str, str]:
        """The entries about the data in a run's summary."""
        entries = {"data_sha256": self.sha256, "test_item": "traffic sign image"}
        return entries | ({"data_note": self.note} if self.note else {})


def load(root: str | Path, size: int = SIZE) -> Data:
    """Return the data below ``root``, from a cache that is rebuilt when the files change.

    Images are resized to ``size`` × ``size`` pixels; each size has a separate cache.

    Raises:
        DataError: on a missing folder or CSV, a missing or damaged image, a wrong class id, …
    """
    root = Path(root)
    layout = gtsrb_layouts.find(root)
    parts = {name: _load_part(root, layout, name, size) for name in ("train", "test")}
    digests = "".join(part["sha256"] for part in parts.values())
    train, test = (
        Images(**{name: part[name] for name in ("images", "labels", "tracks", "widths", "names")})
        for part in parts.values()
    )
    note = ""
    if len(train.names) == gtsrb_layouts.TORCHVISION_IMAGES:
        note = gtsrb_layouts.TORCHVISION
        print(f"note: {layout.training}: {note}")
    return Data(train, test, hashlib.sha256(digests.encode()).hexdigest(), note)


def split_by_track(
    part: Images, val_fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted int64 indices of the training and validation images.

    A track is 30 frames of one physical sign. The split is by track, because frames of one track in
    both parts would leak. ``val_fraction`` (in [0, 1)) of each class's tracks, rounded, at least
    one, are validation tracks; with 0 the validation set is empty.

    Raises:
        DataError: if a class has too few tracks to leave one for training.
    """
    labels, tracks = part.labels.numpy(), part.tracks.numpy()
    is_val = np.zeros(len(labels), dtype=bool)
    if val_fraction > 0:
        for label in np.unique(labels):
            of_class = np.unique(tracks[labels == label])
            count = max(1, round(val_fraction * len(of_class)))
            if count >= len(of_class):
                raise DataError(
                    f"val_fraction = {val_fraction} leaves no training track in class {label}, "
                    f"which has {len(of_class)}. Use a smaller value (0: no validation set) or "
                    "more data"
                )
            chosen = generator.permutation(of_class)[:count]
            is_val |= (labels == label) & np.isin(tracks, chosen)
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def test_metadata(
    data: Data, labels: torch.Tensor, predicted: torch.Tensor, probability: torch.Tensor
) -> dict[str, list[str] | torch.Tensor]:
    """Return data about the test images that a run saves next to their scores.

    ``labels``, ``predicted`` and ``probability`` (of the true class) are (N,). The result has
    ``names`` (N,); ``widths`` (N,); ``in_training`` (N,) bool: whether the training set has an
    image with the same pixels; ``mistakes`` (M,) int64: indices of misclassified images, at most
    MOST_MISTAKES, those with the least probable true class first; ``mistaken_images``
    (M, 3, S, S).
    """
    trained = {hash(image.tobytes()) for image in data.train.images.numpy()}  # 64 bits each
    twins = torch.tensor([hash(image.tobytes()) in trained for image in data.test.images.numpy()])
    wrong = (predicted != labels).nonzero()[:, 0]
    wrong = wrong[probability[wrong].argsort(stable=True)][:MOST_MISTAKES]
    about = {"names": data.test.names, "widths": data.test.widths, "in_training": twins}
    return about | {"mistakes": wrong, "mistaken_images": data.test.images[wrong]}


def _load_part(root: Path, layout: gtsrb_layouts.Layout, name: str, size: int) -> dict:
    folder = layout.training if name == "train" else layout.test

    def build() -> dict:
        if name == "train":
            table = gtsrb_layouts.training_table(layout)
        else:
            table = gtsrb_layouts.test_table(layout)
        return _decode(table, name, size)

    files = [*root.glob("*.csv"), *layout.files, *_files(folder), *folder.parent.glob("*.csv")]
    source = fingerprint(f"{CACHE_FORMAT} {size}", root, files)
    return cached(
        root / "cache" / f"{name}-{size}px.pt", source, build, ("images", "labels", "tracks")
    )


def _files(folder: Path) -> Iterator[os.DirEntry]:
    """Yield every file below ``folder``; with os.scandir, which is fast for 52,000 files.

    Raises:
        DataError: on a broken link or a link to a parent folder.
    """
    for entry in os.scandir(folder):
        if entry.is_dir():
            if entry.is_symlink() and Path(entry).resolve() in Path(entry).absolute().parents:
                raise DataError(f"{entry.path} is a link to one of its parent folders; remove it")
            yield from _files(Path(entry))
        elif not entry.name.startswith("."):
            if not os.path.exists(entry):
                raise DataError(f"{entry.path} is a broken link; unpack the archive again")
            yield entry


def _decode(table: pd.DataFrame, name: str, size: int) -> dict:
    images = torch.empty(len(table), 3, size, size, dtype=torch.uint8)
    widths = torch.tensor(table["width"].to_numpy())
    bar = tqdm(table["path"], desc=f"decoding {name} images", unit="image", disable=None)
    for i, file in enumerate(bar):
        images[i], width = _read_image(file, size)
        widths[i] = widths[i] or width
    labels = torch.tensor(table["label"].to_numpy())
    tracks = torch.tensor(table["track"].to_numpy())
    return {
        "images": images,
        "labels": labels,
        "tracks": tracks,
        "widths": widths,
        "names": table["name"].tolist(),
        "sha256": sha256(images, labels, tracks),
    }


def _read_image(path: Path, size: int) -> tuple[torch.Tensor, int]:
    """Return an image (3, size, size) uint8 and its original width in pixels.

    Images of another size are resized bilinearly with antialiasing.
    """
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is damaged or not an image ({error}); unpack the archive again"
        ) from error
    width = image.width
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), width


@command
def main() -> None:
    """Check a folder with traffic signs, build its cache and print a summary."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", help="folder with the signs, such as data/GTSRB")
    data = load(parser.parse_args().root)
    tracks = len(data.train.tracks.unique())
    print(f"train: {len(data.train.names)} images, {tracks} tracks")
    print(f"test:  {len(data.test.names)} images")
    print(f"SHA-256 of pixels, labels and tracks: {data.sha256}")
