"""The two tables of a study: runs.csv, one row per run, and history.csv, one row per epoch.

A run's configuration and summary have separate namespaces: columns ``config.<key>`` and
``summary.<key>``. A cell contains JSON if plain text would be ambiguous, so that the type of every
value is preserved: true is not "true", and "007" is not 7.
"""

import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.spec.errors import UserError
from lib.spec.files import write_atomically

# Since 3.1, pandas reads floats exactly by default and warns if `float_precision` is set.
PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT_FLOATS = {} if PANDAS >= (3, 1) else {"float_precision": "round_trip"}

# Columns about a run, not set by scripts. ``created``: time as text, in sortable order.
META = ["run_id", "state", "exit_code", "source", "url", "created"]
CONFIG, SUMMARY = "config.", "summary."
# What a run has in W&B beside its configuration, named like the columns of the app's table.
WANDB, GROUP, JOB_TYPE = "wandb.", "Group", "Job Type"
FORMULA = "=+-@"  # spreadsheets interpret cells that begin with one of these as formulas
NAN = "NaN"  # text for a summary value that is NaN; an empty cell is a missing value
NETWORK = ("network.json", "network.npz")  # next to the tables: what lib.fields wrote
AGAIN = "fetch the study again"


class TableError(UserError):
    """A table cannot be used; the message says which file and column, the value, and what to do."""


def encode(value: Any) -> str:
    """Return a cell's text; ``decode`` returns an equal value of the same type."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    plain = value.strip() == value != "" and decode(value) is value and value[0] not in FORMULA
    plain = plain and value.isprintable()
    return value if plain else json.dumps(value, ensure_ascii=False)


def decode(text: str) -> Any:
    """Return a cell's value: parsed as JSON if possible, else the text itself, as for NaN."""
    if text == NAN:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty (NaN); None is a value, JSON's null."""
    return isinstance(value, float) and math.isnan(value)


def numbers(runs: pd.DataFrame, key: str) -> pd.Series:
    """Return the summary ``key`` of each run as float; NaN if it is missing or not a number."""
    column = SUMMARY + key
    if column not in runs:
        return pd.Series(np.nan, index=runs.index)
    values = [
        float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan
        for v in runs[column]
    ]
    return pd.Series(values, index=runs.index)


def keys(runs: pd.DataFrame, namespace: str) -> list[str]:
    """Return the keys of a namespace, ``CONFIG`` or ``SUMMARY``, in the table's order."""
    return [c.removeprefix(namespace) for c in runs if c.startswith(namespace)]


def with_settings(runs: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return ``runs`` with those of ``names`` as config keys that only W&B itself has (``WANDB``).

    So a run's group can be a factor; a config key of the same name comes first.
    """
    missing = [n for n in names if CONFIG + n not in runs and WANDB + n in runs]
    return runs.assign(**{CONFIG + name: runs[WANDB + name] for name in missing})


def runs_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of runs as a table that preserves the types of values; a missing key is NaN.

    With dtype object, because pandas otherwise converts a column of 0 and None to floats.
    """
    return pd.DataFrame(rows, dtype=object)


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs (one row per run) and history (one row per epoch or step) of a study's folder.

    The axis, the second column of history.csv, is renamed to ``epoch``; ``history.attrs["axis"]``
    is its original name.

    Raises:
        TableError: on a missing or damaged file, column or value.
    """
    runs = _read(folder / "runs.csv", META[:4])
    if not any(column.startswith(CONFIG) for column in runs):
        raise TableError(
            f"{folder}/runs.csv has no columns `config.…`; it was written by another version or "
            f"program; {AGAIN}"
        )
    runs = _decoded(folder, runs)
    history = _read(folder / "history.csv", ["run_id"])
    axis = history.columns[1] if len(history.columns) > 1 else "epoch"
    if axis != "epoch":
        history = history.rename(columns={"epoch": "epoch (logged)"}).rename(
            columns={axis: "epoch"}
        )
    if "epoch" not in history:
        history["epoch"] = pd.Series(dtype=str)
    for column in history.columns.drop("run_id"):
        text = history[column]
        values = pd.to_numeric(text.where(text != ""), errors="coerce")
        if (bad := values.isna() & (text != "") & (text != "NaN")).any():
            raise TableError(
                f"{folder}/history.csv: {column} must be a number, got {text[bad].iloc[0]!r} for "
                f"run {history['run_id'][bad].iloc[0]}; {AGAIN}"
            )
        # Before 3.1, pandas' own numbers may differ in the last digit.
        history[column] = [float(cell) if cell else math.nan for cell in text]
    _check_history(folder, runs, history)
    history.attrs["axis"] = axis
    return runs, history


def _decoded(folder: Path, runs: pd.DataFrame) -> pd.DataFrame:
    for column in META:
        if column not in runs:  # tables of older versions
            runs[column] = ""
    if (duplicated := runs["run_id"].duplicated()).any():
        run = runs["run_id"][duplicated].iloc[0]
        raise TableError(f"{folder}/runs.csv: duplicate run {run}; {AGAIN}")
    codes = pd.to_numeric(runs["exit_code"].where(runs["exit_code"] != ""), errors="coerce")
    columns = {"exit_code": codes}
    for column in runs:
        if column.startswith((CONFIG, SUMMARY, WANDB)):
            values = [math.nan if text == "" else decode(text) for text in runs[column]]
            columns[column] = pd.Series(values, index=runs.index, dtype=object)
    return runs.assign(**columns)


def _check_history(folder: Path, runs: pd.DataFrame, history: pd.DataFrame) -> None:
    epochs = history["epoch"]
    if (bad := ~np.isfinite(epochs)).any():
        raise TableError(
            f"{folder}/history.csv: epochs must be finite numbers, got {epochs[bad].iloc[0]} for "
            f"run {history['run_id'][bad].iloc[0]}; {AGAIN}"
        )
    if (duplicated := history.duplicated(["run_id", "epoch"])).any():
        row = history[duplicated].iloc[0]
        raise TableError(
            f"{folder}/history.csv: duplicate epoch {row['epoch']:g} of run {row['run_id']}; "
            f"{AGAIN}"
        )
    if unknown := set(history["run_id"]) - set(runs["run_id"]):
        raise TableError(
            f"{folder}/history.csv contains runs that are not in runs.csv: "
            f"{', '.join(sorted(unknown)[:5])}; {AGAIN}"
        )


def write_tables(
    folder: Path,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    config_first: Iterable[str] = (),
    axis: str = "epoch",
) -> None:
    """Write both tables, sorted and with full float precision; each file atomically.

    ``config_first``: config keys whose columns come first, such as the factors. ``axis``: the
    history's column of epochs or steps, which comes second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = [c for c in [*META, *(CONFIG + k for k in config_first)] if c in runs]
    rest = sorted(set(runs.columns) - set(first))
    runs = runs[[*first, *rest]].sort_values("run_id")
    text = runs.copy()
    for column in META[1:]:
        if column in text and column != "exit_code":
            text[column] = text[column].map(lambda value: " ".join(str(value).splitlines()))
    text["exit_code"] = pd.to_numeric(text["exit_code"]).astype("Int64")
    for column in runs:
        if column.startswith((CONFIG, SUMMARY, WANDB)):
            cells = ["" if is_missing(v) else encode(v) for v in runs[column]]
            text[column] = pd.Series(cells, index=runs.index, dtype=object)
    if len(history):
        metrics = sorted(set(history.columns) - {"run_id", axis})
        history = history[["run_id", axis, *metrics]].sort_values(["run_id", axis])
    else:
        history = pd.DataFrame(columns=["run_id", axis])
    # History first: fetch treats the finished runs in runs.csv as completely read.
    for name, table in (("history.csv", history), ("runs.csv", text)):
        write_atomically(folder / name, _whole_numbers(table).to_csv(index=False).encode())


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Convert float columns of whole numbers to Int64, the integer type with missing values."""
    columns = {}
    for name in table.select_dtypes("float"):
        values = table[name].dropna()
        if len(values) and (values % 1 == 0).all() and (values.abs() < 2**53).all():
            columns[name] = table[name].astype("Int64")
    return table.assign(**columns)


def _read(path: Path, required: list[str]) -> pd.DataFrame:
    """Return a CSV file's cells as text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is damaged: {error}; {AGAIN}") from error
    except FileNotFoundError:
        raise TableError(f"{path} not found; create it with `python -m analysis.fetch`") from None
    if not text.endswith("\n"):
        raise TableError(f"{path} is truncated: its last line is incomplete; {AGAIN}")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_filter=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TableError(f"{path} is not a CSV table: {error}; {AGAIN}") from error
    if missing := [column for column in required if column not in table]:
        raise TableError(f"{path} has no column {', '.join(missing)}; {AGAIN}")
    for column in [c for c in required if c in ("run_id", "state", "epoch")]:
        if (empty := table[column] == "").any():
            row = int(empty.to_numpy().argmax()) + 2
            raise TableError(f"{path}, line {row}: {column} is empty; {AGAIN}")
    return table
