"""Per-item test outputs of a study's runs: test_images.csv, one row per item, columns per run.

A run saves test_scores.npz with the item names as ``names`` or ``items``, and one of

- ``predicted`` and ``labels``: classes, for error and accuracy;
- ``jaccard``: Jaccard indices, for Jaccard and Dice;
- ``score``: one score per item, in the unit of the study's metric.

The table begins with columns about the items: ``label``, ``width`` (of the original image, in
pixels), ``in_training`` (1 if a training image has the same pixels) and ``cluster`` (a group of
items, such as a patient). One column <kind>.<run id> per run follows, empty for items that the run
did not test.
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
MOST_BYTES = 2**30  # of a run's outputs, uncompressed: guards against decompression bombs
# What numpy raises for files that are truncated, corrupt, or in another format.
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, MemoryError)
DAMAGE += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def read(folder: Path) -> pd.DataFrame | None:
    """Return the table, indexed by item, or None if no run saved its outputs.

    Raises:
        TableError: when the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        dtypes = {"cluster": str}
        table = pd.read_csv(io.StringIO(text), index_col=0, dtype=dtypes, **EXACT_FLOATS)
        table.index = table.index.astype(str).map(_item)
    except (ValueError, IndexError) as error:
        raise TableError(f"cannot read {path}: {error}; fetch the study again") from error
    if not text.endswith("\n"):
        raise TableError(f"{path} is truncated: its last line is incomplete; fetch the study again")
    if (duplicated := table.index.duplicated()).any():
        item = table.index[duplicated][0]
        raise TableError(f"{path}: duplicate item {item!r}; fetch the study again")
    about = set(ABOUT.values())
    if bad := [c for c in table if c not in about and c.split(".")[0] not in KINDS]:
        raise TableError(
            f"{path}: columns must be {', '.join(sorted(about))} or "
            f"{', '.join(f'{kind}.<run id>' for kind in KINDS)}, got {bad[0]!r}; fetch the study "
            "again"
        )
    return table


def _item(text: str) -> str:
    """Return an item's name without the quotes that protect it in spreadsheets."""
    value = decode(text)
    return value if isinstance(value, str) else text


def _cell(name: str) -> str:
    return encode(name) if name[:1] in FORMULA else name


def write(folder: Path, run_ids: list[str]) -> list[str]:
    """Write the table from the files of ``run_ids`` and the existing table.

    Returns the runs that have neither a file nor a column in the existing table.

    Raises:
        TableError: when a file is damaged, or when runs disagree on an item's label, width, ...
    """
    earlier = read(folder)
    columns, missing = {}, []
    about: dict[str, list[pd.Series]] = {name: [] for name in ABOUT.values()}
    for run_id in sorted(run_ids):  # so that the table does not depend on the order of fetching
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
            missing.append(run_id)
    for name in set(ABOUT.values()) & set([] if earlier is None else earlier):
        about[name].append(earlier[name].dropna())
    if not columns:
        return missing
    table = pd.DataFrame(columns).sort_index()
    for place, (name, series) in enumerate((n, s) for n, s in about.items() if s):
        limits = pd.concat(series).groupby(level=0).agg(["min", "max"])
        if (differ := limits["min"] != limits["max"]).any():
            item = limits.index[differ][0]
            low, high = limits.loc[item]
            raise TableError(
                f"item {item!r}: runs have different values of {name}, {low} and {high}"
            )
        table.insert(place, name, limits["min"].reindex(table.index))
    whole = [n for n in table if n != "cluster" and (table[n].dropna() % 1 == 0).all()]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    table.index = table.index.map(_cell)
    write_atomically(folder / NAME, table.to_csv(index_label="item").encode())
    return missing


def outputs(path: Path) -> tuple[str, pd.Series, dict[str, pd.Series]]:
    """Return kind, values by item, and columns about the items from a run's .npz file.

    Raises:
        TableError: when the file is damaged or does not have the expected arrays.
    """
    arrays = load(path)
    names = arrays.get("names", arrays.get("items"))
    kind = next((kind for kind in KINDS if kind in arrays), None)
    if names is None or kind is None or (kind == "predicted" and "labels" not in arrays):
        raise TableError(
            f"{path} must contain `items` (or `names`) and one of `score`, `jaccard`, or "
            f"`predicted` with `labels`; got {', '.join(sorted(arrays)) or 'no arrays'}"
        )
    try:
        index = [str(name) for name in names]
        if len(set(index)) < len(index):
            duplicate = next(name for name in index if index.count(name) > 1)
            raise TableError(f"{path}: duplicate item {duplicate!r}; item names must be unique")
        values = pd.Series(np.asarray(arrays[kind]).astype(float), index)
        more = {
            column: pd.Series(arrays[array].astype(str if column == "cluster" else int), index)
            for array, column in ABOUT.items()
            if array in arrays
        }
    except DAMAGE as error:
        raise TableError(
            f"{path}: invalid arrays: {error}; they must have one value per item"
        ) from error
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
            raise ValueError(f"{size:,} bytes uncompressed, but at most {MOST_BYTES:,} are allowed")
        with np.load(path) as file:
            return dict(file)
    except DAMAGE as error:
        raise TableError(
            f"{path} is damaged: {error}. Fetch the study again to restore the file; if its run no "
            "longer exists, delete the file's folder"
        ) from error


def to_fetch_again(files: Path) -> set[str]:
    """Return the ids of the runs below ``files`` whose outputs are missing or damaged."""
    run_ids = set()
    for folder in files.iterdir() if files.is_dir() else []:
        path = folder / SCORES
        if folder.is_dir() and not path.exists():
            run_ids.add(folder.name)
        elif path.exists():
            try:
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip():
                        run_ids.add(folder.name)
            except DAMAGE:
                run_ids.add(folder.name)
    return run_ids


def of_runs(table: pd.DataFrame | None, kind: str, run_ids: list[str]) -> pd.DataFrame | None:
    """Return one kind of outputs (items, runs) with run ids as columns; None if a run has none."""
    if table is None or not all(f"{kind}.{run}" in table for run in run_ids):
        return None
    return table[[f"{kind}.{run}" for run in run_ids]].set_axis(run_ids, axis=1)


def wrong(predicted: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """Return which predictions (items, runs) are wrong, 0 or 1; NaN where a run has none."""
    return predicted.ne(labels, axis=0).astype(float).where(predicted.notna())


def scores(table: pd.DataFrame | None, metric: Metric, run_ids: list[str]) -> pd.DataFrame | None:
    """Return each item's score in the metric's unit (items, runs), at the last epoch.

    None if the runs tested different items, if a run saved no outputs, or if the metric is not
    measured on test items.
    """
    if metric.part not in ("test", "evaluation", ""):
        return None
    result = None
    if metric.item_score in ("wrong", "right"):
        predicted = of_runs(table, "predicted", run_ids)
        if predicted is not None:
            errors = wrong(predicted, table["label"])
            result = errors if metric.item_score == "wrong" else 1 - errors
    elif metric.item_score in ("jaccard", "dice"):
        jaccard = of_runs(table, "jaccard", run_ids)
        if jaccard is not None:
            result = jaccard if metric.item_score == "jaccard" else dice(jaccard)
    if result is None:
        result = of_runs(table, "score", run_ids)
    if result is None or result.isna().any(axis=None):
        return None
    return result


def collapsed(table: pd.DataFrame | None, run_id: str) -> bool:
    """Return whether a run predicts a single class for all its test items; False if not known.

    False also if these have a single class.
    """
    column = f"predicted.{run_id}"
    if table is None or column not in table:
        return False
    tested = table[column].notna()
    return bool(table[column].nunique() == 1 and table["label"][tested].nunique() > 1)


def clusters(table: pd.DataFrame | None) -> np.ndarray | None:
    """Return the cluster of each item (items,), such as a patient, or None without clusters."""
    return None if table is None or "cluster" not in table else table["cluster"].to_numpy(dtype=str)


def dice(jaccard: pd.DataFrame) -> pd.DataFrame:
    """Convert Jaccard indices to Dice coefficients: D = 2 J / (1 + J)."""
    return 2 * jaccard / (1 + jaccard)
