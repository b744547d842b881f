"""From tables to report: completeness first, then contrasts, words, figures, files."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from analysis import grid
from analysis import report as report_module
from tests import factories
from tests.conftest import ROOT, call
from tests.factories import change, refusal

RESULT_KEYS = {"study", "metric", "score_rule", "n_seeds", "factors", "contrasts"}
FIGURES = ["fig1", "fig2", "fig3", "fig4", "fig5", "fig7", "fig8", "fig10"]
CONTRAST_KEYS = {
    "name",
    "n",
    "n_zero",
    "statistic",
    "p",
    "p_holm",
    "difference",
    "ci_low",
    "ci_high",
    "confidence",
    "rank_biserial",
    "positive",
    "negative",
    "state",
    "sentence",
    "runs",
}


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def report(folder: Path, sweep_path: Path) -> tuple[int, str, str]:
    """Run the command in a process of its own."""
    done = call("-m", "analysis.report", folder, "--sweep", sweep_path)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_report_of_a_complete_study(sweep_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made_up"
    factories.write_study(folder, sweep_path, *factories.tables(sweep_path))
    code, out, err = report(folder, sweep_path)
    assert code == 0, err
    assert str(folder / "report.html") in out
    results = json.loads((folder / "results.json").read_text())
    assert set(results) >= RESULT_KEYS
    names = [row["name"] for row in results["contrasts"]]
    assert names == ["batch_norm", "optimizer", "batch_norm × optimizer"]
    for row, effect in zip(results["contrasts"], (-0.02, -0.01, 0.0), strict=True):
        assert set(row) >= CONTRAST_KEYS
        assert row["ci_low"] <= effect <= row["ci_high"]
        assert len(row["runs"]) == 28
        assert row["sentence"] in (folder / "report.md").read_text()
    assert results["contrasts"][0]["p"] == 2 / 2**7
    assert results["contrasts"][0]["p_holm"] == pytest.approx(6 / 2**7)
    assert results["contrasts"][0]["negative"] == 7

    html = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#run-)", html), "the page must stand by itself"
    assert [name.split("_")[0] for name in results["captions"]] == FIGURES
    assert html.count("<figure>") == len(FIGURES)
    for name, caption in results["captions"].items():
        picture = Image.open(folder / "figures" / f"{name}.png")
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20, f"{name} is blank"
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "n = 7" in caption or name == "fig7_integrity"

    first = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert report(folder, sweep_path)[0] == 0
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first


def test_a_diverged_run_counts(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    mask = runs["run_id"] == "nosgd02"
    runs.loc[mask, ["test/error", "test/error_at_best_val", "diverged"]] = [1.0, 1.0, True]
    history = history[(history["run_id"] != "nosgd02") | (history["epoch"] == 1)]
    factories.write_study(tmp_path / "s", sweep_path, runs, history)
    code, _, err = report(tmp_path / "s", sweep_path)
    assert code == 0, err
    results = json.loads((tmp_path / "s" / "results.json").read_text())
    assert results["diverged"] == ["nosgd02"]
    assert results["variants"][1]["max"] == 1.0
    assert results["contrasts"][1]["positive"] == 1


def test_a_study_that_diverged_altogether(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs[["test/error", "test/error_at_best_val", "diverged"]] = [1.0, 1.0, True]
    factories.write_study(tmp_path / "s", sweep_path, runs, history[history["epoch"] == 1])
    code, out, err = report(tmp_path / "s", sweep_path)
    assert code == 0, err
    assert out.count("all 7 differences are zero") == 3


def test_undeclared_contrasts_are_exploratory_and_text_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "STUDIES", tmp_path / "studies")
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml")
    factories.write_study(tmp_path / "s", sweep_path, *factories.tables(sweep_path))
    report_module.main([str(tmp_path / "s"), "--sweep", str(sweep_path)])
    assert "Exploratory: no file" in (tmp_path / "s" / "report.md").read_text()
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "made_up.yaml").write_text(
        "question: is a <b> & c?\nmetric: test/error\ndirection: lower\n"
    )
    report_module.main([str(tmp_path / "s"), "--sweep", str(sweep_path)])
    html = (tmp_path / "s" / "report.html").read_text()
    assert "is a &lt;b&gt; &amp; c?" in html
    assert "Confirmatory: these 3 contrasts were declared" in html


def test_nothing_to_compare_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n"
        "  seed: {values: [0, 1]}\n  epochs: {value: 3}\n"
    )
    runs, history = factories.tables(factories.write_sweep(tmp_path / "two.yaml", seeds=2))
    keep = runs["run_id"].str.startswith("bnsgd")
    runs, history = runs[keep], history[history["run_id"].isin(runs[keep]["run_id"])]
    factories.write_study(tmp_path / "s", tmp_path / "s.yaml", runs, history)
    assert "nothing to compare" in refusal(tmp_path / "s", tmp_path / "s.yaml")


def test_many_levels_and_an_error_of_zero_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n"
        "  lr: {values: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n  seed: {values: [0, 1]}\n"
    )
    rows = [(f"r{lr}{seed}", lr, seed, lr * seed / 100) for lr in range(1, 10) for seed in (0, 1)]
    runs = pd.DataFrame(rows, columns=["run_id", "lr", "seed", "test/error"])
    runs = runs.assign(state="finished", exit_code=0, source="s", diverged=False)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "val/error": 0.5, "seconds": 1})
    factories.write_study(tmp_path / "s", tmp_path / "s.yaml", runs, history)
    code, _, err = report(tmp_path / "s", tmp_path / "s.yaml")
    assert code == 0, err


def test_the_readme_shows_what_the_committed_study_says(tmp_path: Path) -> None:
    for path in (ROOT / "analysis" / "results").glob("*/results.json"):
        text = (ROOT / "README.md").read_text()
        name, folder = path.parent.name, path.parent.relative_to(ROOT)
        copy = tmp_path / "README.md"
        copy.write_text(f"above\n<!-- {name} -->\nold\n<!-- /{name} -->\nbelow\n")
        done = call("-m", "analysis.readme", folder, copy)
        assert done.returncode == 0, done.stderr
        block = copy.read_text().removeprefix("above\n").removesuffix("below\n")
        assert "old" not in block.splitlines()
        assert block in text, "run `make report`: the README's numbers are not the study's"
    done = call("-m", "analysis.readme", tmp_path, tmp_path / "README.md")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "analysis" / "results").glob("*/results.json")))
def test_committed_reports_follow_from_their_tables(path: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(path.parent.parent, tmp_path / "results"))
    copy = results / path.parent.name
    (copy / "report.md").unlink()  # and of results.json only what tells whose figures stand there
    captions = json.loads((copy / "results.json").read_text())["captions"]
    (copy / "results.json").write_text(json.dumps({"captions": captions}))
    code, _, err = report(copy, ROOT / "sweeps" / f"{path.parent.name}.yaml")
    assert code == 0, err
    sidecars = [f"figures/{file.name}" for file in path.parent.glob("figures/*.json")]
    assert len(sidecars) == len(captions)
    for name in ("results.json", "report.md", "report.html", "tables.tex", *sidecars):
        old, new = ((place / name).read_text() for place in (path.parent, copy))
        without_pictures = re.compile(r'src="data:image/png;base64,[^"]*"')
        assert without_pictures.sub("", new) == without_pictures.sub("", old), "run `make report`"


@pytest.mark.parametrize("column", ["split_sha256", "order_sha256"])
def test_seeds_that_are_no_pairs_are_tested_by_mann_whitney(
    sweep_path: Path, tmp_path: Path, column: str
) -> None:
    tables = change(column, "e")(*factories.tables(sweep_path))
    factories.write_study(tmp_path / "made_up", sweep_path, *tables)
    results = factories.report(tmp_path / "made_up", sweep_path)
    row = results["contrasts"][0]
    assert row["p"] == pytest.approx(2 / 3432)  # 14 choose 7
    assert "the seeds are no pairs" in row["sentence"]
    assert f"seed 3: 2 different values of {column}" in results["unpaired"][0]


def test_an_allowed_failure_is_told_on_the_first_page(sweep_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made_up"
    tables = change("git_commit", "e" * 40)(*factories.tables(sweep_path))
    factories.write_study(folder, sweep_path, *tables)
    assert "--allow commit" in refusal(folder, sweep_path)
    factories.report(folder, sweep_path, "--allow", "commit")
    assert "different commits of the code" in (folder / "report.md").read_text()
