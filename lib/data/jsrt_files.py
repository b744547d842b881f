"""Find the radiographs and lung masks in a folder: JSRT with the SCR masks, or miniJSRT."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.spec.errors import DataError

NAME = re.compile(r"(JPC[LN]N\d{3})([_-]?(?:msk|mask))?", re.IGNORECASE)


# If images have several suffixes, only those with the first one are used.
IMAGES = (".img", ".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".gif")
OTHER_ORGANS = ("heart", "left clavicle", "right clavicle")  # folders of SCR masks to skip


@dataclass(frozen=True)
class Case:
    """The files of one radiograph; ``part``: "train" or "test" in miniJSRT, else empty."""

    name: str
    image: Path
    masks: list[Path]
    part: str


def find_cases(root: Path) -> list[Case]:
    """Return the radiographs below ``root`` with their masks, sorted by name.

    Raises:
        DataError: see ``load``.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} not found. Expected a folder with JSRT radiographs and SCR masks, or miniJSRT "
            "Segmentation02 (`make data` downloads it to data/miniJSRT). "
            "`python -m lib.synthetic_chests FOLDER` draws synthetic radiographs."
        )
    paths = [path for path in _below(root) if not _is_junk(path.relative_to(root))]
    mini = sorted(path for path in paths if path.name.startswith("label_") and path.is_dir())
    cases = _jsrt_cases(root, paths)
    if mini and cases:
        raise DataError(
            f"{root} has both JSRT ({cases[0].image}) and miniJSRT ({mini[0]}); choose the folder "
            "of one of them"
        )
    cases = _mini_cases(mini) if mini else cases
    if not cases:
        raise DataError(
            f"{root} has no radiographs. Expected JPCLN001.IMG … or JPCLN001.png … (or .tif, .bmp, "
            ".jpg) of JSRT, or org_*/*.bmp of miniJSRT"
        )
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{root} has two files for {twice[0]}; remove one of them")
    return sorted(cases, key=lambda case: case.name)


def _below(root: Path) -> Iterator[Path]:
    """Yield every file and folder below ``root``; follow links, but visit each folder once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        if (real := here.resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (here / name for name in sorted([*folders, *files]))


def _is_junk(path: Path) -> bool:
    """Return whether a file is hidden or macOS metadata: ".name", "._name", in __MACOSX."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _jsrt_cases(root: Path, paths: list[Path]) -> list[Case]:
    """Return the cases of JSRT, with two masks per image (SCR folders) or one (both lungs)."""
    images: dict[str, list[Path]] = {suffix: [] for suffix in IMAGES}
    lungs: dict[str, dict[str, Path]] = {"left lung": {}, "right lung": {}}
    merged: dict[str, Path] = {}
    for path in paths:
        match, suffix = NAME.fullmatch(path.stem), path.suffix.lower()
        if not match or suffix not in IMAGES:
            continue
        name, folder = match[1].upper(), path.parent.name.lower().replace("_", " ")
        if folder in lungs:
            lungs[folder][name] = path
        elif match[2] or folder in ("mask", "masks", "lung", "lungs", "lung masks"):
            merged[name] = path
        elif folder not in OTHER_ORGANS:
            images[suffix].append(path)
    used = next((files for files in images.values() if files), [])
    if not used:
        return []
    names = {path: path.stem.upper() for path in used}
    if merged and not any(lungs.values()):
        _compare(set(names.values()), set(merged), "lung mask")
        return [Case(name, path, [merged[name]], "") for path, name in names.items()]
    if not any(lungs.values()):
        raise DataError(
            f"{root} has radiographs ({used[0]}) but no lung masks. Expected the SCR folders "
            "`left lung` and `right lung` with a mask per radiograph (they need a registration, "
            "see the README), or one mask of both lungs per radiograph, such as "
            f"{used[0].stem}_mask.png."
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
    """Raise a DataError unless images and masks have the same names; ``kind`` describes a mask."""
    if without := sorted(masks - images):
        problem = f"{without[0]} has a {kind} but no image"
    elif without := sorted(images - masks):
        problem = f"{without[0]} has no {kind}"
    else:
        return
    more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
    raise DataError(f"{problem}{more}; unpack images and masks again")
