"""The layouts in which people have the signs and the radiographs: read, or refused by name."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.data import gtsrb, gtsrb_layouts, jsrt
from lib.spec.errors import DataError
from tests import factories

IMAGES, LABELS = "Final_Training/Images", "Final_Test/GT-final_test.csv"


@pytest.fixture
def copy(signs: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn signs in the official layout."""
    return Path(shutil.copytree(signs, tmp_path / "s", ignore=shutil.ignore_patterns("cache")))


def convert(paths: Iterator[Path], suffix: str) -> None:
    for path in list(paths):
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()


def kaggle(root: Path, tables: bool = True) -> Path:
    columns = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    rows = []
    for label in range(43):
        folder = root / IMAGES / f"{label:05d}"
        (root / "Train" / str(label)).mkdir(parents=True)
        for row in pd.read_csv(folder / f"GT-{label:05d}.csv", sep=";").to_dict("records"):
            name = f"Train/{label}/{label:05d}_{row['Filename'].replace('.ppm', '.png')}"
            Image.open(folder / row["Filename"]).save(root / name)
            rows.append({key: row[key] for key in columns} | {"Path": name})
    test = pd.read_csv(root / LABELS, sep=";")
    (root / "Final_Test/Images").rename(root / "Test")
    convert((root / "Test").glob("*.ppm"), ".png")
    test["Path"] = "Test/" + test["Filename"].str.replace(".ppm", ".png")
    test[[*columns, "Path"]].to_csv(root / "Test.csv", index=False)
    if tables:
        pd.DataFrame(rows).to_csv(root / "Train.csv", index=False)
    shutil.rmtree(root / "Final_Training")
    shutil.rmtree(root / "Final_Test")
    return root


def torchvision(root: Path, name: str = "Training") -> Path:
    base = root / "gtsrb" / "GTSRB"
    base.mkdir(parents=True)
    (root / LABELS).rename(base.parent / "GT-final_test.csv")
    (root / IMAGES).rename(base / name)
    (root / "Final_Test").rename(base / "Final_Test")
    return root


def next_to_folder(root: Path) -> Path:
    (root / "GTSRB").mkdir()
    (root / LABELS).rename(root / "GT-final_test.csv")
    for name in ("Final_Training", "Final_Test"):
        (root / name).rename(root / "GTSRB" / name)
    return root / "GTSRB"


def as_png(root: Path) -> Path:
    convert(root.rglob("*.ppm"), ".png")
    return root


def with_commas(root: Path) -> Path:
    for path in root.rglob("*.csv"):
        path.write_text("\ufeff" + path.read_text().replace(";", ","))
    return root


def in_class_folders(root: Path, labels: bool = True) -> Path:
    for row in pd.read_csv(root / LABELS, sep=";").to_dict("records"):
        folder = root / "Final_Test/Images" / f"{row['ClassId']:05d}"
        folder.mkdir(exist_ok=True)
        (folder.parent / row["Filename"]).rename(folder / row["Filename"])
    if not labels:
        (root / LABELS).unlink()
    return root


def renamed_tables(root: Path) -> Path:
    for path in root.rglob("GT-000*.csv"):
        path.rename(path.with_name(path.name.removeprefix("GT-")))
    return root


def macos(root: Path) -> Path:
    (root / IMAGES / "00000/.DS_Store").write_bytes(b"x")
    (root / IMAGES / "00000/._00000_00000.ppm").write_bytes(b"x")
    (root / "Final_Test/Images/._00000.ppm").write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    "change",
    [
        kaggle,
        lambda root: kaggle(root, tables=False),
        torchvision,
        lambda root: torchvision(root, "trainingset"),
        next_to_folder,
        as_png,
        with_commas,
        in_class_folders,
        lambda root: in_class_folders(root, labels=False),
        renamed_tables,
        macos,
    ],
)
def test_signs_are_the_same_in_every_layout(
    signs: Path, copy: Path, change: Callable[[Path], Path]
) -> None:
    """Pixels, labels and tracks have the same hash, and the images the same names."""
    official, found = gtsrb.load(signs), gtsrb.load(change(copy))
    assert found.sha256 == official.sha256
    assert (found.train.names, found.test.names) == (official.train.names, official.test.names)
    assert gtsrb.load(copy if (copy / "cache").exists() else copy / "GTSRB").sha256 == found.sha256


def numbered_per_class(root: Path, labels: bool) -> Path:
    """Test images in class folders, numbered from 0 in each."""
    table = pd.read_csv(root / LABELS, sep=";")
    number = table.groupby("ClassId").cumcount()
    for old, label, k in zip(table["Filename"], table["ClassId"], number, strict=True):
        folder = root / "Final_Test/Images" / f"{label:05d}"
        folder.mkdir(exist_ok=True)
        (root / "Final_Test/Images" / old).rename(folder / f"{k:05d}.ppm")
    table["Filename"] = [
        f"{label:05d}/{k:05d}.ppm" for label, k in zip(table["ClassId"], number, strict=True)
    ]
    table.to_csv(root / LABELS, sep=";", index=False)
    if not labels:
        (root / LABELS).unlink()
    return root


@pytest.mark.parametrize("labels", [True, False])
def test_images_of_one_name_in_several_folders_stay_apart(
    signs: Path, copy: Path, labels: bool
) -> None:
    official, found = gtsrb.load(signs).test, gtsrb.load(numbered_per_class(copy, labels)).test
    assert len(set(found.names)) == len(official.names)
    order = np.lexsort((official.names, official.labels))
    assert np.array_equal(found.images, official.images[order])
    assert np.array_equal(found.labels, official.labels[order])


def test_a_second_copy_of_an_image_is_refused(copy: Path) -> None:
    thumbs = copy / "Final_Test/Images/thumbs"
    thumbs.mkdir()
    shutil.copy(copy / "Final_Test/Images/00000.ppm", thumbs)
    with pytest.raises(DataError, match="does not list, first 00000"):
        gtsrb.load(copy)


def test_other_labels_make_another_cache(copy: Path) -> None:
    root = next_to_folder(copy)
    before = gtsrb.load(root).sha256
    csv = copy / "GT-final_test.csv"
    lines = csv.read_text().splitlines()
    lines[1] = lines[1].rsplit(";", 1)[0] + (";5" if lines[1][-2:] != ";5" else ";6")
    csv.write_text("\n".join(lines) + "\n")
    assert gtsrb.load(root).sha256 != before


def test_widths_without_tables_are_the_files_own(signs: Path, copy: Path) -> None:
    expected = gtsrb.load(signs).train.widths
    assert gtsrb.load(kaggle(copy, tables=False)).train.widths.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / LABELS).unlink(), "GTSRB_Final_Test_GT.zip"),
        (lambda root: (root / "Final_Training").rename(root / "pictures"), "Kaggle's Train and"),
        (
            lambda root: (root / "Final_Test").rename(root / "pictures"),
            "Final_Training/Images exists, but",
        ),
        (
            lambda root: (root / IMAGES / "00007/00000_00000.ppm").rename(
                root / IMAGES / "00007/sign.ppm"
            ),
            "1 image listed in",
        ),
    ],
)
def test_other_folders_are_refused(
    copy: Path, change: Callable[[Path], object], message: str
) -> None:
    change(copy)
    with pytest.raises(DataError) as error:
        gtsrb.load(copy)
    assert message in str(error.value)


def test_torchvisions_archive_is_reported_and_not_compared_with_published_scores(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gtsrb_layouts, "TORCHVISION_IMAGES", 43 * 6)
    data = gtsrb.load(torchvision(copy))
    assert "as torchvision downloads it (26,640 images)" in capsys.readouterr().out
    assert data.about["data_note"] == data.note
    sweep_path = factories.grid(tmp_path / "s.yaml", {}, seeds=7)
    scores = {(): [0.01, 0.011, 0.012, 0.013, 0.014, 0.015, 0.016]}
    tables = factories.scored(sweep_path, scores, data_note=data.note)
    folder = factories.write_study(tmp_path / "t", *tables)
    message = factories.refusal(folder, sweep_path, published_scores={"a committee": 0.0054})
    assert "published_scores cannot be compared with runs on other data" in message


# Radiographs


@pytest.fixture
def drawn(chests: Path, tmp_path: Path) -> Path:
    """Give a copy of the drawn radiographs with their masks."""
    return Path(shutil.copytree(chests, tmp_path / "c", ignore=shutil.ignore_patterns("cache")))


def regray(path: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str = "") -> None:
    image = Image.fromarray(change(np.asarray(Image.open(path).convert("L"))))
    path.unlink()
    image.save(path.with_suffix(suffix or path.suffix))


def masks_as(root: Path, suffix: str) -> None:
    for path in list((root / "masks").rglob("*.gif")):
        regray(path, lambda a: a, suffix)


def images_as(root: Path, suffix: str) -> None:
    for path in list((root / "images").glob("*.png")):
        regray(path, lambda a: a, suffix)


def merge_masks(root: Path, ending: str) -> None:
    for path in list((root / "images").glob("*.png")):
        lungs = [
            np.asarray(Image.open(root / "masks" / lung / f"{path.stem}.gif").convert("L")) > 0
            for lung in ("left lung", "right lung")
        ]
        merged = Image.fromarray(((lungs[0] | lungs[1]) * 255).astype(np.uint8))
        merged.save(path.with_name(f"{path.stem}{ending}.png"))
    shutil.rmtree(root / "masks")


def underscores(root: Path) -> None:
    for lung in ("left lung", "right lung"):
        (root / "masks" / lung).rename(root / "masks" / lung.replace(" ", "_").title())


def lower_case(root: Path) -> None:
    for path in list((root / "images").glob("*.png")):
        path.rename(path.with_name(path.name.lower()))


def macos_chests(root: Path) -> None:
    (root / "images/._JPCLN001.png").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    shutil.copy(root / "images/JPCLN001.png", root / "__MACOSX")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: masks_as(root, ".png"),
        lambda root: masks_as(root, ".bmp"),
        lambda root: images_as(root, ".tif"),
        lambda root: images_as(root, ".bmp"),
        lambda root: merge_masks(root, "msk"),
        lambda root: merge_masks(root, "_mask"),
        underscores,
        lower_case,
        macos_chests,
    ],
)
def test_radiographs_are_the_same_in_every_layout(
    chests: Path, drawn: Path, change: Callable[[Path], None]
) -> None:
    change(drawn)
    assert jsrt.load(drawn, 32).sha256 == jsrt.load(chests, 32).sha256


def test_jpegs_are_read_nearly_alike(chests: Path, drawn: Path) -> None:
    images_as(drawn, ".jpg")
    gap = jsrt.load(drawn, 32).images - jsrt.load(chests, 32).images
    assert 0 < gap.abs().max() < 0.2


def test_floats_are_read_as_grays(chests: Path, drawn: Path) -> None:
    for path in list((drawn / "images").glob("*.png")):
        gray = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        Image.fromarray(16 * gray).save(path.with_suffix(".tif"))
        path.unlink()
    gap = jsrt.load(drawn, 32).images - jsrt.load(chests, 32).images
    assert gap.abs().max() < 1e-3


def test_inverted_radiographs_are_turned_and_reported(
    chests: Path, drawn: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in (drawn / "images").glob("*.png"):
        regray(path, lambda a: 255 - a)
    for _ in range(2):  # from the files, and from the cache
        found = jsrt.load(drawn, 32).images
        assert "20 of 20 radiographs have lungs brighter" in capsys.readouterr().out
        np.testing.assert_allclose(found, jsrt.load(chests, 32).images, atol=1e-5)


def test_originals_of_either_byte_order(drawn: Path) -> None:
    first = sorted((drawn / "images").glob("*.png"))[:2]
    for path in [p for p in drawn.rglob("*") if p.is_file() and p.stem not in ("JPCLN001",)]:
        path.unlink()
    gray = np.asarray(Image.open(first[0]).convert("L").resize((2048, 2048)), dtype=np.uint16)
    found = []
    for kind in (">u2", "<u2"):
        (4095 - gray * 16).astype(kind).tofile(drawn / "images/JPCLN001.IMG")
        found.append(jsrt.load(drawn, 32).sha256)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "masks"), "but no lung masks"),
        (lambda root: shutil.rmtree(root / "masks/left lung"), "has no mask of the left lung"),
        (
            lambda root: [
                regray(path, lambda a: np.asarray(Image.fromarray(a).resize((200, 200), 2)))
                for path in list((root / "masks").rglob("*.gif"))
            ],
            "with nearest-neighbor interpolation",
        ),
        (
            lambda root: [
                regray(path, lambda a: 255 - (a > 0) * np.uint8(255))
                for path in list((root / "masks").rglob("*.gif"))
            ],
            "seems to be inverted",
        ),
        (
            lambda root: [
                np.zeros((1024, 1024), ">u2").tofile(path.with_suffix(".IMG"))
                for path in (root / "images").glob("*.png")
            ],
            "bit depth to PNG",
        ),
    ],
)
def test_other_radiographs_are_refused(
    drawn: Path, change: Callable[[Path], object], message: str
) -> None:
    change(drawn)
    with pytest.raises(DataError) as error:
        jsrt.load(drawn, 32)
    assert message in str(error.value)
