"""Draw synthetic traffic signs in the official layout of GTSRB; no download needed.

    python -m lib.synthetic data/synthetic-signs --tracks 8 --frames 6 --test-images 860

The 43 classes differ in shape, color and pictogram. A track shows one physical sign in front of
one background, growing as it comes closer; pose, light, blur and occlusion vary between its frames.
The same arguments give the same files. The images are for trying out the program and for tests;
results on them say nothing about real signs.
"""

import argparse
import csv
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from lib.spec.errors import command
from lib.spec.gtsrb_classes import CLASSES

SIDE = 96  # side of a drawn sign and its background in pixels, before frames are scaled down
HEADER = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]

RED, BLUE, WHITE, BLACK = (190, 25, 35), (25, 70, 165), (240, 240, 235), (20, 20, 20)
YELLOW, GRAY = (245, 190, 20), (120, 120, 120)

# Groups of classes, in class order: number of classes, outline, colors of rim, face and pictogram.
GROUPS = [
    (11, "circle", RED, WHITE, BLACK),  # speed limits, no passing
    (11, "up", RED, WHITE, BLACK),  # dangers
    (9, "circle", WHITE, BLUE, WHITE),  # mandatory directions
    (4, "down", RED, WHITE, BLACK),  # give way
    (3, "octagon", WHITE, RED, WHITE),  # stop
    (3, "diamond", WHITE, YELLOW, BLACK),  # priority
    (2, "circle", GRAY, WHITE, GRAY),  # end of a limit
]


def sign(label: int) -> Image.Image:
    """Return an RGBA drawing (SIDE × SIDE) of class ``label`` (0 to 42), transparent outside."""
    kinds = [(kind, *look) for count, *look in GROUPS for kind in range(count)]
    kind, outline, rim, face, ink = kinds[label]
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.polygon(_outline(outline, 1.0), fill=rim)
    draw.polygon(_outline(outline, 0.78), fill=face)
    _pictogram(draw, kind, ink, center=SIDE * (0.56 if outline == "up" else 0.5))
    return image


def frame(
    drawing: Image.Image, track: dict, progress: float, rng: np.random.Generator
) -> Image.Image:
    """Return one RGB frame of a track, 16 to 60 pixels wide, at ``progress`` (0 far, 1 near)."""
    side = int(16 + 40 * progress * track["reach"] + rng.integers(0, 5))
    angle = track["angle"] + rng.normal(0, 2)
    shear = track["shear"] + rng.normal(0, 0.03)
    scale = rng.uniform(0.74, 0.92)
    shift = rng.normal(0, 0.05, 2) * SIDE
    cos, sin = (f(math.radians(angle)) / scale for f in (math.cos, math.sin))
    half = SIDE / 2
    a, b, d, e = cos, sin + shear, -sin, cos * track["squeeze"]
    matrix = (a, b, half - a * (half + shift[0]) - b * half, d, e, half - d * half - e * half)
    posed = drawing.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.BILINEAR)
    scene = track["background"].copy()
    scene.paste(posed, (0, 0), posed)
    if track["occluded"]:
        draw = ImageDraw.Draw(scene)
        x, y = track["branch"] + rng.normal(0, 3, 2)
        draw.line([x, 0, y, SIDE], fill=track["branch_color"], width=track["branch_width"])
    scene = scene.filter(ImageFilter.GaussianBlur(track["blur"] * rng.uniform(0.5, 1.5)))
    pixels = np.asarray(scene.resize((side, side), Image.Resampling.BILINEAR), dtype=float)
    light = track["light"] * rng.uniform(0.85, 1.15)
    pixels = (pixels * light * track["tint"] + track["haze"]) + rng.normal(0, 6, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_dataset(root: Path, tracks: int, frames: int, test_images: int, seed: int) -> None:
    """Write Final_Training and Final_Test into the new folder ``root``, atomically.

    Every class gets ``tracks`` training tracks of ``frames`` frames. Each test image is a single
    frame of another track; their classes are in random order.
    """
    rng = np.random.default_rng(seed)
    signs = [sign(label) for label in range(CLASSES)]
    parts = root.with_name(f".{root.name}.part")
    shutil.rmtree(parts, ignore_errors=True)
    bar = tqdm(
        total=CLASSES * tracks * frames + test_images, desc="drawing", unit="image", disable=None
    )
    for label in range(CLASSES):
        folder = parts / "Final_Training" / "Images" / f"{label:05d}"
        folder.mkdir(parents=True)
        rows = []
        for number in range(tracks):
            track = _track(rng)
            for k in range(frames):
                name = f"{number:05d}_{k:05d}.ppm"
                image = frame(signs[label], track, (k + 1) / frames, rng)
                rows.append(_write(image, folder / name, label))
                bar.update()
        _write_csv(folder / f"GT-{label:05d}.csv", rows)
    folder = parts / "Final_Test" / "Images"
    folder.mkdir(parents=True)
    labels = rng.permutation(np.arange(test_images) % CLASSES)
    rows = []
    for i, label in enumerate(labels):
        image = frame(signs[label], _track(rng), rng.uniform(0, 1), rng)
        rows.append(_write(image, folder / f"{i:05d}.ppm", int(label)))
        bar.update()
    _write_csv(parts / "Final_Test" / "GT-final_test.csv", rows)
    bar.close()
    parts.rename(root)


def _outline(name: str, size: float) -> list[tuple[float, float]]:
    corners, turn = {
        "circle": (40, 0),
        "up": (3, -90),
        "down": (3, 90),
        "octagon": (8, 22.5),
        "diamond": (4, 0),
    }[name]
    radius, half = size * 0.47 * SIDE, SIDE / 2
    middle = half + {"up": 0.08, "down": -0.08}.get(name, 0) * SIDE
    angles = [math.radians(turn + 360 * k / corners) for k in range(corners)]
    return [(half + radius * math.cos(t), middle + radius * math.sin(t)) for t in angles]


def _pictogram(draw: ImageDraw.ImageDraw, kind: int, ink: tuple, center: float) -> None:
    """Draw one of eleven pictograms around (SIDE / 2, ``center``).

    The pictograms of the classes in lib.data.augment.FLIP_SAFE must be symmetric.
    """
    x, y, r, w = SIDE / 2, center, SIDE * 0.17, max(3, SIDE // 14)
    arrow = [(x, y - r), (x + r, y + r * 0.2), (x - r, y + r * 0.2)]
    if kind == 0:
        draw.rectangle([x - r, y - w / 2, x + r, y + w / 2], fill=ink)
    elif kind == 1:
        draw.rectangle([x - w / 2, y - r, x + w / 2, y + r], fill=ink)
    elif kind == 2:
        draw.ellipse([x - r, y - r, x + r, y + r], outline=ink, width=w)
    elif kind == 3:
        draw.line([x - r, y - r, x + r, y + r], fill=ink, width=w)
        draw.line([x - r, y + r, x + r, y - r], fill=ink, width=w)
    elif kind == 4:
        draw.polygon(arrow, fill=ink)
        draw.rectangle([x - w / 2, y, x + w / 2, y + r], fill=ink)
    elif kind == 5:
        draw.line([x - r, y + r, x + r, y - r], fill=ink, width=w)
    elif kind == 6:
        for dx in (-r, r * 0.4):
            draw.rectangle([x + dx, y - r, x + dx + r * 0.6, y + r], fill=ink)
    elif kind == 7:
        for dx, dy in ((-r, -r), (r * 0.3, -r), (-r * 0.35, r * 0.2)):
            draw.ellipse([x + dx, y + dy, x + dx + r * 0.7, y + dy + r * 0.7], fill=ink)
    elif kind == 8:
        draw.polygon([(2 * x - px, 2 * y - py) for px, py in arrow], fill=ink)
        draw.rectangle([x - w / 2, y - r, x + w / 2, y], fill=ink)
    elif kind == 9:
        draw.line([x - r, y - r, x + r, y + r], fill=ink, width=w)
    else:
        draw.arc([x - r, y - r, x + r, y + r], 180, 90, fill=ink, width=w)


def _track(rng: np.random.Generator) -> dict:
    """Return random properties that the frames of one physical sign share."""
    return {
        "angle": rng.normal(0, 7),
        "shear": rng.normal(0, 0.12),
        "squeeze": rng.uniform(1.0, 1.3),
        "reach": rng.uniform(0.4, 1.0),
        "blur": rng.gamma(2.0, 1.1),
        "light": rng.uniform(0.2, 1.1),
        "haze": rng.uniform(0, 60),
        "tint": rng.normal(1, 0.08, 3),
        "background": _background(rng),
        "occluded": rng.random() < 0.35,
        "branch": rng.uniform(0.2, 0.8, 2) * SIDE,
        "branch_color": tuple(int(v) for v in rng.integers(20, 120, 3)),
        "branch_width": int(rng.integers(4, 16)),
    }


def _background(rng: np.random.Generator) -> Image.Image:
    """Return an image of smooth random colors with a few straight lines."""
    coarse = rng.integers(0, 256, (int(rng.integers(2, 9)),) * 2 + (3,), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        ends = [int(v) for v in rng.integers(0, SIDE, 4)]
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        draw.line(ends, fill=color, width=int(rng.integers(2, 12)))
    return image


def _write(image: Image.Image, path: Path, label: int) -> list:
    image.save(path)
    side, rim = image.width, image.width // 10
    return [path.name, side, side, rim, rim, side - rim, side - rim, label]


def _write_csv(path: Path, rows: list[list]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([HEADER, *rows])


@command
def main() -> None:
    """Draw synthetic traffic signs in GTSRB's official layout."""
    parser = argparse.ArgumentParser(
        description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("root", type=Path, help="new folder for the data")
    parser.add_argument("--tracks", type=int, default=8, help="tracks per class, at least 1")
    parser.add_argument("--frames", type=int, default=6, help="frames per track, at least 1")
    parser.add_argument(
        "--test-images", type=int, default=860, help=f"number of test images, at least {CLASSES}"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed, at least 0")
    a = parser.parse_args()
    if a.root.exists():
        raise SystemExit(f"{a.root} already exists; remove it or choose another folder")
    if a.tracks < 1 or a.frames < 1 or a.test_images < CLASSES or a.seed < 0:
        parser.error(
            f"--tracks and --frames must be 1 or more, --test-images {CLASSES} or more and --seed "
            f"0 or more, got {a.tracks}, {a.frames}, {a.test_images} and {a.seed}"
        )
    draw_dataset(a.root, a.tracks, a.frames, a.test_images, a.seed)
    print(f"{CLASSES * a.tracks * a.frames} training and {a.test_images} test images in {a.root}")
