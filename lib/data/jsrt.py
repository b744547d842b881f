"""Chest radiographs with lung fields: JSRT with the SCR masks, or miniJSRT Segmentation02.

    python -m lib.jsrt data/JSRT --size 256      # check the folder and build its cache

What is found below the folder decides:

    JPCLN001.IMG … JPCNN093.IMG     originals: 2048×2048, 12 bits, big-endian, dark bone; or
    JPCLN001.png … JPCNN093.png     the same radiographs in any size (or .tif, .bmp, .jpg, .gif);
    left lung/*.gif, right lung/*.gif      SCR masks, named like the images (or .png, .bmp, .tif);
    JPCLN001_mask.png, JPCLN001msk.png     instead: one mask of both lungs per radiograph
  or
    org_train/*.bmp, label_train/<stem>_label.png, org_test, label_test      miniJSRT

Sources: Shiraishi et al. 2000 (JSRT); van Ginneken, Stegmann, Loog 2006 (SCR: masks, folds);
http://imgcom.jsrt.or.jp/minijsrtdb (miniJSRT).
"""

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lib.data.cache import cached, fingerprint
from lib.spec.errors import DataError, command
from lib.training.seeding import sha256

Fold = Literal["odd", "even", "fixed"]

NAME = re.compile(r"(JPC[LN]N\d{3})([_-]?(?:msk|mask))?", re.IGNORECASE)
IMAGES = (".img", ".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".gif")  # the first found count
OTHER_ORGANS = ("heart", "left clavicle", "right clavicle")  # masks that come with the lungs'
IMG_SIDE, IMG_MAX = 2048, 4095  # of an original: pixels a side, largest grey value
MOST_LUNG = 0.7  # of a mask's pixels
SOME, NEARLY_ALL = 0.1, 0.9  # of the radiographs: with bright lungs, as inverted images have
MINI_LUNG, MINI_VALUES = 255, {0, 85, 170, 255}  # labels: outside, heart, body, lung
CACHE_FORMAT = 2


@dataclass(frozen=True)
class Case:
    """Files of one radiograph; ``part``: train or test where the data set says so, else empty."""

    name: str
    image: Path
    masks: list[Path]
    part: str


@dataclass(frozen=True)
class Radiographs:
    """Images (N, 1, S, S) float32, each of mean 0 and deviation 1; masks (N, 1, S, S) bool.

    A mask is the lung field: the union of both lungs. ``names``: file stems, sorted; ``parts``:
    train or test where the data set fixes it, else empty; ``sha256`` of images and masks.
    """

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]
    parts: list[str]
    sha256: str

    def to(self, device: torch.device) -> "Radiographs":
        """Return the same radiographs with their tensors on ``device``."""
        images, masks = self.images.to(device), self.masks.to(device)
        return Radiographs(images, masks, self.names, self.parts, self.sha256)

    def select(self, indices: torch.Tensor) -> "Radiographs":
        """Return the radiographs ``indices`` (n,) only."""
        names, parts = ([some[i] for i in indices.tolist()] for some in (self.names, self.parts))
        return Radiographs(self.images[indices], self.masks[indices], names, parts, self.sha256)


def load(root: str | Path, size: int) -> Radiographs:
    """Return the radiographs below ``root`` at ``size`` × ``size`` pixels, from a cache per size.

    Raises:
        DataError: a missing folder, a mask without image or the other way round, a damaged file, a
            wrong size, a mask that is not two-valued or empty, one image under two names.
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

    odd, even: tested on the images with such a number, trained on the others, the two folds of van
    Ginneken et al. 2006; validation is ``val_fraction`` of the training fold, at least one image,
    drawn from ``generator``. fixed: the data set's own test part, or where it has none every fifth
    number; validation is then the same at every seed. With ``val_fraction`` 0 there is none.

    Raises:
        DataError: when a part would have no image.
    """
    numbers = np.array([int(re.findall(r"\d+", name)[-1]) for name in data.names])
    if fold == "fixed":
        generator = np.random.default_rng(0)
        is_test = np.array([part == "test" for part in data.parts])
        is_test = is_test if is_test.any() else numbers % 5 == 0
    else:
        is_test = numbers % 2 == (fold == "odd")
    rest = np.flatnonzero(~is_test)
    count = max(1, round(val_fraction * len(rest))) if val_fraction > 0 else 0
    if not is_test.any() or count >= len(rest):
        raise DataError(
            f"{len(numbers)} images with fold = {fold} and val_fraction = {val_fraction} leave "
            f"{len(rest) - count} for training and {is_test.sum()} for testing; both need one"
        )
    val = np.sort(generator.permutation(rest)[:count])
    return np.setdiff1d(rest, val), val, np.flatnonzero(is_test)


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Turn (N, 1, S, S) into uint8, each image from its darkest to its brightest pixel."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return (255 * (images - low) / (high - low)).round().to(torch.uint8)


def find_cases(root: Path) -> list[Case]:
    """Return the radiographs below ``root`` with their masks, sorted by name; raises DataError."""
    if not root.is_dir():
        raise DataError(
            f"{root} not found. Expected JSRT radiographs with SCR masks, or miniJSRT "
            "Segmentation02 (`make data` downloads that one to data/miniJSRT); "
            "`python -m lib.synthetic_chests FOLDER` draws a stand-in."
        )
    paths = [path for path in _below(root) if not _is_junk(path.relative_to(root))]
    mini = sorted(path for path in paths if path.name.startswith("label_") and path.is_dir())
    cases = _jsrt_cases(root, paths)
    if mini and cases:
        raise DataError(
            f"{root} holds both JSRT ({cases[0].image}) and miniJSRT ({mini[0]}): name one"
        )
    cases = _mini_cases(mini) if mini else cases
    if not cases:
        raise DataError(
            f"{root} holds no radiograph: no JPCLN001.IMG, JPCLN001.png (.tif, .bmp, .jpg) … and "
            "no org_*/*.bmp in it"
        )
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{root} holds {twice[0]} twice; keep one of the two files")
    return sorted(cases, key=lambda case: case.name)


def _below(root: Path) -> Iterator[Path]:
    """Give every file and folder below ``root``, through links too, each folder once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        if (real := here.resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (here / name for name in sorted([*folders, *files]))


def _is_junk(path: Path) -> bool:
    """Say whether macOS left a file behind: "._name" or a folder __MACOSX."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _jsrt_cases(root: Path, paths: list[Path]) -> list[Case]:
    """Return the cases of JSRT; the masks are in folders of their names, or one file per image."""
    images: dict[str, list[Path]] = {suffix: [] for suffix in IMAGES}
    lungs: dict[str, dict[str, Path]] = {"left lung": {}, "right lung": {}}
    merged: dict[str, Path] = {}
    for path in paths:
        found, suffix = NAME.fullmatch(path.stem), path.suffix.lower()
        if not found or suffix not in IMAGES:
            continue
        name, folder = found[1].upper(), path.parent.name.lower().replace("_", " ")
        if folder in lungs:
            lungs[folder][name] = path
        elif found[2] or folder in ("mask", "masks", "lung", "lungs", "lung masks"):
            merged[name] = path
        elif folder not in OTHER_ORGANS:
            images[suffix].append(path)
    own = next((files for files in images.values() if files), [])
    if not own:
        return []
    names = {path: path.stem.upper() for path in own}
    if merged and not any(lungs.values()):
        _compare(set(names.values()), set(merged), "lung mask")
        return [Case(name, path, [merged[name]], "") for path, name in names.items()]
    if not any(lungs.values()):
        raise DataError(
            f"{root} has radiographs ({own[0]}) but no masks of the lungs. Expected the SCR "
            "folders `left lung` and `right lung` with a mask per radiograph (they need a "
            "registration, see the README), or one mask of both lungs per radiograph, such as "
            f"{own[0].stem}_mask.png."
        )
    for lung, masks in lungs.items():
        _compare(set(names.values()), set(masks), f"mask of the {lung}")
    return [
        Case(name, path, [masks[name] for masks in lungs.values()], "")
        for path, name in names.items()
    ]


def _mini_cases(folders: list[Path]) -> list[Case]:
    cases = []
    for folder in folders:
        part = folder.name.removeprefix("label_")
        images = {p.stem: p for p in folder.with_name(f"org_{part}").glob("*.bmp")}
        labels = {p.stem.removesuffix("_label"): p for p in folder.glob("*_label.png")}
        _compare(set(images), set(labels), f"label of the {part} part")
        cases += [Case(name, path, [labels[name]], part) for name, path in images.items()]
    return cases


def _compare(images: set[str], masks: set[str], kind: str) -> None:
    for few, many, reason in ((images, masks, "without an image"), (masks, images, "is missing")):
        if lacking := sorted(many - few):
            raise DataError(
                f"a {kind} {reason}: {lacking[0]}, {len(lacking)} in all; "
                "unpack images and masks again"
            )


def _decode(cases: list[Case], size: int) -> dict:
    images = torch.empty(len(cases), 1, size, size)
    masks = torch.empty(len(cases), 1, size, size, dtype=torch.bool)
    seen: dict[str, str] = {}
    dark = 0  # images whose lungs are darker than what lies between and around them
    for i, case in enumerate(tqdm(cases, desc="reading radiographs", unit="image", disable=None)):
        image = _read_image(case.image)
        if (other := seen.setdefault(sha256(image), case.name)) != case.name:
            raise DataError(
                f"{case.name} and {other} are the same image: it could stand in training and test; "
                "take one of them out"
            )
        mask = _read_mini(case.masks[0]) if case.part else _read_lungs(case.masks)
        dark += _lungs_are_darker(_resize(image, mask.shape[0]), mask)
        small = np.asarray(_resize(image, size))
        if (deviation := small.std()) == 0:
            raise DataError(f"{case.image} has a single grey value; unpack it again")
        images[i, 0] = torch.from_numpy((small - small.mean()) / deviation)
        masks[i, 0] = torch.from_numpy(np.asarray(_resize(mask.astype(np.float32), size)) >= 0.5)
    note, bright = "", 1 - dark / len(cases)
    if bright > SOME:
        note = f"{len(cases) - dark} of {len(cases)} radiographs have lungs brighter than the body"
        note += ": some may be inverted; they are taken as they are" if bright < NEARLY_ALL else ""
    if bright >= NEARLY_ALL:
        images = -images
        note += ": all are taken as inverted, and turned to bright bone"
    return {
        "note": note,
        "images": images,
        "masks": masks,
        "names": [case.name for case in cases],
        "parts": [case.part for case in cases],
        "sha256": sha256(images, masks),
    }


def _lungs_are_darker(image: Image.Image, mask: np.ndarray) -> bool:
    """Say whether the lungs (H, W) bool are darker than the rest of the box around them.

    The box leaves out the air around the body, which is as dark as the lungs.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pixels, inside = np.asarray(image)[box], mask[box]
    return bool(inside.all() or pixels[inside].mean() < pixels[~inside].mean())


def _resize(pixels: np.ndarray, size: int) -> Image.Image:
    """Resize float32 (H, W) to ``size`` × ``size``: bilinear, averaging where it shrinks."""
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def _read_image(path: Path) -> np.ndarray:
    """Return grey values (H, W) float32, bright bone."""
    if path.suffix.lower() == ".img":
        pixels = np.fromfile(path, dtype=">u2")
        if pixels.size != IMG_SIDE**2 or path.stat().st_size != 2 * IMG_SIDE**2:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes, an original has {2 * IMG_SIDE**2:,} "
                f"({IMG_SIDE}×{IMG_SIDE}, 16 bits a pixel). Unpack it again; a copy of another "
                "size or depth can be read as PNG"
            )
        if pixels.max() > IMG_MAX and pixels.byteswap().max() <= IMG_MAX:
            pixels = pixels.byteswap()  # somebody wrote them little-endian
        if pixels.max() > IMG_MAX:
            raise DataError(
                f"{path} holds {pixels.max()}, allowed are 0 to {IMG_MAX}: not 12 bits in 16"
            )
        return (IMG_MAX - pixels.astype(np.float32)).reshape(IMG_SIDE, IMG_SIDE)
    image = _open(path)
    image = image if image.mode[0] in "IF" else image.convert("L")  # I: 16 bits, F: floats
    return _square(np.asarray(image, dtype=np.float32), path)


def _read_lungs(paths: list[Path]) -> np.ndarray:
    """Return the union (H, W) bool of two SCR masks, or the one mask of both lungs."""
    lungs = []
    for path in paths:
        pixels = _square(np.asarray(_open(path).convert("L")), path)
        values = np.unique(pixels)
        if values.tolist() == [0]:
            raise DataError(f"{path} is empty: no pixel belongs to the lung; unpack it again")
        if len(values) != 2 or values[0] != 0:
            raise DataError(
                f"{path} is not two-valued: it holds {len(values)} grey values from {values[0]} to "
                f"{values[-1]}; expected 0 outside and one other value inside. Resize masks "
                "without smoothing (nearest neighbour) and save them without loss"
            )
        lungs.append(pixels > 0)
    for path, lung in zip(paths, lungs, strict=True):
        if lung.mean() > MOST_LUNG or lung[[0, 0, -1, -1], [0, -1, 0, -1]].all():
            raise DataError(
                f"{path} has {100 * lung.mean():.0f} % of its pixels inside the lung: it seems to "
                "be inverted; expected 0 outside and one other value inside"
            )
    if len({lung.shape for lung in lungs}) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} differ in size")
    return np.logical_or.reduce(lungs)


def _read_mini(path: Path) -> np.ndarray:
    """Return the lung field (H, W) bool of a miniJSRT label."""
    pixels = _square(np.asarray(_open(path).convert("L")), path)
    if extra := set(np.unique(pixels).tolist()) - MINI_VALUES:
        allowed = ", ".join(map(str, sorted(MINI_VALUES)))
        raise DataError(f"{path} holds {min(extra)}; a label holds {allowed} only")
    if not (pixels == MINI_LUNG).any():
        raise DataError(f"{path} is empty: no pixel is {MINI_LUNG}, the lungs; unpack it again")
    return pixels == MINI_LUNG


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is damaged or no image ({error}); unpack it again") from error


def _square(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.shape[0] != pixels.shape[1]:
        sides = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise DataError(f"{path} has a wrong size, {sides}; radiographs here are square")
    return pixels


@command
def main() -> None:
    """Check a folder of radiographs, build its cache and say what is in it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", help="folder with the radiographs and masks")
    parser.add_argument("--size", type=int, default=256, help="pixels a side (default 256)")
    arguments = parser.parse_args()
    if arguments.size < 1:
        parser.error(f"--size {arguments.size}: must be at least 1 pixel")
    data = load(arguments.root, arguments.size)
    share = data.masks.float().mean().item()
    print(f"{len(data.names)} radiographs, lung fields cover {100 * share:.1f} % on average")
    print(f"SHA-256 of images and masks at {arguments.size} pixels: {data.sha256}")
