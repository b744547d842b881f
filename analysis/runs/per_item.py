"""Test outputs per item of a study's runs: test_images.csv, one row per item, columns by run.

A run saves test_scores.npz with ``names`` (or ``items``), the items' names, and one of

- ``predicted`` and ``labels``: classes, from which error and accuracy follow;
- ``jaccard``: overlaps, from which Dice follows too;
- ``score``: one score per item in the direction of the study's own metric.

The table's columns are <kind>.<run id>, after the columns about the items themselves: ``label``,
``width`` (of the original image, in pixels), ``in_training`` (1: a training image has the same
pixels), ``cluster`` (what several items share, such as a patient). An item that a run did not test
has no value in its column.
"""

import io
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs.tables import EXACT_FLOATS, FORMULA, TableError, decode, encode
from lib.spec.files import write_atomically
from lib.spec.metric import Metric

NAME = "test_images.csv"
ABOUT = {"labels": "label", "widths": "width", "in_training": "in_training"}  # array: column
ABOUT |= {"cluster": "cluster"}
KINDS = ("predicted", "jaccard", "score")
FILES = "files"  # folder next to the tables with what runs saved; not committed
SCORES, OVERLAYS = "test_scores.npz", "test_overlays.npz"
MOST_BYTES = 2**30  # of a run's outputs, unpacked: a small file may claim any size
# What numpy raises on files that were cut off, changed, or of another kind.
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, MemoryError)
DAMAGE += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def read(folder: Path) -> pd.DataFrame | None:
    """Return the table, indexed by item, or None where no run saved its outputs.

    Raises:
        TableError: when the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        kinds = {"cluster": str}
        table = pd.read_csv(io.StringIO(text), index_col=0, dtype=kinds, **EXACT_FLOATS)
        table.index = table.index.astype(str).map(_item)
    except (ValueError, IndexError) as error:
        raise TableError(f"{path} is no table of test items: {error}; fetch again") from error
    if not text.endswith("\n") or table.index.duplicated().any():
        raise TableError(f"{path} is cut off or names an item twice; fetch the study again")
    about = set(ABOUT.values())
    if bad := [c for c in table if c not in about and c.split(".")[0] not in KINDS]:
        raise TableError(
            f"{path} has a column {bad[0]!r}, expected {', '.join(sorted(about))} or "
            f"{', '.join(f'{kind}.<run id>' for kind in KINDS)}; fetch the study again"
        )
    return table


def _item(text: str) -> str:
    """Return an item's name: text that was quoted, so that no spreadsheet takes it for more."""
    value = decode(text)
    return value if isinstance(value, str) else text


def _cell(name: str) -> str:
    return encode(name) if name[:1] in FORMULA else name


def write(folder: Path, run_ids: list[str]) -> list[str]:
    """Write the table from the files of ``run_ids`` and an earlier table.

    Returns the runs that have neither a file nor a column in the earlier table.

    Raises:
        TableError: when a file is damaged or two runs disagree on an item's class, width, ...
    """
    earlier = read(folder)
    columns, lacking = {}, []
    about: dict[str, list[pd.Series]] = {name: [] for name in ABOUT.values()}
    for run_id in sorted(run_ids):  # not in the order in which they were read
        path = folder / FILES / run_id / SCORES
        known = [] if earlier is None else [f"{k}.{run_id}" for k in KINDS]
        known = [column for column in known if column in earlier]
        if path.exists():
            kind, values, more = outputs(path)
            columns[f"{kind}.{run_id}"] = values
            for name, series in more.items():
                about[name].append(series)
        elif known:
            columns[known[0]] = earlier[known[0]].dropna()
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
    whole = [n for n in table if n != "cluster" and (table[n].dropna() % 1 == 0).all()]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    table.index = table.index.map(_cell)
    write_atomically(folder / NAME, table.to_csv(index_label="item").encode())
    return lacking


def outputs(path: Path) -> tuple[str, pd.Series, dict[str, pd.Series]]:
    """Return kind, values by item, and what is known of the items from a run's .npz file.

    Raises:
        TableError: when the file is damaged or its arrays are of another kind.
    """
    arrays = load(path)
    names = arrays.get("names", arrays.get("items"))
    kind = next((kind for kind in KINDS if kind in arrays), None)
    if names is None or kind is None or (kind == "predicted" and "labels" not in arrays):
        raise TableError(
            f"{path} holds the arrays {', '.join(sorted(arrays)) or 'none'}; expected `items` (or "
            "`names`) and one of `score`, `jaccard`, or `predicted` with `labels`"
        )
    try:
        index = [str(name) for name in names]
        if len(set(index)) < len(index):
            twice = next(name for name in index if index.count(name) > 1)
            raise TableError(f"{path} names the item {twice!r} more than once; names must differ")
        values = pd.Series(np.asarray(arrays[kind]).astype(float), index)
        more = {
            column: pd.Series(arrays[array].astype(str if column == "cluster" else int), index)
            for array, column in ABOUT.items()
            if array in arrays
        }
    except DAMAGE as error:
        raise TableError(f"{path}: its arrays do not fit together: {error}") from error
    return kind, values, more


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a run's .npz file.

    Raises:
        TableError: when it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"it holds {size:,} bytes unpacked, allowed are {MOST_BYTES:,}")
        with np.load(path) as file:
            return dict(file)
    except DAMAGE as error:
        raise TableError(
            f"{path} is damaged: {error}. Fetch the study again: it is then read again where its "
            "run still is; else delete its folder"
        ) from error


def to_fetch_again(files: Path) -> set[str]:
    """Return the runs below ``files`` whose outputs are gone or damaged, to be read again."""
    found = set()
    for folder in files.iterdir() if files.is_dir() else []:
        path = folder / SCORES
        if folder.is_dir() and not path.exists():
            found.add(folder.name)
        elif path.exists():
            try:
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip():
                        found.add(folder.name)
            except DAMAGE:
                found.add(folder.name)
    return found


def of_runs(table: pd.DataFrame | None, kind: str, run_ids: list[str]) -> pd.DataFrame | None:
    """Return one kind of outputs (items, runs) with run ids as columns; None if a run lacks it."""
    if table is None or not all(f"{kind}.{run}" in table for run in run_ids):
        return None
    return table[[f"{kind}.{run}" for run in run_ids]].set_axis(run_ids, axis=1)


def scores(table: pd.DataFrame | None, metric: Metric, run_ids: list[str]) -> pd.DataFrame | None:
    """Return each item's score in the metric's unit (items, runs), at the last epoch.

    None where the runs did not test the same items, some run saved nothing, or the metric is not
    one of the test items.
    """
    if metric.part not in ("test", "evaluation", ""):
        return None
    found = None
    if metric.item_score in ("wrong", "right"):
        predicted = of_runs(table, "predicted", run_ids)
        if predicted is not None:
            wrong = predicted.ne(table["label"], axis=0).astype(float).where(predicted.notna())
            found = wrong if metric.item_score == "wrong" else 1 - wrong
    elif metric.item_score in ("jaccard", "dice"):
        jaccard = of_runs(table, "jaccard", run_ids)
        if jaccard is not None:
            found = jaccard if metric.item_score == "jaccard" else dice(jaccard)
    if found is None:
        found = of_runs(table, "score", run_ids)
    return None if found is None or found.isna().any(axis=None) else found


def collapsed(table: pd.DataFrame | None, run_id: str) -> bool:
    """Say whether a run predicts one class for test items of several, as far as is known."""
    column = f"predicted.{run_id}"
    if table is None or column not in table:
        return False
    return bool(table[column].nunique() == 1 and table["label"].nunique() > 1)


def clusters(table: pd.DataFrame | None) -> np.ndarray | None:
    """Return the cluster of each item (items,), such as a patient, or None where none is named."""
    return None if table is None or "cluster" not in table else table["cluster"].to_numpy(dtype=str)


def dice(jaccard: pd.DataFrame) -> pd.DataFrame:
    """Turn Jaccard into Dice: D = 2 J / (1 + J)."""
    return 2 * jaccard / (1 + jaccard)
