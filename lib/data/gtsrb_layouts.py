"""Find the images and labels of GTSRB in the folder layouts in common use; return them as tables.

    official       Final_Training/Images/<class>/<track>_<frame>.ppm   with GT-<class>.csv
                   Final_Test/Images/<5 digits>.ppm                    with GT-final_test.csv
    Kaggle's       Train/<class>/<class>_<track>_<frame>.png, Test/*.png, Train.csv, Test.csv
    torchvision's  Training/<class>/…, Final_Test/Images/…, GT-final_test.csv
                   (a smaller training archive, not the one that published scores used)
    others         trainingset/<class>/…, testset/…

Each layout may be in a subfolder GTSRB/ or gtsrb/GTSRB/ of the data folder. Images may be PPM, PNG,
BMP or JPEG. Tables may be separated by semicolons or commas. The file with the test labels may be
next to the images, in a folder above them, or next to the data folder. Without tables, classes are
taken from folder names and tracks from file names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.spec.errors import DataError
from lib.spec.gtsrb_classes import CLASSES
from lib.spec.words import count

IMAGES = (".ppm", ".png", ".bmp", ".jpg", ".jpeg")  # preferred first if a stem has several
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
    """The folders of one copy of the data.

    ``root`` is the data folder; ``base``, which is ``root`` or below it, has the other two.
    """

    root: Path
    base: Path
    training: Path
    test: Path

    @property
    def label_folders(self) -> list[Path]:
        """The folders in which the test labels are searched, in this order."""
        near = [self.test.parent, self.test, self.base, self.base.parent]
        return list(dict.fromkeys([*near, self.root, self.root.parent]))

    @property
    def files(self) -> list[Path]:
        """The existing tables, except those in the folders of training images."""
        names = ("Train.csv", *TEST_LABELS)
        paths = [folder / name for folder in self.label_folders for name in names]
        return [path for path in paths if path.exists()]


def find(root: Path) -> Layout:
    """Return the layout of the data below ``root``.

    Raises:
        DataError: if ``root`` has none of the known layouts.
    """
    for base in (root, root / "GTSRB", root / "gtsrb" / "GTSRB"):
        if not (training := _first(base, TRAINING)):
            continue
        if test := _first(base, TEST):
            return Layout(root, base, training, test)
        raise DataError(f"{training} exists, but {base / 'Final_Test'} was not found. {_ACCEPTED}")
    raise DataError(f"no traffic signs in {root}. {_ACCEPTED}")


_ACCEPTED = (
    "Expected the official folders Final_Training/Images and Final_Test/Images, Kaggle's Train and "
    "Test, or torchvision's Training and Final_Test. `make data` downloads the official data; "
    "`python -m lib.synthetic FOLDER` draws synthetic signs."
)


def _first(base: Path, names: tuple[str, ...]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)


def training_table(layout: Layout) -> pd.DataFrame:
    """Return path, name, label, track and width of every training image.

    ``name``: the file's name in the official layout, for example 00012/00003_00029.ppm. ``width``:
    of the original image in pixels, 0 if no table has it.

    Raises:
        DataError: on a missing class, image or table, and on invalid entries of a table.
    """
    folders = {label: _class_folder(layout.training, label) for label in range(CLASSES)}
    if missing := [f"{label:05d}" for label, folder in folders.items() if folder is None]:
        raise DataError(
            f"{layout.training}: missing class folders: {', '.join(missing)} ({len(missing)} of "
            f"{CLASSES}); unpack the training archive again"
        )
    all_classes = layout.base / "Train.csv"
    listed = _read_csv(all_classes) if all_classes.exists() else None
    tables = {label: _class_table(folder, label) for label, folder in folders.items()}
    has_tables = any(path.exists() for path in tables.values())
    parts = []
    for label, folder in folders.items():
        if listed is not None:
            table, source = listed[listed["ClassId"] == label], all_classes
        elif has_tables:
            table, source = _read_csv(tables[label]), tables[label]
        else:
            table, source = None, folder
        parts.append(_class_rows(folder, label, table, source))
    return pd.concat(parts).sort_values("name", ignore_index=True)


def _class_folder(training: Path, label: int) -> Path | None:
    return _first(training, (f"{label:05d}", f"{label:02d}", str(label)))


def _class_table(folder: Path, label: int) -> Path:
    names = (f"GT-{label:05d}.csv", f"{label:05d}.csv")
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def _class_rows(folder: Path, label: int, table: pd.DataFrame | None, source: Path) -> pd.DataFrame:
    images = _images(folder.iterdir(), folder)
    if table is None:
        table = pd.DataFrame({"stem": sorted(images), "ClassId": label, "Width": 0})
    if (wrong := table[table["ClassId"] != label]).size:
        raise DataError(
            f"{source}: {wrong['file'].iloc[0]} has ClassId {wrong['ClassId'].iloc[0]}, but its "
            f"folder is that of class {label}"
        )
    _compare(images, table["stem"], folder, source)
    rows = []
    for stem, width in zip(table["stem"], table["Width"], strict=True):
        if not (parts := NAME.fullmatch(stem)):
            raise DataError(
                f"{images[stem]}: the name must be track_frame, such as 00012_00029.ppm"
            )
        track, frame = map(int, parts.groups())
        name = f"{label:05d}/{track:05d}_{frame:05d}.ppm"
        rows.append((images[stem], name, label, 100_000 * label + track, width))
    names = [name for _, name, *_ in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{folder} has the image {twice} under two names; keep one of the files")
    return pd.DataFrame(rows, columns=["path", "name", "label", "track", "width"])


def test_table(layout: Layout) -> pd.DataFrame:
    """Return path, name, label, track (-1) and width (0 if unknown) of every test image.

    Raises:
        DataError: on a missing image or table, and on invalid entries of a table.
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
            f"GT-final_test.csv not found in {', '.join(map(str, places))}. It is in "
            "GTSRB_Final_Test_GT.zip (the GT-final_test.test.csv next to the images has no classes)"
        )
    if (wrong := table[~table["ClassId"].between(0, CLASSES - 1)]).size:
        raise DataError(
            f"{csv}: {wrong['file'].iloc[0]} has ClassId {wrong['ClassId'].iloc[0]}; "
            f"it must be 0 to {CLASSES - 1}"
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
    """Return the images among ``paths``, keyed by stem; skip macOS's metadata files (``._…``).

    If images in several folders have the same stem, the keys are paths relative to ``folder``,
    without suffix.
    """
    by_path: dict[str, Path] = {}
    for path in sorted(paths, key=lambda p: (_rank(p), p)):
        if _rank(path) < len(IMAGES) and not path.name.startswith("."):
            by_path.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    if not by_path:
        raise DataError(f"{folder} has no images (.ppm, .png, …); unpack the archive again")
    by_stem = {path.stem: path for path in by_path.values()}
    return by_stem if len(by_stem) == len(by_path) else by_path


def _rank(path: Path) -> int:
    suffix = path.suffix.lower()
    return IMAGES.index(suffix) if suffix in IMAGES else len(IMAGES)


def _read_csv(path: Path) -> pd.DataFrame:
    """Return a table with the columns file, stem and folder (both of file), ClassId and Width."""
    if not path.exists():
        raise DataError(f"{path} not found; unpack the archive again")
    try:
        with open(path, encoding="utf-8-sig") as file:
            separator = ";" if ";" in file.readline() else ","
        text = {"Filename": str, "Path": str}
        table = pd.read_csv(path, sep=separator, dtype=text, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a CSV table of GTSRB ({error}); unpack the archive again"
        ) from error
    table = table.rename(columns={"Path": "Filename"} if "Filename" not in table else {})
    if missing := {"Filename", "ClassId", "Width"} - set(table.columns):
        raise DataError(
            f"{path}: missing columns: {', '.join(sorted(missing))}. Columns must be separated by "
            "; or ,"
        )
    if table.empty:
        raise DataError(f"{path} lists no images; unpack the archive again")
    integers = [pd.api.types.is_integer_dtype(table[name]) for name in ("ClassId", "Width")]
    if not all(integers) or table["Filename"].isna().any():
        raise DataError(
            f"{path}: every row needs a Filename, and ClassId and Width must be integers; unpack "
            "the archive again"
        )
    if (twice := table["Filename"].duplicated()).any():
        raise DataError(
            f"{path} lists {table['Filename'][twice].iloc[0]} twice; remove one of the rows"
        )
    files = table["Filename"].str.replace("\\", "/").str.split("/")
    return table.assign(
        file=table["Filename"],
        stem=files.str[-1].str.rsplit(".", n=1).str[0],
        folder=files.map(lambda parts: parts[-2] if len(parts) > 1 else ""),
    )


def _compare(images: dict[str, Path], listed: pd.Series, folder: Path, source: Path) -> None:
    """Raise a DataError unless ``folder`` has exactly the images that ``source`` lists."""
    if missing := sorted(set(listed) - set(images)):
        raise DataError(
            f"{folder}: {count(len(missing), 'image')} listed in {source} not found, first "
            f"{missing[0]}; unpack the archive again"
        )
    if extra := sorted(set(images) - set(listed)):
        raise DataError(
            f"{folder} has {count(len(extra), 'image')} that {source} does not list, first "
            f"{images[extra[0]].name}; remove them or unpack the archive again"
        )
