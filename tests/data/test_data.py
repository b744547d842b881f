"""The sign loader: layout, cache, split, and every kind of damage with its clear error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import gtsrb, synthetic_signs
from lib.data.augment import FLIP_SAFE
from lib.training import seeding

TRAINING, TEST = Path("Final_Training/Images"), Path("Final_Test")


@pytest.fixture
def copy(signs: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn data that a test may damage."""
    return Path(shutil.copytree(signs, tmp_path / "signs", ignore=shutil.ignore_patterns("cache")))


def test_drawn_data_loads_and_comes_from_the_cache_again(signs: Path) -> None:
    first, second = gtsrb.load(signs), gtsrb.load(signs)
    assert first.train.images.shape == (43 * 6, 3, 32, 32)
    assert first.train.images.dtype == torch.uint8
    assert first.test.labels.unique().tolist() == list(range(43))
    assert first.train.names[0] == "00000/00000_00000.ppm"
    assert len(first.train.tracks.unique()) == 43 * 3
    torch.testing.assert_close(first.train.images, second.train.images)
    assert first.sha256 == second.sha256


def test_other_sizes_are_resized_like_pillow(copy: Path) -> None:
    path = copy / TRAINING / "00000" / "00000_00000.ppm"
    image = Image.effect_noise((47, 51), 60).convert("RGB")
    image.save(path)
    expected = np.array(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(gtsrb.load(copy).train.images[0], expected)
    expected = np.array(image.resize((48, 48), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    large = gtsrb.load(copy, 48)
    np.testing.assert_array_equal(large.train.images[0], expected)
    assert large.test.images.shape == (86, 3, 48, 48)
    assert large.sha256 != gtsrb.load(copy).sha256


def test_what_is_known_of_test_images_beside_their_outcomes(copy: Path) -> None:
    """A copy of a training image is found; mistakes come by the true class's probability."""
    shutil.copy(copy / TRAINING / "00000" / "00000_00000.ppm", copy / TEST / "Images" / "00002.ppm")
    data = gtsrb.load(copy)
    labels = data.test.labels
    predicted, probability = labels.clone(), torch.ones(len(labels))
    predicted[[3, 5, 8]] = (labels[[3, 5, 8]] + 1) % 43
    probability[[3, 5, 8]] = torch.tensor([0.3, 0.1, 0.2])
    about = gtsrb.test_metadata(data, labels, predicted, probability)
    assert about["in_training"].nonzero().flatten().tolist() == [2]
    sizes = [Image.open(copy / TEST / "Images" / name).width for name in data.test.names[3:]]
    assert about["widths"][3:].tolist() == sizes
    assert about["mistakes"].tolist() == [5, 8, 3]
    assert torch.equal(about["mistaken_images"], data.test.images[[5, 8, 3]])
    assert about["names"] == data.test.names


def test_the_cache_follows_the_source(copy: Path) -> None:
    before = gtsrb.load(copy)
    path = copy / TRAINING / "00000" / "00000_00000.ppm"
    Image.new("RGB", (20, 20), (255, 0, 0)).save(path)
    after = gtsrb.load(copy)
    assert after.sha256 != before.sha256
    assert after.train.images[0, 0].min() == 255
    (copy / "cache" / "train-32px.pt").write_bytes(b"half a file")
    assert gtsrb.load(copy).sha256 == after.sha256


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda r: shutil.rmtree(r / TRAINING / "00007"), "missing class folders: 00007"),
        (lambda r: shutil.rmtree(r / "Final_Test"), "Final_Test was not found"),
        (
            lambda r: truncate(r / TRAINING / "00003" / "00001_00001.ppm"),
            "00001_00001.ppm is damaged",
        ),
        (lambda r: truncate(r / TEST / "Images" / "00004.ppm"), "00004.ppm is damaged"),
        (lambda r: (r / TRAINING / "00003" / "00001_00001.ppm").unlink(), "1 image listed in"),
        (lambda r: (r / TEST / "Images" / "00001.ppm").unlink(), "1 image listed in"),
        (
            lambda r: edit(r / TRAINING / "00003" / "GT-00003.csv", ";3\n", ";4\n"),
            "its folder is that of class 3",
        ),
        (lambda r: edit(r / TEST / "GT-final_test.csv", "00000.ppm", "00001.ppm"), "twice"),
        (
            lambda r: edit(r / TEST / "GT-final_test.csv", "ClassId", "Class"),
            "missing columns: ClassId",
        ),
        (
            lambda r: edit(r / TEST / "GT-final_test.csv", "00000.ppm;", "00000.ppm;w"),
            "and Width must be integers",
        ),
        (lambda r: (r / TEST / "GT-final_test.csv").write_text(""), "not a CSV table of GTSRB"),
        (lambda r: (r / TEST / "GT-final_test.csv").unlink(), "GTSRB_Final_Test_GT.zip"),
        (lambda r: (r / TRAINING / "00000" / "GT-00000.csv").unlink(), "GT-00000.csv not found"),
        (
            lambda r: [p.unlink() for p in (r / TRAINING / "00009").glob("*.ppm")],
            "00009 has no images",
        ),
        (
            lambda r: (r / TEST / "Images" / "00001.ppm").rename(r / TEST / "Images" / "9.ppm"),
            "1 image listed in",
        ),
    ],
)
def test_damage_is_a_clear_error(copy: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(copy)
    with pytest.raises(gtsrb.DataError) as error:
        gtsrb.load(copy)
    assert words in str(error.value)
    assert str(copy) in str(error.value)


def test_a_class_id_out_of_range(copy: Path) -> None:
    csv = copy / TEST / "GT-final_test.csv"
    lines = csv.read_text().splitlines()
    lines[1] = lines[1].rsplit(";", 1)[0] + ";43"
    csv.write_text("\n".join(lines) + "\n")
    with pytest.raises(gtsrb.DataError, match="ClassId 43; it must be 0 to 42"):
        gtsrb.load(copy)


@pytest.mark.parametrize("seed", range(3))
def test_the_split_keeps_tracks_whole_and_classes_covered(signs: Path, seed: int) -> None:
    part = gtsrb.load(signs).train
    train, val = gtsrb.split_by_track(part, 0.3, seeding.numpy_generator(seed, "split"))
    assert sorted([*train, *val]) == list(range(len(part.labels)))
    assert not set(part.tracks[train].tolist()) & set(part.tracks[val].tolist())
    assert (torch.bincount(part.labels[val]) == 2).all(), "one track of three, two frames each"


def test_no_validation_and_too_much(signs: Path) -> None:
    part = gtsrb.load(signs).train
    generator = seeding.numpy_generator(0, "split")
    train, val = gtsrb.split_by_track(part, 0, generator)
    assert (len(train), len(val)) == (len(part.labels), 0)
    with pytest.raises(gtsrb.DataError, match="no training track in class 0, which has 3"):
        gtsrb.split_by_track(part, 0.9, generator)


def test_splits_differ_by_seed_and_repeat(signs: Path) -> None:
    part = gtsrb.load(signs).train

    def val(seed: int) -> list[int]:
        split = gtsrb.split_by_track(part, 0.3, seeding.numpy_generator(seed, "split"))
        return split[1].tolist()

    assert val(1) == val(1) != val(2)


def test_drawing_repeats_itself_and_classes_differ(tmp_path: Path, signs: Path) -> None:
    synthetic_signs.draw_dataset(tmp_path / "again", tracks=3, frames=2, test_images=86, seed=0)
    names = sorted(p.relative_to(signs) for p in signs.rglob("*.ppm"))
    assert len(names) == 43 * 6 + 86
    for name in names[::17]:
        assert (tmp_path / "again" / name).read_bytes() == (signs / name).read_bytes()
    drawings = [np.asarray(synthetic_signs.sign(label), dtype=int) for label in range(43)]
    for i in range(43):
        for j in range(i):
            assert (np.abs(drawings[i] - drawings[j]).max(-1) > 40).sum() > 60, (i, j)


@pytest.mark.parametrize("label", FLIP_SAFE)
def test_drawn_flip_safe_classes_are_their_own_mirror_images(label: int) -> None:
    drawing = np.asarray(synthetic_signs.sign(label), dtype=int)
    differing = (np.abs(drawing - drawing[:, ::-1]).max(-1) > 60).mean()
    assert differing < 0.06  # edges fall half a pixel to one side


@pytest.mark.real_data
def test_real_signs(real_signs: Path) -> None:
    data = gtsrb.load(real_signs)
    assert (len(data.train.names), len(data.test.names)) == (39_209, 12_630)
    sizes = torch.bincount(torch.unique(data.train.tracks, return_counts=True)[1])
    labels = data.test.labels
    about = gtsrb.test_metadata(data, labels, labels, torch.ones(len(labels)))
    assert labels[about["in_training"]].tolist() == [14] * 8
    assert (about["widths"].min(), about["widths"].max()) == (25, 266)
    assert sizes[29] == 1, "one track has 29 frames"
    assert sizes[30] == 1306
    train, val = gtsrb.split_by_track(data.train, 0.1, seeding.numpy_generator(0, "split"))
    assert len(data.train.labels[val].unique()) == 43
    assert 0.09 < len(val) / (len(train) + len(val)) < 0.11
