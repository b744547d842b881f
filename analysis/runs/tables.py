"""Read, check and write the two tables of a study: runs.csv and history.csv."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd

# pandas reads floats exactly by default since 3.1, and warns when asked to; before, one must ask.
PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT_FLOATS = {} if PANDAS >= (3, 1) else {"float_precision": "round_trip"}

RUN_COLUMNS = ["run_id", "state", "exit_code", "source"]


class TableError(ValueError):
    """A table that cannot be used; says which file and column, what was found, what to do."""


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs (a row a run) and history (a row an epoch) of a study's folder.

    Raises:
        TableError: on a missing or damaged file, column or value.
    """
    runs = _read(folder / "runs.csv", RUN_COLUMNS)
    history = _read(folder / "history.csv", ["run_id", "epoch"])
    if (twice := runs["run_id"].duplicated()).any():
        raise TableError(f"{folder}/runs.csv: run {runs['run_id'][twice].iloc[0]} stands twice")
    for column in history.columns.drop("run_id"):
        numbers = pd.to_numeric(history[column], errors="coerce")
        if (bad := numbers.isna() & history[column].notna()).any():
            raise TableError(
                f"{folder}/history.csv: {column} holds {history[column][bad].iloc[0]!r} for run "
                f"{history['run_id'][bad].iloc[0]}, expected a number"
            )
        history[column] = numbers
    epochs = history["epoch"]
    if (bad := ~(np.isfinite(epochs) & (epochs >= 1) & (epochs % 1 == 0))).any():
        raise TableError(
            f"{folder}/history.csv: run {history['run_id'][bad].iloc[0]} has epoch "
            f"{epochs[bad].iloc[0]}, expected whole numbers from 1"
        )
    if (twice := history.duplicated(["run_id", "epoch"])).any():
        row = history[twice].iloc[0]
        raise TableError(
            f"{folder}/history.csv: run {row['run_id']} has epoch {row['epoch']} more than once"
        )
    if unknown := set(history["run_id"]) - set(runs["run_id"]):
        raise TableError(
            f"{folder}/history.csv has runs that runs.csv lacks: {', '.join(sorted(unknown)[:5])}"
        )
    return runs, history


def write_tables(
    folder: Path, runs: pd.DataFrame, history: pd.DataFrame, config_first: list[str]
) -> None:
    """Write both tables, sorted, floats with all their digits; each file appears whole or not."""
    folder.mkdir(parents=True, exist_ok=True)
    first = [*RUN_COLUMNS, *(name for name in config_first if name in runs)]
    rest = sorted(set(runs.columns) - set(first))
    runs = runs[[*first, *rest]].sort_values("run_id")
    if len(history):
        metrics = sorted(set(history.columns) - {"run_id", "epoch"})
        history = history[["run_id", "epoch", *metrics]].sort_values(["run_id", "epoch"])
    else:
        history = pd.DataFrame(columns=["run_id", "epoch"])
    # History first: a run counts as read once runs.csv has it.
    for name, table in (("history.csv", history), ("runs.csv", runs)):
        replace_file(folder / name, _whole_numbers(table).to_csv(index=False).encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and move it into place.

    Raises:
        OSError: when the folder cannot be written or the disk is full; ``path`` is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Turn float columns of whole numbers back into integers: pandas has no gap in an integer."""
    columns = {}
    for name in table.select_dtypes("float"):
        values = table[name].dropna()
        if len(values) and (values % 1 == 0).all():
            columns[name] = table[name].astype("Int64")
    return table.assign(**columns)


def _read(path: Path, required: list[str]) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is damaged: {error}; fetch the study again") from error
    except FileNotFoundError:
        raise TableError(f"{path} not found; make it with `python -m analysis.fetch`") from None
    if not text.endswith("\n"):
        raise TableError(f"{path} ends in the middle of a line; fetch the study again")
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype={"run_id": str},
            keep_default_na=False,
            na_values=["", "nan", "NaN"],
            **EXACT_FLOATS,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TableError(f"{path} is no CSV table: {error}") from error
    if missing := [column for column in required if column not in table]:
        raise TableError(f"{path} lacks the column(s) {', '.join(missing)}; fetch the study again")
    for column in [c for c in required if c in ("run_id", "state", "epoch")]:
        if table[column].isna().any():
            row = int(table[column].isna().to_numpy().argmax()) + 2
            raise TableError(f"{path}, line {row}: {column} is empty; fetch the study again")
    return table
