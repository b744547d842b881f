"""Where the images and labels of GTSRB are: the folders in which people have them, as tables.

    official       Final_Training/Images/<class>/<track>_<frame>.ppm   with GT-<class>.csv
                   Final_Test/Images/<5 digits>.ppm                    with GT-final_test.csv
    Kaggle's       Train/<class>/<class>_<track>_<frame>.png, Test/*.png, Train.csv, Test.csv
    torchvision's  Training/<class>/…, Final_Test/Images/…, GT-final_test.csv: another, smaller
                   training archive, which published scores do not rest on
    trainingset/<class>/…, testset/…

Each may lie in a folder GTSRB/ (or gtsrb/GTSRB/) below the data folder. Images may be PPM, PNG, BMP
or JPEG, tables may be separated by semicolons or commas, and the test labels may lie next to the
images, in a folder above them, or next to the data folder. Without tables, classes come from the
folders' names and tracks from the files'.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.spec.errors import DataError

CLASSES = 43
IMAGES = (".ppm", ".png", ".bmp", ".jpg", ".jpeg")  # of two files of one name the first counts
TRAINING = ("Final_Training/Images", "Train", "Training", "trainingset")
TEST = ("Final_Test/Images", "Test", "testset", "Final_Test")
TEST_LABELS = ("GT-final_test.csv", "Test.csv")
NAME = re.compile(r"(?:\d{1,5}_)?(\d{1,5})_(\d{1,5})")  # [class_]track_frame
TORCHVISION_IMAGES = 26_640
TORCHVISION = (
    f"the training images are GTSRB-Training_fixed.zip, as torchvision downloads it "
    f"({TORCHVISION_IMAGES:,} images), not the official training archive (39,209 images)"
)


@dataclass(frozen=True)
class Layout:
    """The folders of one copy of the data: ``base`` is the one that the others are in."""

    root: Path
    base: Path
    training: Path
    test: Path

    @property
    def label_folders(self) -> list[Path]:
        """Where the test labels are looked for, in this order."""
        near = [self.test.parent, self.test, self.base, self.base.parent]
        return list(dict.fromkeys([*near, self.root, self.root.parent]))

    @property
    def files(self) -> list[Path]:
        """The tables that may be read, but for those next to training images."""
        names = ("Train.csv", *TEST_LABELS)
        paths = [folder / name for folder in self.label_folders for name in names]
        return [path for path in paths if path.exists()]


def find(root: Path) -> Layout:
    """Return the layout of the data below ``root``.

    Raises:
        DataError: when there is none that is known; says which are.
    """
    for base in (root, root / "GTSRB", root / "gtsrb" / "GTSRB"):
        if not (training := _first(base, TRAINING)):
            continue
        if test := _first(base, TEST):
            return Layout(root, base, training, test)
        raise DataError(f"{base / 'Final_Test'} not found, but {training} is there: {_ACCEPTED}")
    raise DataError(f"no traffic signs in {root}: {_ACCEPTED}")


_ACCEPTED = (
    "expected the official folders Final_Training/Images and Final_Test/Images, Kaggle's Train and "
    "Test, or torchvision's Training and Final_Test. `make data` downloads the official ones, "
    "`python -m lib.synthetic FOLDER` draws a stand-in."
)


def _first(base: Path, names: tuple[str, ...]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)


def training_table(layout: Layout) -> pd.DataFrame:
    """Return path, name, label, track and width of every training image.

    ``name``: as in the official layout, whatever the file is called. ``width``: of the original
    image in pixels, or 0 where no table says it.

    Raises:
        DataError: on a missing class, image or table, and on what a table cannot hold.
    """
    folders = {label: _class_folder(layout.training, label) for label in range(CLASSES)}
    if missing := [f"{label:05d}" for label, folder in folders.items() if folder is None]:
        raise DataError(
            f"{layout.training} lacks {len(missing)} of {CLASSES} class folders: "
            f"{', '.join(missing)}; unpack the training archive again"
        )
    whole = layout.base / "Train.csv"
    listed = _read_csv(whole) if whole.exists() else None
    tables = {label: _class_table(folder, label) for label, folder in folders.items()}
    has_tables = any(path.exists() for path in tables.values())
    parts = []
    for label, folder in folders.items():
        if listed is not None:
            own, source = listed[listed["ClassId"] == label], whole
        elif has_tables:
            own, source = _read_csv(tables[label]), tables[label]
        else:
            own, source = None, folder
        parts.append(_class_rows(folder, label, own, source))
    return pd.concat(parts).sort_values("name", ignore_index=True)


def _class_folder(training: Path, label: int) -> Path | None:
    return _first(training, (f"{label:05d}", f"{label:02d}", str(label)))


def _class_table(folder: Path, label: int) -> Path:
    names = (f"GT-{label:05d}.csv", f"{label:05d}.csv")
    found = next((folder / name for name in names if (folder / name).exists()), None)
    return found or folder / names[0]


def _class_rows(folder: Path, label: int, table: pd.DataFrame | None, source: Path) -> pd.DataFrame:
    images = _images(folder.iterdir(), folder)
    if table is None:
        table = pd.DataFrame({"stem": sorted(images), "ClassId": label, "Width": 0})
    if (wrong := table[table["ClassId"] != label]).size:
        raise DataError(
            f"{source}: {wrong['file'].iloc[0]} has class {wrong['ClassId'].iloc[0]}, but the "
            f"folder's is {label}"
        )
    _compare(images, table["stem"], folder, source)
    rows = []
    for stem, width in zip(table["stem"], table["Width"], strict=True):
        if not (parts := NAME.fullmatch(stem)):
            raise DataError(f"{images[stem]}: expected a name like 00012_00029.ppm")
        track, frame = map(int, parts.groups())
        name = f"{label:05d}/{track:05d}_{frame:05d}.ppm"
        rows.append((images[stem], name, label, 100_000 * label + track, width))
    names = [name for _, name, *_ in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{folder} has the image {twice} twice, under two names; keep one of them")
    return pd.DataFrame(rows, columns=["path", "name", "label", "track", "width"])


def test_table(layout: Layout) -> pd.DataFrame:
    """Return path, name, label, track (-1) and width (0 where unknown) of every test image.

    Raises:
        DataError: on a missing image or table, and on what a table cannot hold.
    """
    images = _images(layout.test.rglob("*"), layout.test)
    places = layout.label_folders
    files = [place / name for name in TEST_LABELS for place in places]
    csv = next((file for file in files if file.exists()), None)
    folders = {key: path.parent.name for key, path in images.items()}
    in_folders = all(name.isdigit() and int(name) < CLASSES for name in folders.values())
    if csv is not None:
        table = _read_csv(csv)
        if not set(table["stem"]) & set(images) or table["stem"].duplicated().any():
            table["stem"] = table["file"].str.replace("\\", "/").str.rsplit(".", n=1).str[0]
    elif in_folders:
        labels = [int(folders[stem]) for stem in sorted(images)]
        table = pd.DataFrame({"stem": sorted(images), "ClassId": labels, "Width": 0})
    else:
        raise DataError(
            f"GT-final_test.csv not found in {', '.join(map(str, places))}; it comes in "
            "GTSRB_Final_Test_GT.zip (the .test.csv next to the images has no classes)"
        )
    if (wrong := table[~table["ClassId"].between(0, CLASSES - 1)]).size:
        raise DataError(
            f"{csv}: {wrong['file'].iloc[0]} has class {wrong['ClassId'].iloc[0]}; "
            f"allowed are 0 to {CLASSES - 1}"
        )
    _compare(images, table["stem"], layout.test, csv or layout.test)
    columns = {
        "path": [images[stem] for stem in table["stem"]],
        "name": [f"{stem}.ppm" for stem in table["stem"]],
        "label": table["ClassId"],
        "track": -1,
        "width": table["Width"],
    }
    return pd.DataFrame(columns).sort_values("name", ignore_index=True)


def _images(paths: Iterator[Path], folder: Path) -> dict[str, Path]:
    """Return the images among ``paths`` by stem; macOS's files (``._…``) are none.

    Where several folders have images of one name, by their paths below ``folder``, without suffix.
    """
    by_path: dict[str, Path] = {}
    for path in sorted(paths, key=lambda p: (_rank(p), p)):
        if _rank(path) < len(IMAGES) and not path.name.startswith("."):
            by_path.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    if not by_path:
        raise DataError(f"{folder} has no image (.ppm, .png, …); unpack the archive again")
    by_stem = {path.stem: path for path in by_path.values()}
    return by_stem if len(by_stem) == len(by_path) else by_path


def _rank(path: Path) -> int:
    suffix = path.suffix.lower()
    return IMAGES.index(suffix) if suffix in IMAGES else len(IMAGES)


def _read_csv(path: Path) -> pd.DataFrame:
    """Return a table with the columns file, stem, folder (of the file), ClassId and Width."""
    if not path.exists():
        raise DataError(f"{path} not found; unpack the archive again")
    try:
        with open(path, encoding="utf-8-sig") as file:
            separator = ";" if ";" in file.readline() else ","
        text = {"Filename": str, "Path": str}
        table = pd.read_csv(path, sep=separator, dtype=text, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a GTSRB CSV: {error}") from error
    table = table.rename(columns={"Path": "Filename"} if "Filename" not in table else {})
    if lacking := {"Filename", "ClassId", "Width"} - set(table.columns):
        raise DataError(
            f"{path} lacks the column(s) {', '.join(sorted(lacking))} (separated by ; or ,)"
        )
    if table.empty:
        raise DataError(f"{path} lists no image")
    whole = [pd.api.types.is_integer_dtype(table[name]) for name in ("ClassId", "Width")]
    if not all(whole) or table["Filename"].isna().any():
        raise DataError(f"{path}: an entry is empty, or a ClassId or Width is no whole number")
    if (twice := table["Filename"].duplicated()).any():
        raise DataError(f"{path} lists {table['Filename'][twice].iloc[0]} twice")
    files = table["Filename"].str.replace("\\", "/").str.split("/")
    return table.assign(
        file=table["Filename"],
        stem=files.str[-1].str.rsplit(".", n=1).str[0],
        folder=files.map(lambda parts: parts[-2] if len(parts) > 1 else ""),
    )


def _compare(images: dict[str, Path], listed: pd.Series, folder: Path, source: Path) -> None:
    if lacking := sorted(set(listed) - set(images)):
        raise DataError(
            f"{folder} lacks {len(lacking)} image(s) that {source} lists, first {lacking[0]}; "
            "unpack the archive again"
        )
    if extra := sorted(set(images) - set(listed)):
        raise DataError(
            f"{folder} has {len(extra)} image(s) that {source} does not list, first "
            f"{images[extra[0]].name}"
        )
