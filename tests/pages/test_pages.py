"""What people read: every grade from data that lands on it, careful words, runs behind numbers."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import numpy as np
import pytest

from analysis.pages import render
from analysis.runs import provenance
from analysis.statistics import grades
from tests import factories
from tests.conftest import has_booktabs
from tests.statistics.test_grades import FORBIDDEN

DELTA = 0.005
# Grade of the first contrast -> seeds, effects A, B and A×B, noise of a run.
LANDS_ON = {
    "not_testable": (5, (-0.02, 0, 0), 1e-3),
    "inconclusive": (7, (0, 0, 0), 2e-2),
    "preliminary_support": (8, (-0.0055, 0, 0), 1.5e-3),
    "support_small": (7, (-0.003, 0, 0), 3e-4),
    "practically_equivalent": (7, (0, 0, 0), 1e-3),
    "meaningful": (7, (-0.02, -0.01, 0.012), 1e-3),
}


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a declared 2×2 sweep with seven seeds."""
    return declare(tmp_path, 7)


def declare(tmp_path: Path, seeds: int) -> Path:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml", seeds)
    factories.study(sweep_path, smallest_effect=DELTA)
    return sweep_path


@pytest.mark.parametrize("state", LANDS_ON)
def test_every_grade_is_reached_by_tables_and_reported_in_careful_words(
    tmp_path: Path, state: str
) -> None:
    seeds, effects, noise = LANDS_ON[state]
    sweep_path = declare(tmp_path, seeds)
    tables = factories.tables(sweep_path, effects, noise)
    factories.write_study(tmp_path / "s", *tables)
    results = factories.report(tmp_path / "s", sweep_path)
    assert results["contrasts"][0]["grade"] == state
    for page in ("report.md", "report.html", "tables.tex"):
        text = (tmp_path / "s" / page).read_text()
        assert not FORBIDDEN.search(text), (page, FORBIDDEN.search(text))


def test_every_grade_has_such_tables() -> None:
    assert set(LANDS_ON) == set(grades.GRADES)


def test_every_number_leads_to_its_runs(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.val/loss"] = 1 - runs["summary.test/error"]
    runs["url"] = "https://example.org/e/p/runs/" + runs["run_id"]
    factories.write_study(tmp_path / "s", runs, history)
    results = factories.report(tmp_path / "s", sweep_path)
    assert set(results["runs"]) == set(runs["run_id"])
    numbers = [*results["variants"], *results["contrasts"], *results["secondary"]]
    assert {row["metric"] for row in results["exploratory"]} == {"val/loss"}
    for row in [*numbers, *results["exploratory"]]:
        assert row["runs"]
        assert set(row["runs"]) <= set(results["runs"])
    effect = results["secondary"][0]
    assert {r[:-2] for r in effect["runs"]} == {"noadam", "bnadam"}
    one = results["runs"]["bnsgd03"]
    assert (one["git_commit"], one["data_sha256"], one["seed"]) == ("c" * 40, "d" * 64, 3)
    assert one["variant"] == "batch_norm=True, optimizer=sgd"
    html = (tmp_path / "s" / "report.html").read_text()
    assert html.count('<span id="run-') == len(runs)
    assert '<a href="https://example.org/e/p/runs/bnsgd03">' in html
    links = set(re.findall(r'href="#(run-[^"]*)"', html))
    assert links == set(re.findall(r'<span id="(run-[^"]*)"', html))
    for name in ("config_sha256", "analysis_version", "git_commit", "data_sha256"):
        shown = results["provenance"][name]
        shown = shown if isinstance(shown, str) else shown[0]
        for page in ("report.md", "report.html", "tables.tex"):
            assert shown in (tmp_path / "s" / page).read_text()


def test_sidecars_carry_runs_and_provenance(sweep_path: Path, tmp_path: Path) -> None:
    factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    stale = tmp_path / "s" / render.FIGURES / "fig9_of_an_earlier_report.png"
    foreign = stale.with_name("fig6_plan.png")
    stale.parent.mkdir()
    stale.write_text("old")
    foreign.write_text("not a report's")
    (tmp_path / "s" / "results.json").write_text(json.dumps({"captions": {stale.stem: "old"}}))
    factories.report(tmp_path / "s", sweep_path, draw=True)
    results = json.loads((tmp_path / "s" / "results.json").read_text())
    assert not stale.exists()
    assert foreign.exists()
    for name, caption in results["captions"].items():
        sidecar = json.loads((tmp_path / "s" / render.FIGURES / f"{name}.json").read_text())
        assert sidecar["caption"] == caption
        assert set(sidecar["runs"]) == set(results["runs"])
        for key, value in results["provenance"].items():
            assert sidecar[key] == value
        assert not FORBIDDEN.search(caption.replace("not a test", "")), caption


def test_the_hashes_tell_plans_and_code_apart(
    sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = provenance.config_hash(factories.study(sweep_path))
    assert provenance.config_hash(factories.study(sweep_path)) == first
    other = provenance.config_hash(factories.study(sweep_path, smallest_effect=0.01))
    more = factories.study(factories.write_sweep(tmp_path / "made_up.yaml", 8))
    assert len({first, other, provenance.config_hash(more)}) == 3
    version = provenance.analysis_version()
    copy = tmp_path / "analysis"
    shutil.copytree(provenance.ANALYSIS, copy, ignore=shutil.ignore_patterns("results"))
    monkeypatch.setattr(provenance, "ANALYSIS", copy)
    assert provenance.analysis_version() == version
    for name in provenance.UNUSED:
        (path,) = copy.glob(f"**/{name}")
        path.write_text("# not part of a report")
    assert provenance.analysis_version() == version
    with open(copy / "statistics" / "rank_tests.py", "a") as file:
        file.write("# changed\n")
    assert provenance.analysis_version() != version


def test_pairing_is_proved_or_said_to_rest_on_the_seeds(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path, noise=5e-3)
    factories.write_study(tmp_path / "s", runs, history)
    factories.report(tmp_path / "s", sweep_path)
    said = (tmp_path / "s" / "report.md").read_text()
    assert "(split_sha256 and order_sha256) are the same in every variant, seed by seed" in said
    norm, scores = runs["config.batch_norm"].astype(bool), runs["summary.test/error"].astype(float)
    seeds = runs["config.seed"].astype(int)
    first, second = (scores[mask].groupby(seeds[mask]).mean() for mask in (~norm, norm))
    assert f"{np.corrcoef(first, second)[0, 1]:+.2f}".replace("-", "−") in said
    bare = runs.drop(columns=["summary.split_sha256", "summary.order_sha256"])
    factories.write_study(tmp_path / "bare", bare, history)
    factories.report(tmp_path / "bare", sweep_path)
    assert "rests on the seeds alone" in (tmp_path / "bare" / "report.md").read_text()


def test_latex_tables_are_whole_and_escaped(sweep_path: Path, tmp_path: Path) -> None:
    factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    labels = {"batch_norm=true": "50 % & more_or_less {BN} ~ #1 \\ ×"}
    results = factories.report(tmp_path / "s", sweep_path, labels=labels)
    text = (tmp_path / "s" / "tables.tex").read_text()
    assert r"50 \% \& more\_or\_less \{BN\} \textasciitilde{} \#1" in text
    for environment in ("table", "tabular"):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}") == 4
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    for table in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL):
        columns = {len(re.findall(r"(?<!\\)&", row)) for row in table.strip().splitlines()}
        assert len(columns) == 1
    assert f"{100 * results['variants'][0]['median']:.2f}" in text


def test_words_may_hold_what_markdown_and_html_are_written_with(
    sweep_path: Path, tmp_path: Path
) -> None:
    factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    factories.report(tmp_path / "s", sweep_path, labels={"batch_norm=True": "a|b <x> ≥ δ"})
    tables = (tmp_path / "s" / "report.md").read_text().split("\n\n")
    for table in [part.strip() for part in tables if part.strip().startswith("|")]:
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(columns) == 1, table
    assert "a&lt;" not in (tmp_path / "s" / "report.html").read_text()
    assert "a|b &lt;x&gt;" in (tmp_path / "s" / "report.html").read_text()


def test_a_page_that_fails_leaves_all_of_the_earlier_report(
    sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.write_study(tmp_path / "s", *factories.tables(sweep_path))
    factories.report(tmp_path / "s", sweep_path)
    first = {p: p.read_bytes() for p in (tmp_path / "s").iterdir() if p.is_file()}
    copy = tmp_path / "templates"
    shutil.copytree(render.TEMPLATES, copy)
    (copy / "tables.tex.j2").write_text("<< nothing_of_this_name >>")
    monkeypatch.setattr(render, "TEMPLATES", copy)
    factories.write_study(tmp_path / "s", *factories.tables(sweep_path, (0.1, 0, 0)))
    tables = {tmp_path / "s" / "runs.csv", tmp_path / "s" / "history.csv"}
    with pytest.raises(jinja2.UndefinedError):
        factories.report(tmp_path / "s", sweep_path)
    for path, content in first.items():
        assert path in tables or path.read_bytes() == content, path


@pytest.mark.skipif(not has_booktabs(), reason="LaTeX with booktabs is not installed")
@pytest.mark.parametrize("lost", [[], ["nosgd01", "nosgd04"]], ids=["whole", "failed runs"])
def test_latex_tables_fit_a_page(sweep_path: Path, tmp_path: Path, lost: list[str]) -> None:
    labels = {
        "batch_norm=False": "no batch normalization",
        "batch_norm=True": "batch normalization",
    }
    labels["optimizer=sgd"] = "SGD with Nesterov momentum"
    runs, history = factories.tables(sweep_path)
    runs.loc[runs["run_id"].isin(lost), "summary.diverged"] = True
    factories.write_study(tmp_path / "s", runs, history)
    factories.report(tmp_path / "s", sweep_path, labels=labels, smallest_effect=DELTA)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        "\\input{s/tables.tex}\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
