"""The figure of tuned settings: chosen on validation, one dot per run, or a clear refusal."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from analysis.figures import catalogue, tuning
from analysis.runs.data import StudyData
from analysis.runs.tables import read_tables
from lib.spec.declaration import StudyError
from tests import factories


def write(
    folder: Path,
    best: float,
    parameter: str = "adam_lr",
    used: float | None = None,
    seed: int = 0,
    by_default: bool = False,
) -> StudyData:
    """Write a study and its tuning sweep, with the least validation error at ``best``.

    ``used``: the value that the study uses; ``by_default``: its sweep does not name it.
    """
    used = best if used is None else used
    levels = {"adam_lr": [0.001, 0.01, 0.1], "batch_norm": [False, True]}
    levels = {parameter if name == "adam_lr" else name: v for name, v in levels.items()}
    path = factories.grid(folder / "tune.yaml", levels, 1, optimizer="adam")
    path.write_text(path.read_text().replace("- 0\n", "- 100\n"))
    plan = factories.study(path)
    rows = []
    for rate, norm in plan.variants:
        error = 0.1 + 0.1 * abs(np.log10(rate / best)) + 0.01 * norm
        config = {parameter: rate, "batch_norm": norm, "seed": 100, "optimizer": "adam"}
        summary = {"val/error": error, "test/error": 0.5, "diverged": False}
        rows.append(factories.run_row(f"r{rate}{norm}".replace(".", ""), config, summary))
    runs = factories.runs_table(rows)
    history = runs[["run_id"]].assign(epoch=1)
    factories.write_study(folder / "tune", runs, history)
    fixed = {} if by_default else {"adam_lr": used}
    path = factories.grid(folder / "study.yaml", {"batch_norm": [False, True]}, 2, **fixed)
    path.write_text(path.read_text().replace("- 0\n", f"- {seed}\n"))
    found = factories.study(path, tuning=["tune"], labels={"batch_norm": "BN"})
    rows = [
        factories.run_row(
            f"{norm}-{s}",
            {"batch_norm": norm, "seed": s, "adam_lr": used, "optimizer": "adam"},
            {"test/error": 0.1 + s / 1000, "diverged": False},
        )
        for norm in (False, True)
        for s in found.seeds
    ]
    runs = factories.runs_table(rows)
    return factories.data(found, runs, runs[["run_id"]].assign(epoch=1), folder=folder / "study")


@pytest.mark.parametrize("best", [0.001, 0.01])
@pytest.mark.parametrize("by_default", [False, True])
def test_the_value_is_the_one_best_on_validation(
    tmp_path: Path, best: float, by_default: bool
) -> None:
    data = write(tmp_path, best, by_default=by_default)
    (one,) = tunings = tuning.load(data)
    assert (one.key, one.best, len(one.data.run_ids)) == ("adam_lr", best, 6)
    caption = tuning.caption(data.study, tunings)
    assert f"which the study uses (tune {best:g})" in caption
    assert "Chosen on validation" in caption
    figure = tuning.draw(data.study, tunings)
    dots = [line for line in figure.axes[0].lines if line.get_marker() in "os"]
    assert [len(line.get_xdata()) for line in dots] == [3, 3]


def test_without_its_tables_there_is_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write(tmp_path, 0.01)
    assert [picture.name for picture in catalogue._of_tuning(data)] == ["fig13_tuning"]
    places = dataclasses.replace(data.study.places, results=tmp_path / "elsewhere")
    data = dataclasses.replace(data, study=dataclasses.replace(data.study, places=places))
    assert catalogue._of_tuning(data) == []
    assert f"skipped: no tables in {tmp_path / 'elsewhere' / 'tune'}" in capsys.readouterr().out


def test_what_tunes_nothing_or_is_incomplete_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path, 0.01, used=0.02)
    with pytest.raises(StudyError, match=r"best mean at adam_lr = 0.01, but study uses 0.02"):
        tuning.load(data)
    runs = tmp_path / "tune" / "runs.csv"
    runs.write_text(runs.read_text().replace(",finished,", ",crashed,", 1))
    with pytest.raises(StudyError, match=r"is incomplete .*: .* is crashed"):
        tuning.load(data)


def test_a_study_that_repeats_a_tuning_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="tune and study must not share seeds"):
        tuning.load(write(tmp_path, 0.01, seed=100))


def test_unlike_budgets_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, 0.01)
    (tmp_path / "more.yaml").write_text((tmp_path / "tune.yaml").read_text().replace("100", "200"))
    runs, history = read_tables(tmp_path / "tune")
    runs["config.seed"] = 200
    factories.write_study(tmp_path / "more", runs, history)
    declaration = data.study.declaration.model_copy(update={"tuning": ["tune", "more"]})
    study = dataclasses.replace(data.study, declaration=declaration)
    with pytest.raises(StudyError, match="must have equal budgets"):
        tuning.load(dataclasses.replace(data, study=study))
