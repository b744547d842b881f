"""Load chest radiographs with lung masks: JSRT with SCR masks, or miniJSRT Segmentation02.

    python -m lib.jsrt data/JSRT --size 256      # check the folder and build its cache

The layout is recognized by the files in the folder and its subfolders. JSRT has as images

    JPCLN001.IMG … JPCNN093.IMG     originals: 2048×2048, 12 bits, big-endian, dark bone, or
    JPCLN001.png … JPCNN093.png     copies of any size (or .tif, .bmp, .jpg, .gif)

and as masks

    left lung/*.gif, right lung/*.gif      SCR masks, named like the images (or .png, .bmp, .tif) or
    JPCLN001_mask.png, JPCLN001msk.png     one mask of both lungs per radiograph.

miniJSRT has

    org_train/*.bmp, label_train/<stem>_label.png, org_test/, label_test/.

Sources: Shiraishi et al. 2000 (JSRT); van Ginneken, Stegmann, Loog 2006 (SCR masks, folds);
http://imgcom.jsrt.or.jp/minijsrtdb (miniJSRT).
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lib.data.cache import cached, fingerprint
from lib.data.jsrt_files import Case, find_cases
from lib.spec.errors import DataError, command
from lib.spec.words import count
from lib.training.seeding import sha256

Fold = Literal["odd", "even", "fixed"]

IMG_SIDE, IMG_MAX = 2048, 4095  # side in pixels and largest gray value of an original
MOST_LUNG = 0.7  # a mask with a larger share of lung pixels is taken for inverted
# Bright lungs mean an inverted image. SOME: share of radiographs with bright lungs above which to
# print a note; NEARLY_ALL: share from which all images are inverted.
SOME, NEARLY_ALL = 0.1, 0.9
MINI_LUNG, MINI_VALUES = 255, {0, 85, 170, 255}  # gray values of labels: outside, heart, body, lung
CACHE_FORMAT = 2


@dataclass(frozen=True)
class Radiographs:
    """Radiographs with lung masks: images (N, 1, S, S) float32, masks (N, 1, S, S) bool.

    Each image has mean 0 and standard deviation 1. A mask is the union of both lungs. ``names``:
    file stems, sorted; ``parts``: "train" or "test" in miniJSRT, else empty; ``sha256`` of images
    and masks.
    """

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]
    parts: list[str]
    sha256: str

    def to(self, device: torch.device) -> "Radiographs":
        """Return the radiographs with their tensors on ``device``."""
        images, masks = self.images.to(device), self.masks.to(device)
        return Radiographs(images, masks, self.names, self.parts, self.sha256)

    def select(self, indices: torch.Tensor) -> "Radiographs":
        """Return the radiographs at ``indices`` (n,)."""
        names = [self.names[i] for i in indices.tolist()]
        parts = [self.parts[i] for i in indices.tolist()]
        return Radiographs(self.images[indices], self.masks[indices], names, parts, self.sha256)


def load(root: str | Path, size: int) -> Radiographs:
    """Return the radiographs below ``root`` at ``size`` × ``size`` pixels; cache each size.

    Raises:
        DataError: on a missing folder, a mask without image or an image without mask, a damaged
            file, a wrong size, a mask that is empty, inverted or not binary, or a duplicate image.
    """
    root = Path(root)
    cases = find_cases(root)
    files = [path for case in cases for path in (case.image, *case.masks)]
    source = fingerprint(f"{CACHE_FORMAT} {size}", root, files)
    value = cached(
        root / "cache" / f"{size}px.pt", source, lambda: _decode(cases, size), ("images", "masks")
    )
    if value["note"]:
        print(f"note: {value['note']}")
    keys = ("images", "masks", "names", "parts", "sha256")
    return Radiographs(*(value[key] for key in keys))


Split = tuple[np.ndarray, np.ndarray, np.ndarray]  # indices of training, validation, test


def split(
    data: Radiographs, fold: Fold, val_fraction: float, generator: np.random.Generator
) -> Split:
    """Return sorted int64 indices of the training, validation and test images.

    ``fold`` "odd" or "even": the images with odd (even) numbers are the test images, the two folds
    of van Ginneken et al. 2006. "fixed": the test part of miniJSRT; for JSRT every fifth number.
    ``val_fraction`` of the other images, at least one, are validation images, drawn from
    ``generator``; for "fixed" they are the same at every seed. With 0 the validation set is empty.

    Raises:
        DataError: if no images are left for training or for testing.
    """
    numbers = np.array([int(re.findall(r"\d+", name)[-1]) for name in data.names])
    if fold == "fixed":
        generator = np.random.default_rng(0)
        is_test = np.array([part == "test" for part in data.parts])
        is_test = is_test if is_test.any() else numbers % 5 == 0
    else:
        is_test = numbers % 2 == (fold == "odd")
    rest = np.flatnonzero(~is_test)
    n_val = max(1, round(val_fraction * len(rest))) if val_fraction > 0 else 0
    if not is_test.any() or n_val >= len(rest):
        raise DataError(
            f"fold = {fold} and val_fraction = {val_fraction} leave {len(rest) - n_val} of "
            f"{len(numbers)} images for training and {is_test.sum()} for testing, but both need at "
            "least one. Use another fold, a smaller val_fraction or more images"
        )
    val = np.sort(generator.permutation(rest)[:n_val])
    return np.setdiff1d(rest, val), val, np.flatnonzero(is_test)


def to_gray(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, 1, S, S) as uint8, each scaled to the full range 0 to 255."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return (255 * (images - low) / (high - low)).round().to(torch.uint8)


def _decode(cases: list[Case], size: int) -> dict:
    images = torch.empty(len(cases), 1, size, size)
    masks = torch.empty(len(cases), 1, size, size, dtype=torch.bool)
    seen: dict[str, str] = {}
    dark = 0  # number of images whose lungs are darker than the tissue around them
    for i, case in enumerate(tqdm(cases, desc="reading radiographs", unit="image", disable=None)):
        image = _read_image(case.image)
        if (other := seen.setdefault(sha256(image), case.name)) != case.name:
            raise DataError(
                f"{case.name} and {other} are the same image, which could be in both the training "
                "and the test set; remove one of them"
            )
        mask = _read_mini(case.masks[0]) if case.part else _read_lungs(case.masks)
        dark += _lungs_are_darker(_resize(image, mask.shape[0]), mask)
        small = np.asarray(_resize(image, size))
        if (deviation := small.std()) == 0:
            raise DataError(
                f"{case.image}: all pixels have the same gray value; unpack the archive again"
            )
        images[i, 0] = torch.from_numpy((small - small.mean()) / deviation)
        masks[i, 0] = torch.from_numpy(np.asarray(_resize(mask.astype(np.float32), size)) >= 0.5)
    note, bright = "", 1 - dark / len(cases)
    if bright > SOME:
        note = f"{len(cases) - dark} of {len(cases)} radiographs have lungs brighter than the body."
        note += " Some may be inverted; they are used unchanged" if bright < NEARLY_ALL else ""
    if bright >= NEARLY_ALL:
        images = -images
        note += " All are treated as inverted and converted to bright bone"
    return {
        "note": note,
        "images": images,
        "masks": masks,
        "names": [case.name for case in cases],
        "parts": [case.part for case in cases],
        "sha256": sha256(images, masks),
    }


def _lungs_are_darker(image: Image.Image, mask: np.ndarray) -> bool:
    """Return whether the lungs (H, W) bool are darker than the rest of their bounding box.

    The box excludes the air around the body, which is as dark as the lungs.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pixels, inside = np.asarray(image)[box], mask[box]
    return bool(inside.all() or pixels[inside].mean() < pixels[~inside].mean())


def _resize(pixels: np.ndarray, size: int) -> Image.Image:
    """Resize float32 (H, W) to ``size`` × ``size``, bilinearly with antialiasing."""
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def _read_image(path: Path) -> np.ndarray:
    """Return gray values (H, W) float32; originals are inverted to bright bone."""
    if path.suffix.lower() == ".img":
        pixels = np.fromfile(path, dtype=">u2")
        if pixels.size != IMG_SIDE**2 or path.stat().st_size != 2 * IMG_SIDE**2:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes, but an original has "
                f"{2 * IMG_SIDE**2:,} ({IMG_SIDE}×{IMG_SIDE}, 16 bits per pixel). Unpack the "
                "archive again, or convert a copy of another size or bit depth to PNG"
            )
        if pixels.max() > IMG_MAX and pixels.byteswap().max() <= IMG_MAX:
            pixels = pixels.byteswap()  # some copies are little-endian
        if pixels.max() > IMG_MAX:
            raise DataError(
                f"{path} has the gray value {pixels.max()}; values must be 0 to {IMG_MAX} (12 "
                "bits). Unpack the archive again"
            )
        return (IMG_MAX - pixels.astype(np.float32)).reshape(IMG_SIDE, IMG_SIDE)
    image = _open(path)
    # "I" (integers of 16 or 32 bits) and "F" (floats) lose precision when converted to 8 bits.
    image = image if image.mode[0] in "IF" else image.convert("L")
    return _square(np.asarray(image, dtype=np.float32), path)


def _read_lungs(paths: list[Path]) -> np.ndarray:
    """Return the lung mask (H, W) bool: the union of the SCR masks of both lungs, or the one file.

    Raises:
        DataError: if a mask is empty, inverted or not binary, or the two differ in size.
    """
    lungs = []
    for path in paths:
        pixels = _square(np.asarray(_open(path).convert("L")), path)
        values = np.unique(pixels)
        if values.tolist() == [0]:
            raise DataError(
                f"{path} is empty: no pixel belongs to the lung; unpack the archive again"
            )
        if len(values) != 2 or values[0] != 0:
            raise DataError(
                f"{path} is not a binary mask: it has {count(len(values), 'gray value')}, "
                f"{values[0]} to {values[-1]}; expected 0 outside the lung and one other value "
                "inside. Resize masks with nearest-neighbor interpolation and save them in a "
                "lossless format"
            )
        lungs.append(pixels > 0)
    for path, lung in zip(paths, lungs, strict=True):
        if lung.mean() > MOST_LUNG or lung[[0, 0, -1, -1], [0, -1, 0, -1]].all():
            raise DataError(
                f"{path} seems to be inverted: {100 * lung.mean():.0f} % of its pixels are inside "
                "the lung. Expected 0 outside the lung and another value inside"
            )
    if len({lung.shape for lung in lungs}) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} differ in size; unpack the masks again")
    return np.logical_or.reduce(lungs)


def _read_mini(path: Path) -> np.ndarray:
    """Return the lung mask (H, W) bool of a miniJSRT label.

    Raises:
        DataError: if the label has unknown gray values or no lung pixels.
    """
    pixels = _square(np.asarray(_open(path).convert("L")), path)
    if extra := set(np.unique(pixels).tolist()) - MINI_VALUES:
        allowed = ", ".join(map(str, sorted(MINI_VALUES)))
        raise DataError(
            f"{path} has the gray value {min(extra)}; labels have only {allowed}. Unpack the "
            "archive again"
        )
    if not (pixels == MINI_LUNG).any():
        raise DataError(
            f"{path} has no lung: no pixel has the gray value {MINI_LUNG}; unpack the archive again"
        )
    return pixels == MINI_LUNG


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is damaged or not an image ({error}); unpack the archive again"
        ) from error


def _square(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.shape[0] != pixels.shape[1]:
        sides = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise DataError(f"{path} is {sides} pixels; radiographs and masks must be square")
    return pixels


@command
def main() -> None:
    """Check a folder with radiographs, build its cache and print a summary."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", help="folder with the radiographs and masks")
    parser.add_argument("--size", type=int, default=256, help="side in pixels (default 256)")
    arguments = parser.parse_args()
    if arguments.size < 1:
        parser.error(f"--size {arguments.size}: must be at least 1 pixel")
    data = load(arguments.root, arguments.size)
    share = data.masks.float().mean().item()
    print(f"{len(data.names)} radiographs, lung fields cover {100 * share:.1f} % on average")
    print(f"SHA-256 of images and masks at {arguments.size} pixels: {data.sha256}")
