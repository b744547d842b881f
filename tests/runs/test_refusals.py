"""What the report refuses: incomplete studies and damaged tables; the earlier report stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import factories
from tests.factories import change, refusal


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def drop(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return runs[runs["run_id"] != "bnsgd03"], history[history["run_id"] != "bnsgd03"]


def repeat(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    twin = runs[runs["run_id"] == "bnsgd03"].assign(run_id="twin")
    rows = history[history["run_id"] == "bnsgd03"].assign(run_id="twin")
    return pd.concat([runs, twin]), pd.concat([history, rows])


def cut(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return runs, history[(history["run_id"] != "bnsgd03") | (history["epoch"] < 3)]


def gap(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return runs, history[(history["run_id"] != "bnsgd03") | (history["epoch"] != 2)]


def without_a_cell(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    gone = runs["run_id"].str.startswith("bnsgd")
    return runs[~gone], history[~history["run_id"].str.startswith("bnsgd")]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, "batch_norm=True, optimizer=sgd, seed=3: missing"),
        (repeat, "seed=3: 2 runs: bnsgd03 (finished), twin (finished)"),
        (cut, "seed=3: run bnsgd03 has 2 of 3 epochs"),
        (gap, "seed=3: run bnsgd03 has missing epochs: 2 rows, but last epoch 3"),
        (change("state", "crashed"), "run bnsgd03 is crashed after epoch 3 of 3"),
        (change("exit_code", 1), "run bnsgd03 is failed"),
        (change("summary.test/error", np.nan), "run bnsgd03 has no test/error in its summary"),
        (
            change("summary.test/error", "4.8 %"),
            "test/error in the summary must be a finite number, got '4.8 %'",
        ),
        (change("summary.data_sha256", "e" * 64), "27 with dddddddd…, 1 with eeeeeeee…"),
        (change("summary.git_commit", "e" * 40), "27 with cccccccc…, 1 with eeeeeeee…"),
        (change("summary.test/error", "low"), "must be a finite number, got 'low'"),
        (
            change("config.epochs", 4),
            "run bnsgd03 matches no variant of the study: epochs = 4, expected 3",
        ),
        (change("config.optimizer", "adamw"), "optimizer = adamw, expected adam or sgd"),
        (without_a_cell, "batch_norm=True, optimizer=sgd, seed=6: missing"),
    ],
)
def test_an_incomplete_study_stops_and_leaves_the_earlier_report(
    sweep_path: Path, tmp_path: Path, damage: Callable, words: str
) -> None:
    folder = tmp_path / "made_up"
    factories.write_study(folder, *damage(*factories.tables(sweep_path)))
    (folder / "results.json").write_text("earlier")
    assert words in refusal(folder, sweep_path)
    assert (folder / "results.json").read_text() == "earlier"
    left = {p.name for p in folder.iterdir()} - {"fill_in_made_up.yaml", "incomplete"}
    assert left == {"history.csv", "results.json", "runs.csv"}


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        ("runs.csv", lambda t: t.replace("state", "status", 1), "has no column state"),
        (
            "runs.csv",
            lambda t: t.replace("summary.test/error", "summary.error"),
            "no run has the metric test/error. Did you mean error? Set",
        ),
        ("runs.csv", lambda t: t[: len(t) // 2], "is truncated: its last line is incomplete"),
        ("runs.csv", lambda t: t + t.splitlines()[-1] + "\n", "duplicate run "),
        ("runs.csv", lambda t: "", "is truncated: its last line is incomplete"),
        ("history.csv", lambda t: t.replace(",1.5,", ",soon,", 1), "'soon' for run"),
        ("history.csv", lambda t: t + t.splitlines()[-1] + "\n", "duplicate epoch "),
        ("history.csv", lambda t: t + "ghost,1,1.5,0.2\n", "runs that are not in runs.csv: ghost"),
        ("history.csv", None, "not found; create it with `python -m analysis.fetch`"),
        ("runs.csv", lambda t: t.replace(",finished,", ",,", 1), "line 2: state is empty"),
        ("runs.csv", lambda t: t.replace("config.", ""), "has no columns `config.…`"),
        ("test_images.csv", b"item,bnsgd03\na,1\n", "<run id>, got 'bnsgd03'"),
        ("history.csv", lambda t: t + ",1,1.5,0.2\n", "run_id is empty"),
        (
            "history.csv",
            lambda t: t.replace(",3,", ",inf,", 1),
            "epochs must be finite numbers, got inf",
        ),
        (
            "history.csv",
            lambda t: t.replace(",3,", ",4,", 1),
            "has missing epochs: 3 rows, but last",
        ),
        (
            "history.csv",
            lambda t: t.replace(",3,", ",0,", 1),
            "has 2 of 3 epochs",
        ),
        ("history.csv", b"\xff\xfe", "is damaged: 'utf-8' codec"),
        ("test_images.csv", b"\xff\xfe", "test_images.csv: 'utf-8' codec"),
    ],
)
def test_damaged_tables_are_reported(
    sweep_path: Path, tmp_path: Path, file: str, edit: Callable | bytes | None, words: str
) -> None:
    folder = tmp_path / "made_up"
    factories.write_study(folder, *factories.tables(sweep_path))
    if edit is None:
        (folder / file).unlink()
    elif isinstance(edit, bytes):
        (folder / file).write_bytes(edit)
    else:
        (folder / file).write_text(edit((folder / file).read_text()))
    assert words in refusal(folder, sweep_path)
