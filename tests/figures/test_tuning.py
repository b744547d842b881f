"""The figure of the learning rates: chosen on validation, one dot a run, or a clear refusal."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import tuning
from analysis.grid import GridError, Study, load_sweep
from analysis.runs.tables import write_tables

STUDY_SWEEP = (
    "method: grid\nparameters:\n  batch_norm: {{values: [false, true]}}\n"
    "  adam_lr: {{value: {rate}}}\n  seed: {{values: [{seed}, 1]}}\n"
)
STUDY = Study(metric="test/error", direction="lower", tuning=["tune"])


def write(folder: Path, best: float, parameter: str = "adam_lr") -> Path:
    """Write a tuning sweep and its tables, with the least validation error at ``best``."""
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "study.yaml").write_text(STUDY_SWEEP.format(rate=best, seed=0))
    (folder / "sweeps" / "tune.yaml").write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n"
        f"  {parameter}: {{values: [0.001, 0.01, 0.1]}}\n"
        "  batch_norm: {values: [false, true]}\n  optimizer: {value: adam}\n  seed: {value: 100}\n"
    )
    sweep = load_sweep(folder / "sweeps" / "tune.yaml")
    rows = []
    for i, (rate, norm) in enumerate(sweep.cells):
        error = 0.1 + 0.1 * abs(np.log10(rate / best)) + 0.01 * norm
        run = {"run_id": f"r{i}", parameter: rate, "batch_norm": norm, "seed": 100}
        rows.append(run | {"optimizer": "adam", "val/error": error, "test/error": 1 - error})
    runs = pd.DataFrame(rows).assign(state="finished", exit_code=0, source="s", diverged=False)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "val/error": runs["val/error"]})
    write_tables(folder / "results" / "tune", runs, history, list(sweep.factors))
    return folder / "sweeps" / "study.yaml"


@pytest.mark.parametrize("best", [0.001, 0.01])
def test_the_rate_is_the_one_best_on_validation(tmp_path: Path, best: float) -> None:
    path = write(tmp_path, best)
    figure, caption, runs = tuning.draw(STUDY, tmp_path / "results" / "study", path)
    assert f"optimizer = adam {best:g}" in caption
    assert "Chosen on validation" in caption
    assert len(runs) == 6
    dots = [line for line in figure.axes[0].lines if line.get_marker() in "os"]
    assert [len(line.get_xdata()) for line in dots] == [3, 3]


def test_without_tuning_there_is_no_figure(tmp_path: Path) -> None:
    study = STUDY.model_copy(update={"tuning": []})
    assert tuning.draw(study, tmp_path / "results" / "study", tmp_path / "s.yaml") is None


def test_without_its_tables_there_is_none_either(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tuning.draw(STUDY, tmp_path / "elsewhere" / "study", write(tmp_path, 0.01)) is None
    assert f"left out: no tables in {tmp_path / 'elsewhere' / 'tune'}" in capsys.readouterr().out


def test_what_tunes_no_rate_or_is_incomplete_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 0.01, "width")
    with pytest.raises(GridError, match="tunes no rate: it varies width, batch_norm"):
        tuning.draw(STUDY, tmp_path / "results" / "study", path)
    runs = tmp_path / "results" / "tune" / "runs.csv"
    runs.write_text(runs.read_text().replace(",finished,", ",crashed,", 1))
    with pytest.raises(GridError, match=r"is incomplete .*: .* is crashed"):
        tuning.draw(STUDY, tmp_path / "results" / "study", path)


def test_a_study_that_takes_another_rate_or_a_tuning_seed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 0.01)
    path.write_text(STUDY_SWEEP.format(rate=0.1, seed=0))
    with pytest.raises(GridError, match=r"best mean at adam_lr = 0.01, but study takes 0.1"):
        tuning.draw(STUDY, tmp_path / "results" / "study", path)
    path.write_text(STUDY_SWEEP.format(rate=0.01, seed=100))
    with pytest.raises(GridError, match="was tuned on seeds that study tests"):
        tuning.draw(STUDY, tmp_path / "results" / "study", path)
