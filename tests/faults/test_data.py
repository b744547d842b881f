"""Data folders with links, loops and pictures that are none: a clear message, no traceback."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lib.data import gtsrb, jsrt
from lib.spec.errors import DataError
from tests.conftest import call


@pytest.fixture
def copy(signs: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn signs."""
    return Path(shutil.copytree(signs, tmp_path / "s", ignore=shutil.ignore_patterns("cache")))


@pytest.fixture
def drawn(chests: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn radiographs."""
    return Path(shutil.copytree(chests, tmp_path / "c", ignore=shutil.ignore_patterns("cache")))


def bomb(path: Path) -> None:
    """Write a picture that says it has ten thousand million pixels."""
    path.write_bytes(b"P6\n100000 100000\n255\n" + bytes(100))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: os.symlink(r / "nowhere.ppm", r / "Final_Test/Images/99999.ppm"),
            "is a broken link",
        ),
        (
            lambda r: os.symlink(r / "Final_Training", r / "Final_Training/Images/loop"),
            "is a link to one of its parent folders",
        ),
        (
            lambda r: bomb(r / "Final_Training/Images/00003/00001_00001.ppm"),
            "damaged or not an image",
        ),
    ],
)
def test_signs(copy: Path, change: Callable[[Path], object], message: str) -> None:
    change(copy)
    with pytest.raises(DataError) as error:
        gtsrb.load(copy)
    assert message in str(error.value)
    done = call("-m", "lib.gtsrb", copy)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_radiographs(drawn: Path) -> None:
    bomb(drawn / "images/JPCLN001.png")
    with pytest.raises(DataError, match="damaged or not an image"):
        jsrt.load(drawn, 32)
    done = call("-m", "lib.jsrt", drawn, "--size", "0")
    assert done.returncode == 2
    assert "must be at least 1 pixel" in done.stderr


def test_folders_that_are_links(chests: Path, drawn: Path, tmp_path: Path) -> None:
    """As people keep data on another disk; a loop among them does not matter."""
    (drawn / "images").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", drawn / "images")
    os.symlink(drawn, drawn / "loop")
    assert jsrt.load(drawn, 32).sha256 == jsrt.load(chests, 32).sha256


def test_a_gray_picture_stays_what_it_is(copy: Path) -> None:
    path = copy / "Final_Training/Images/00000/00000_00000.ppm"
    Image.new("L", (32, 32), 7).save(path)
    assert gtsrb.load(copy).train.images[0].unique().tolist() == [7]
