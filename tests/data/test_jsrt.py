"""The chest loader: layouts, folds, cache, and every kind of damage with its clear error."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import jsrt, synthetic_chests
from lib.training import seeding


@pytest.fixture
def copy(chests: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn data that a test may damage."""
    return Path(shutil.copytree(chests, tmp_path / "c", ignore=shutil.ignore_patterns("cache")))


def write_mini(root: Path) -> Path:
    """Write six radiographs in miniJSRT's layout, two of them its test part."""
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        part = "test" if number > 4 else "train"
        image, lungs = synthetic_chests.chest(rng)
        label = np.where(lungs[0] | lungs[1], 255, 170).astype(np.uint8)
        label[:9] = 0
        label[200:220, 100:150] = 85
        for folder in (f"org_{part}", f"label_{part}"):
            (root / "segmentation" / folder).mkdir(parents=True, exist_ok=True)
        stem = f"case{number:03d}"
        Image.fromarray(image).save(root / "segmentation" / f"org_{part}" / f"{stem}.bmp")
        Image.fromarray(label).save(root / "segmentation" / f"label_{part}" / f"{stem}_label.png")
    return root


def test_drawn_chests_load_and_come_from_the_cache_again(chests: Path) -> None:
    first, second = jsrt.load(chests, 64), jsrt.load(chests, 64)
    assert first.images.shape == first.masks.shape == (20, 1, 64, 64)
    assert (first.images.dtype, first.masks.dtype) == (torch.float32, torch.bool)
    torch.testing.assert_close(first.images.mean((1, 2, 3)), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.images.std((1, 2, 3), correction=0), torch.ones(20))
    assert first.names[0] == "JPCLN001"
    assert torch.equal(first.images, second.images)
    assert first.sha256 == second.sha256 != jsrt.load(chests, 32).sha256
    assert (chests / "cache" / "32px.pt").exists()


def test_the_mask_is_the_union_of_both_lungs_in_its_place(chests: Path) -> None:
    data, name = jsrt.load(chests, 256), "JPCLN004"
    _, lungs = synthetic_chests.chest(np.random.default_rng([0, 4]))
    found = data.masks[data.names.index(name), 0].numpy()
    np.testing.assert_array_equal(found, lungs[0] | lungs[1])
    image = data.images[data.names.index(name), 0].numpy()
    assert image[found].mean() < image[~found].mean() - 0.3, "lungs are dark where the mask is"


def test_originals_are_twelve_bits_big_endian_and_inverted(copy: Path) -> None:
    x = np.linspace(0, 4095, 2048).astype(np.uint16)
    (copy / "images" / "JPCLN001.png").rename(copy / "JPCLN001.png")
    for path in sorted((copy / "images").glob("*.png")):
        number = int(path.stem[-3:])
        np.broadcast_to(np.roll(x, number), (2048, 2048)).astype(">u2").tofile(
            path.with_suffix(".IMG")
        )
        path.unlink()
    np.broadcast_to(x, (2048, 2048)).astype(">u2").tofile(copy / "images" / "JPCLN001.IMG")
    data = jsrt.load(copy, 32)  # the originals win over the one .png
    row = data.images[0, 0, 7]
    assert (row.diff() < 0).all(), "the originals have dark bone"
    torch.testing.assert_close(row, -row.flip(0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", ["P", "I;16", "RGB"])
def test_other_pictures_are_read_as_the_same_grays(copy: Path, mode: str) -> None:
    before = jsrt.load(copy, 256)
    path = copy / "images" / "JPCLN001.png"
    gray = Image.open(path)
    if mode == "P":  # an inverted palette over inverted indices
        image = Image.fromarray(255 - np.asarray(gray), "P")
        image.putpalette([value for i in range(256) for value in [255 - i] * 3])
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        image = gray.convert("RGB")
    image.save(path)
    torch.testing.assert_close(jsrt.load(copy, 256).images, before.images, atol=1e-4, rtol=1e-4)


def test_minijsrt_and_its_own_test_part(tmp_path: Path) -> None:
    data = jsrt.load(write_mini(tmp_path), 64)
    assert data.parts == ["train"] * 4 + ["test"] * 2
    train, val, test = jsrt.split(data, "fixed", 0.25, seeding.numpy_generator(0, "split"))
    assert test.tolist() == [4, 5]
    assert (len(train), len(val)) == (3, 1)
    assert 0.1 < data.masks.float().mean() < 0.5


@pytest.mark.parametrize("fold", ["odd", "even", "fixed"])
def test_splits_are_disjoint_and_complete(chests: Path, fold: str) -> None:
    data = jsrt.load(chests, 32)
    parts = jsrt.split(data, fold, 0.2, seeding.numpy_generator(0, "split"))
    assert sorted(np.concatenate(parts)) == list(range(20))
    again = jsrt.split(data, fold, 0.2, seeding.numpy_generator(1, "split"))
    np.testing.assert_array_equal(parts[2], again[2])
    assert (parts[1].tolist() == again[1].tolist()) == (fold == "fixed")
    numbers = {int(data.names[i][-3:]) for i in parts[2]}
    divisor, rest = {"odd": (2, 1), "even": (2, 0), "fixed": (5, 0)}[fold]
    assert numbers == {n for n in range(1, 21) if n % divisor == rest}
    assert len(jsrt.split(data, fold, 0.0, seeding.numpy_generator(0, "split"))[1]) == 0


def test_a_split_that_leaves_nothing_is_refused(chests: Path) -> None:
    data = jsrt.load(chests, 32)
    few = data.select(torch.tensor([0, 2]))
    with pytest.raises(jsrt.DataError, match="leave 2 of 2 images for training and 0 for testing"):
        jsrt.split(few, "even", 0.0, seeding.numpy_generator(0, "split"))


def repaint(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.asarray(Image.open(path).convert("L")))).save(path)


def ramp(pixels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(pixels.shape[1]), pixels.shape).astype(np.uint8)


LEFT, IMAGE = "masks/left lung/JPCLN003.gif", "images/JPCLN003.png"
DAMAGES = {
    "mask without an image": (
        IMAGE,
        Path.unlink,
        "JPCLN003 has a mask of the left lung but no image",
    ),
    "image without a mask": (LEFT, Path.unlink, "JPCLN003 has no mask of the left lung"),
    "truncated image": (IMAGE, lambda p: p.write_bytes(p.read_bytes()[:900]), "damaged"),
    "text for an image": (IMAGE, lambda p: p.write_text("no image"), "damaged or not an image"),
    "not square": (IMAGE, lambda p: repaint(p, lambda a: a[:200]), "is 256×200 pixels"),
    "lungs of two sizes": (LEFT, lambda p: repaint(p, lambda a: a[:200, :200]), "differ in size"),
    "gray mask": (LEFT, lambda p: repaint(p, ramp), "is not a binary mask: it has 256 gray values"),
    "empty mask": (LEFT, lambda p: repaint(p, lambda a: 0 * a), "is empty: no pixel belongs"),
    "full mask": (
        LEFT,
        lambda p: repaint(p, lambda a: 0 * a + 255),
        "is not a binary mask: it has 1 gray value, ",
    ),
    "one gray": (
        IMAGE,
        lambda p: repaint(p, lambda a: 0 * a + 9),
        "all pixels have the same gray value",
    ),
    "twice": (IMAGE, lambda p: shutil.copy(p, p.with_name("JPCLN002.png")), "are the same image"),
    "a second copy": (
        IMAGE,
        lambda p: shutil.copy(p, p.parent.parent / p.name),
        "two files for JPCLN003",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported(copy: Path, name: str) -> None:
    path, damage, message = DAMAGES[name]
    damage(copy / path)
    with pytest.raises(jsrt.DataError, match=re.escape(message)):
        jsrt.load(copy, 32)
    assert not list(copy.rglob("*.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(2048 * 2047, ">u2"), "has 8,384,512 bytes, but an original has 8,388,608"),
        (np.full(2048 * 2048, 4369, ">u2"), "has the gray value 4369; values must be 0 to 4095"),
    ],
)
def test_a_damaged_original_is_reported(copy: Path, content: np.ndarray, message: str) -> None:
    content.tofile(copy / "images" / "JPCLN001.IMG")
    for path in (copy / "images").glob("*.png"):
        path.unlink()
    for path in copy.rglob("*.gif"):
        if path.stem != "JPCLN001":
            path.unlink()
    with pytest.raises(jsrt.DataError, match=message):
        jsrt.load(copy, 32)


@pytest.mark.parametrize(("value", "message"), [(7, "gray value 7"), (None, "has no lung")])
def test_a_damaged_label_is_reported(tmp_path: Path, value: int | None, message: str) -> None:
    root = write_mini(tmp_path)
    path = root / "segmentation" / "label_train" / "case002_label.png"
    repaint(path, lambda a: np.where(a == 255, 170, a) if value is None else np.full_like(a, value))
    with pytest.raises(jsrt.DataError, match=message):
        jsrt.load(root, 32)


def test_no_folder_and_an_empty_one_are_reported(tmp_path: Path) -> None:
    with pytest.raises(jsrt.DataError, match="`make data` downloads"):
        jsrt.load(tmp_path / "none", 32)
    with pytest.raises(jsrt.DataError, match="has no radiographs"):
        jsrt.load(tmp_path, 32)


def test_two_data_sets_in_one_folder_are_refused(copy: Path) -> None:
    write_mini(copy / "mini")
    with pytest.raises(jsrt.DataError, match="has both JSRT"):
        jsrt.load(copy, 32)


def test_the_drawing_is_the_same_again(chests: Path, tmp_path: Path) -> None:
    synthetic_chests.draw_dataset(tmp_path / "again", images=20, seed=0)
    assert jsrt.load(tmp_path / "again", 32).sha256 == jsrt.load(chests, 32).sha256
    synthetic_chests.draw_dataset(tmp_path / "other", images=20, seed=1)
    assert jsrt.load(tmp_path / "other", 32).sha256 != jsrt.load(chests, 32).sha256


@pytest.mark.real_data
def test_the_real_radiographs(real_chests: Path) -> None:
    data = jsrt.load(real_chests, 128)
    assert len(data.names) == 247
    parts = {
        fold: jsrt.split(data, fold, 0.0, np.random.default_rng(0)) for fold in ("odd", "even")
    }
    assert [len(parts[fold][2]) for fold in ("odd", "even")] == [124, 123]
    np.testing.assert_array_equal(parts["odd"][0], parts["even"][2])
    assert 0.25 < data.masks.float().mean() < 0.35
