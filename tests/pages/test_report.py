"""From tables to report: completeness first, then contrasts, words, figures, files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import readme
from analysis import report as report_module
from lib.spec.load import load_study
from lib.spec.study import Places
from tests import factories
from tests.conftest import ROOT, call
from tests.factories import change, refusal

RESULT_KEYS = {"study", "metric", "score_rule", "n_seeds", "factors", "contrasts"}
FIGURES = ["overview", "fig1", "fig2", "fig3", "fig4", "fig5", "fig7", "fig8", "fig10"]
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
    "grade",
    "sentence",
    "runs",
}


def rounded(text: str) -> str:
    """Return the text with six digits of its long numbers: the last ones vary with numpy."""
    return re.sub(r"\d+\.\d{7,}(e-?\d+)?", lambda found: f"{float(found[0]):.6g}", text)


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def test_report_of_a_complete_study(sweep_path: Path, tmp_path: Path) -> None:
    """The command as a process of its own; all else here calls it in this process."""
    folder = factories.write_study(tmp_path / "made_up", *factories.tables(sweep_path))
    words = ("-m", "analysis.report", folder, "--sweep", sweep_path)
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert str(folder / "report.html") in done.stdout
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
    assert not re.search(r"(src|href)=\"(?!data:|#)", html), "the page must need no other file"
    places = re.findall(r' id="([^"]*)"', html)
    assert len(places) == len(set(places))
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(places)
    numbers = re.findall(r"<b>Figure (\d+)\.</b>", html)
    assert numbers == [str(i + 1) for i in range(len(FIGURES))]
    for row in results["contrasts"]:
        assert f'<p class="claim">{row["claim"]}</p>' in html
        assert f'<p class="numbers">{row["numbers"]}</p>' in html
    assert [name.split("_")[0] for name in results["captions"]] == FIGURES
    assert html.count("<figure ") == len(FIGURES)
    for name, caption in results["captions"].items():
        picture = Image.open(folder / "figures" / f"{name}.png")
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20, f"{name} is blank"
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "n = 7" in caption or name == "fig7_integrity"

    first = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report_module.main([str(folder), "--sweep", str(sweep_path)])
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first


def test_a_diverged_run_is_included(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    mask = runs["run_id"] == "nosgd02"
    runs.loc[mask, ["summary.test/error", "summary.test/error_at_best_val"]] = 1.0
    runs.loc[mask, "summary.diverged"] = True
    history = history[(history["run_id"] != "nosgd02") | (history["epoch"] == 1)]
    folder = factories.write_study(tmp_path / "s", runs, history)
    results = factories.report(folder, sweep_path)
    assert results["failures"] == {"nosgd02": "diverged"}
    assert results["variants"][1]["max"] < 0.2
    assert results["variants"][1]["scores"][2] is None
    assert results["contrasts"][1]["p"] > results["contrasts"][1]["p_trained"]
    assert "1 run failed: nosgd02 (diverged)." in (folder / "report.md").read_text()


def test_a_study_that_diverged_altogether(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs[["summary.test/error", "summary.test/error_at_best_val"]] = 1.0
    runs["summary.diverged"] = True
    folder = factories.write_study(tmp_path / "s", runs, history[history["epoch"] == 1])
    rows = factories.report(folder, sweep_path, draw=True)["contrasts"]
    assert ["differences are zero, failed runs" in row["sentence"] for row in rows] == [True] * 3


def test_undeclared_contrasts_are_exploratory_and_text_is_escaped(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml")
    folder = factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    factories.report(folder, sweep_path)
    assert "Exploratory: the study has no declaration." in (folder / "report.md").read_text()
    question = "is a <b> & c?"
    factories.report(folder, sweep_path, question=question)
    html = (folder / "report.html").read_text()
    assert "is a &lt;b&gt; &amp; c?" in html
    assert "is a &lt;b> &amp; c?" in (folder / "report.md").read_text()
    assert "Exploratory: the declaration cannot be verified" in html


def test_one_of_anything_is_not_several(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml", epochs=1)
    folder = factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    factories.report(folder, sweep_path, primary=["optimizer"])
    text = (folder / "report.md").read_text()
    assert not re.search(r"\b1 (epochs|contrasts|comparisons|runs|seeds)\b", text)
    assert "a budget of 1 epoch and" in text


def test_nothing_to_compare_is_reported(tmp_path: Path) -> None:
    factories.grid(tmp_path / "s.yaml", {"batch_norm": [True], "optimizer": ["sgd"]}, 2, epochs=3)
    runs, history = factories.tables(factories.write_sweep(tmp_path / "two.yaml", seeds=2))
    keep = runs["run_id"].str.startswith("bnsgd")
    runs, history = runs[keep], history[history["run_id"].isin(runs[keep]["run_id"])]
    folder = factories.write_study(tmp_path / "s", runs, history)
    assert "nothing to compare" in refusal(folder, tmp_path / "s.yaml")


def test_many_levels_and_an_error_of_zero_are_drawn(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"lr": list(range(1, 6))}, 2)
    scores = {(lr,): [0.0, lr / 100] for lr in range(1, 6)}
    folder = factories.write_study(tmp_path / "s", *factories.scored(path, scores))
    assert len(factories.report(folder, path, draw=True)["contrasts"]) == 10


def test_readme_and_docs_show_what_the_committed_reports_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        assert rounded(readme.renewed(page)) == rounded(page.read_text()), "run `make reports`"
    shown = "".join(page.read_text() for page in pages)
    for path in (ROOT / "analysis" / "results").glob("*/results.json"):
        assert f"results/{path.parent.name}/report.md" in shown
    copy = tmp_path / "page.md"
    copy.write_text("above\n<!-- gtsrb_short -->\nold\n<!-- /gtsrb_short -->\nbelow\n")
    monkeypatch.setattr("sys.argv", ["readme", str(copy)])
    readme.main()
    assert "old" not in copy.read_text()
    assert "*preliminary support*: Batch normalization" in copy.read_text()
    assert f"updated: {copy}" in capsys.readouterr().out
    assert readme.renewed(copy) == copy.read_text()


COMMITTED = sorted((ROOT / "analysis" / "results").glob("*/results.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_reports_follow_from_their_tables(path: Path, tmp_path: Path) -> None:
    """Without drawing: pages, captions and numbers are made again from the tables."""
    results = Path(shutil.copytree(path.parent.parent, tmp_path / "results"))
    copy = results / path.parent.name
    allow = report_module.allowed_before(copy)
    (copy / "report.md").unlink()  # and of results.json only whose figures these are, and the looks
    old = json.loads((copy / "results.json").read_text())
    kept = ("captions", "study", "n_seeds", "alpha", "earlier_looks", "untestable_looks")
    kept = {name: old[name] for name in kept}
    kept["contrasts"] = [{k: row[k] for k in ("n", "paired", "grade")} for row in old["contrasts"]]
    (copy / "results.json").write_text(json.dumps(kept))
    plan = load_study(path.parent.name, Places(results=results))
    report_module.report(plan, copy, allow, draw=False)
    sidecars = sorted(file.stem for file in path.parent.glob("figures/*.json"))
    assert sidecars == sorted(old["captions"])
    for name in ("results.json", "report.md", "report.html", "tables.tex"):
        before, new = ((place / name).read_text() for place in (path.parent, copy))
        assert rounded(new) == rounded(before), "run `make reports`"


@pytest.mark.parametrize("column", ["split_sha256", "order_sha256"])
def test_seeds_that_are_no_pairs_are_tested_by_mann_whitney(
    sweep_path: Path, tmp_path: Path, column: str
) -> None:
    tables = change(f"summary.{column}", "e")(*factories.tables(sweep_path))
    factories.write_study(tmp_path / "made_up", *tables)
    results = factories.report(tmp_path / "made_up", sweep_path)
    row = results["contrasts"][0]
    assert row["p"] == pytest.approx(2 / 3432)  # 14 choose 7
    assert "(unpaired, A12 = 0.00)" in row["sentence"]
    assert f"seed 3: 2 different values of {column}" in results["unpaired"][0]


def test_folds_are_not_called_seeds(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"act": ["relu", "elu"], "norm": [0, 1]}, 8)
    sweep.write_text(sweep.read_text().replace("seed:", "fold:"))
    declared = {"seed": "fold", "unit": "fold", "smallest_effect": 0.01}
    study = factories.study(sweep, **declared)
    rng, runs, history = np.random.default_rng(0), [], []
    for act, norm in study.variants:
        for fold in study.seeds:
            run, score = f"{act}{norm}{fold}", 0.2 + 0.02 * norm + rng.normal(0, 0.004)
            summary = {"test/error": score, "diverged": run == "elu03"}
            runs.append(factories.run_row(run, {"act": act, "norm": norm, "fold": fold}, summary))
            history += [{"run_id": run, "epoch": e, "val/error": score + 0.1 / e} for e in (1, 2)]
    folder = factories.write_study(
        tmp_path / "t", factories.runs_table(runs), pd.DataFrame(history)
    )
    factories.report(folder, sweep, draw=True, **declared)
    text = (folder / "report.md").read_text() + (folder / "tables.tex").read_text()
    assert "number of folds whose difference has that sign" in text
    assert "median over n = 8 folds (bold) and each fold (thin)" in text
    assert re.findall("[^ ]+ [sS]eeds?[^ ]* [^ ]+", text) == []


def test_an_allowed_failure_is_reported_on_the_first_page(sweep_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made_up"
    tables = change("summary.git_commit", "e" * 40)(*factories.tables(sweep_path))
    factories.write_study(folder, *tables)
    assert "--allow commit" in refusal(folder, sweep_path)
    factories.report(folder, sweep_path, "commit")
    assert "different commits of the code" in (folder / "report.md").read_text()
