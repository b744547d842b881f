"""Per-image test outputs of a study's runs: test_images.csv, a row an image, a column a run.

Signs: ``label``; where runs saved them, ``width`` (of the original image, in pixels) and
``in_training`` (1: a training image is the same in every pixel); each run's predicted class. Lungs:
each run's Jaccard index. An image that a run did not test has no value in its column.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.grid import Study
from analysis.runs.tables import EXACT_FLOATS, TableError, replace_file

NAME = "test_images.csv"
ABOUT = {"labels": "label", "widths": "width", "in_training": "in_training"}  # array: column
FILES = "files"  # folder beside the tables with what runs saved; not for git
SCORES, OVERLAYS = "test_scores.npz", "test_overlays.npz"


def read(folder: Path) -> pd.DataFrame | None:
    """Return the table, indexed by image name, or None where no run saved its outputs.

    Raises:
        TableError: when the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        table = pd.read_csv(io.StringIO(text), index_col="image", **EXACT_FLOATS)
    except ValueError as error:
        raise TableError(f"{path} is no table of images: {error}; fetch again") from error
    if not text.endswith("\n") or table.index.duplicated().any():
        raise TableError(f"{path} is cut off or names an image twice; fetch the study again")
    return table


def write(folder: Path, run_ids: list[str]) -> list[str]:
    """Write the table from the files of ``run_ids`` and an earlier table; return who lacks both.

    Raises:
        TableError: when a file is damaged or two runs disagree on an image's class, width, ...
    """
    earlier = read(folder)
    columns, lacking = {}, []
    about: dict[str, list[pd.Series]] = {name: [] for name in ABOUT.values()}
    for run_id in run_ids:
        path = folder / FILES / run_id / SCORES
        if path.exists():
            arrays = load(path)
            values = arrays["jaccard" if "jaccard" in arrays else "predicted"]
            columns[run_id] = pd.Series(values, arrays["names"])
            for array in set(ABOUT) & set(arrays):
                about[ABOUT[array]].append(pd.Series(arrays[array].astype(int), arrays["names"]))
        elif earlier is not None and run_id in earlier:
            columns[run_id] = earlier[run_id].dropna()
        else:
            lacking.append(run_id)
    for name in set(ABOUT.values()) & set([] if earlier is None else earlier):
        about[name].append(earlier[name].dropna())
    if not columns:
        return lacking
    table = pd.DataFrame(columns).sort_index()
    for place, (name, found) in enumerate((n, f) for n, f in about.items() if f):
        known = pd.concat(found).groupby(level=0).agg(["min", "max"])
        if (differ := known["min"] != known["max"]).any():
            raise TableError(f"runs disagree on the {name} of {known.index[differ][0]}")
        table.insert(place, name, known["min"].reindex(table.index))
    whole = [name for name in table if (table[name].dropna() % 1 == 0).all()]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    replace_file(folder / NAME, table.to_csv(index_label="image").encode())
    return lacking


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a run's .npz file.

    Raises:
        TableError: when it is damaged.
    """
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise TableError(f"{path} is damaged: {error}; delete it and fetch again") from error


def scores(table: pd.DataFrame, study: Study, run_ids: list[str]) -> pd.DataFrame | None:
    """Return each image's score in the metric's unit, a column a run, at the last epoch.

    None where the runs did not test the same images, some run saved nothing, or the metric is not
    one of these images.
    """
    metrics = ("test/error",) if "label" in table else ("test/jaccard", "test/dice")
    if (
        study.metric not in metrics
        or not set(run_ids) <= set(table)
        or table[run_ids].isna().any(axis=None)
    ):
        return None
    own = table[run_ids]
    if "label" in table:
        return own.ne(table["label"], axis=0).astype(float)
    return dice(own) if study.metric.endswith("dice") else own


def dice(jaccard: pd.DataFrame) -> pd.DataFrame:
    """Turn Jaccard into Dice: D = 2 J / (1 + J)."""
    return 2 * jaccard / (1 + jaccard)
