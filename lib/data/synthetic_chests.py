"""Draw synthetic chest radiographs with lung masks; no download needed.

    python -m lib.synthetic_chests data/synthetic-chests --images 60

Body, two lungs, heart, spine, ribs and noise, of varying size, position, shape and exposure, in the
layout of JSRT with SCR masks: images/JPCLN001.png, masks/left lung/JPCLN001.gif, … The same
arguments give the same files. The images are for trying out the program and for tests; results on
them say nothing about real radiographs.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lib.spec.errors import command

SIDE = 256  # pixels of an image and of a mask
LUNGS = ("left lung", "right lung")


def draw_dataset(root: Path, images: int, seed: int) -> None:
    """Draw ``images`` chests (1 to 999) into the new folder ``root``, atomically."""
    part = root.with_name(f".{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("images", *(f"masks/{lung}" for lung in LUNGS)):
        (part / folder).mkdir(parents=True)
    for number in tqdm(range(1, images + 1), desc="drawing chests", unit="image", disable=None):
        image, lungs = chest(np.random.default_rng([seed, number]))
        Image.fromarray(image).save(part / "images" / f"JPCLN{number:03d}.png")
        for name, lung in zip(LUNGS, lungs, strict=True):
            mask = Image.fromarray(np.where(lung, 255, 0).astype(np.uint8))
            mask.save(part / "masks" / name / f"JPCLN{number:03d}.gif")
    part.rename(root)


def chest(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return an image (SIDE, SIDE) uint8 and the masks (SIDE, SIDE) bool of both lungs.

    Coordinates: x from -1 (left in the image, right of the patient) to 1, y from -1 (head) to 1.
    """
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    scale, angle = rng.uniform(0.8, 1.1), rng.normal(0, 0.05)
    x, y = x - rng.normal(0, 0.05), y - rng.normal(0, 0.05)
    x, y = (
        (np.cos(angle) * x + np.sin(angle) * y) / scale,
        (np.cos(angle) * y - np.sin(angle) * x) / scale,
    )
    body = (np.abs(x) / 0.95) ** 4 + (np.abs(y + 0.1) / 1.3) ** 4 < 1
    heart = _ellipse(x, y, rng.uniform(0.1, 0.2), rng.uniform(0.25, 0.4), 0.3, 0.3)
    masks = [_lung(x * side, y, heart if side > 0 else None, rng) for side in (1, -1)]
    picture = np.where(body, rng.uniform(0.55, 0.7), 0.08)
    picture[heart & body] += 0.15
    for mask in masks:
        picture[mask] -= rng.uniform(0.25, 0.4)
    phase, slope = rng.uniform(0, 1), rng.uniform(0.2, 0.5)
    ribs = np.sin(2 * np.pi * (4.5 * (y + slope * np.abs(x) - 0.3 * x**2) + phase)) > 0.55
    picture += rng.uniform(0.04, 0.1) * (ribs & body & (np.abs(x) < 0.85))
    picture += 0.12 * np.exp(-((x / 0.09) ** 2)) * body  # spine
    picture += rng.uniform(-0.1, 0.1) * x + rng.uniform(-0.1, 0.1) * y  # uneven exposure
    coarse = Image.fromarray(rng.normal(0, 1, (9, 9)).astype(np.float32))
    picture += 0.05 * np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    picture += rng.normal(0, rng.uniform(0.01, 0.05), picture.shape)
    return (255 * picture.clip(0, 1) ** rng.uniform(0.7, 1.4)).astype(np.uint8), masks


def _lung(
    x: np.ndarray, y: np.ndarray, heart: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Return a lung mask in the half x > 0: an egg shape minus diaphragm and heart."""
    width, top, bottom = rng.uniform(0.3, 0.4), rng.uniform(-0.85, -0.7), rng.uniform(0.45, 0.7)
    middle, center = rng.uniform(0.4, 0.5), (top + bottom) / 2
    narrowing = 1 - 0.35 * (center - y).clip(0) / (center - top)
    lung = _ellipse(x, y, middle, center, width * narrowing, (bottom - top) / 2 * 1.25)
    dome = bottom - rng.uniform(0.1, 0.25) * np.cos((x - middle) / width).clip(0)
    lung &= (y < dome) & (x > 0.12)
    return lung if heart is None else lung & ~heart


def _ellipse(
    x: np.ndarray, y: np.ndarray, x0: float, y0: float, a: float | np.ndarray, b: float
) -> np.ndarray:
    return ((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 < 1


@command
def main() -> None:
    """Draw synthetic chest radiographs with lung masks in the layout of JSRT and SCR."""
    parser = argparse.ArgumentParser(
        description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("root", type=Path, help="new folder for the data")
    parser.add_argument("--images", type=int, default=60, help="number of radiographs, 4 to 999")
    parser.add_argument("--seed", type=int, default=0, help="random seed, at least 0")
    a = parser.parse_args()
    if a.root.exists():
        raise SystemExit(f"{a.root} already exists; remove it or choose another folder")
    if not 4 <= a.images <= 999 or a.seed < 0:
        parser.error(f"--images must be 4 to 999 and --seed 0 or more, got {a.images} and {a.seed}")
    draw_dataset(a.root, a.images, a.seed)
    print(f"{a.images} radiographs with lung masks in {a.root}")
