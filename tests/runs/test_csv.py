"""Exports of the W&B app: the runs table and charts."""

from pathlib import Path

import numpy as np
import pytest

from analysis import report as report_module
from analysis.runs.collect import collect
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from analysis.runs.tables import read_tables
from tests import factories

HEAD = (
    '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","algo","seed","test/error"\n'
)


@pytest.fixture
def exports(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Give a sweep's YAML, its exported runs table, and a chart with two of its runs."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["plain", "wide"]}, 7)
    rng, lines = np.random.default_rng(0), [HEAD]
    for algo in ("plain", "wide"):
        for seed in range(7):
            score = 0.2 - 0.05 * (algo == "wide") + rng.normal(0, 0.005)
            lines.append(
                f'"{algo} {seed}","finished","-","me","","2025-03-01","100","s",'
                f'"{algo}","{seed}","{score:.6f}"\n'
            )
    runs, chart = tmp_path / "wandb_export.csv", tmp_path / "chart.csv"
    runs.write_text("".join(lines))
    names = [f"{algo} {seed} - val/error" for algo in ("plain", "wide") for seed in range(7)]
    columns = [f'"{name}{end}"' for name in [*names, "other - val/error"] for end in ("", "__MIN")]
    rows = [",".join([f'"{step}"', *['"0.5"'] * len(columns)]) for step in (0, 10, 20)]
    chart.write_text("\n".join([",".join(['"Step"', *columns]), *rows]) + "\n")
    return sweep, runs, chart


def test_a_runs_table_and_a_chart_make_a_report(
    exports: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep, runs, chart = exports
    asked = Request([str(runs), str(chart)], sweep=sweep, out=tmp_path / "out")
    study, sources, out = resolve(asked)
    assert "14 finished, of 14 expected" in collect(sources, out, study)
    assert (
        "skipping curves of runs that are not in the runs table: other" in capsys.readouterr().out
    )
    table, history = read_tables(out)
    assert table["run_id"].tolist()[0] == "plain-0"
    assert (history.attrs["axis"], len(history)) == ("Step", 3 * 14)
    assert table["summary.runtime_seconds"].tolist() == [100] * 14
    assert set(table["config.seed"]) == set(range(7))
    (row,) = report_module.report(study, out, allow=["identical"], draw=False)["contrasts"]
    assert row["grade"] == "preliminary_support"


def test_exports_that_do_not_do_are_refused(
    exports: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    sweep, runs, chart = exports
    study = factories.study(sweep)
    with pytest.raises(FetchError, match="Pass the sweep's YAML as --sweep, or a declaration"):
        resolve(Request([str(runs)]))
    with pytest.raises(FetchError, match="only charts; add the runs table"):
        collect([chart], tmp_path / "out", study)
    with pytest.raises(FetchError, match="cannot select runs of a CSV export"):
        collect([runs], tmp_path / "out", study, filters={"state": "finished"})
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(FetchError, match="is not an export of the W&B app"):
        collect([runs, other], tmp_path / "out", study)
    text = runs.read_text()
    runs.write_text(text.replace('"seed"', '"SEED"'))
    with pytest.raises(FetchError, match="has no column for the settings seed"):
        collect([runs], tmp_path / "out", study)
    runs.write_text(text.replace('"plain 1"', '"plain 0"'))
    with pytest.raises(FetchError, match=r"duplicate run names plain 0 .*; show the column ID"):
        collect([runs], tmp_path / "out", study)
    runs.write_bytes(text.encode("utf-16"))
    with pytest.raises(FetchError, match="not UTF-8 text; save it as UTF-8"):
        collect([runs], tmp_path / "out", study)
    runs.write_text(text.replace('"plain 1"', '"' + 200 * "n" + '"'))
    with pytest.raises(FetchError, match="has over 128 letters; show the column ID"):
        collect([runs], tmp_path / "out", study)


def test_an_export_needs_no_sweep_if_the_factors_are_declared(
    exports: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, runs, _ = exports
    runs.write_text(runs.read_text() + "\n,,,,\n")  # blank lines
    declared = tmp_path / "mine.yaml"
    declared.write_text("metric: test/error\n")
    asked = Request([str(runs)], declaration=declared, out=tmp_path / "out")
    with pytest.raises(FetchError, match=r"Add `factors:` or `arms:` to .*mine\.yaml"):
        resolve(asked)
    declared.write_text("metric: test/error\nfactors: {algo: [plain, wide]}\n")
    study, sources, out = resolve(asked)
    assert (sources, study.name, study.seeds) == ([], "mine", list(range(7)))
    assert study.variants == [("plain",), ("wide",)]
    (row,) = report_module.report(study, out, draw=False)["contrasts"]
    assert row["difference"] == pytest.approx(-0.05, abs=0.01)


def test_what_an_export_cannot_tell_is_said(
    exports: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """A learning rate that differs between the variants may be a setting, or a result."""
    sweep, runs, _ = exports
    head, *lines = runs.read_text().splitlines()
    rows = [line + (',"0.1","20"' if "wide" in line else ',"0.2","30"') for line in lines]
    runs.write_text("\n".join([f'{head},"lr","epoch"', *rows]) + "\n")
    study = factories.study(sweep)
    out = tmp_path / "out"
    collect([runs], out, study)
    said = factories.refusal(out, sweep)
    assert "has 20 of 30 epochs" in said  # the budget, from the summaries
    factories.report(out, sweep, "epochs")
    said = (out / "report.md").read_text()
    assert "so only algo, seed were compared between runs, not the whole recipe" in said
    assert "confounded with the factors: epoch (20, 30); lr (0.1, 0.2)." in said


def test_a_table_without_curves_keeps_its_score_rules(
    exports: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    sweep, runs, _ = exports
    head, *lines = runs.read_text().splitlines()
    best = [f'{line},"{0.1 + 0.001 * (7 * k % 5)}"' for k, line in enumerate(lines)]
    runs.write_text("\n".join([f'{head},"test/error_at_best_val"', *best]) + "\n")
    study, out = factories.study(sweep), tmp_path / "out"
    collect([runs], out, study)
    results = factories.report(out, sweep)
    assert results["too_short_for"] == []
    assert results["budget"] == "unknown length"
    (row,) = results["contrasts"]
    assert list(row["other_rules"]) == ["at_best_val"]
    assert row["grade"] == "inconclusive"
    assert "Demoted from preliminary support" in row["notes"][0]


def test_curves_of_runs_with_one_name_are_refused(
    exports: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Pandas would rename the second of two equal columns, and each run get the first curve."""
    sweep, runs, chart = exports
    runs.write_text(runs.read_text().replace('"wide 1"', '"wide 0"').replace('"Name"', '"Name"'))
    lines = runs.read_text().splitlines()
    table = [lines[0].replace('"Name"', '"Name","ID"')]
    table += [line.replace('",', f'","id{i}",', 1) for i, line in enumerate(lines[1:])]
    runs.write_text("\n".join(table) + "\n")
    asked = Request([str(runs), str(chart)], sweep=sweep, out=tmp_path / "out")
    study, sources, out = resolve(asked)
    with pytest.raises(FetchError, match="several runs are named 'wide 0'"):
        collect(sources, out, study)
    chart.write_text('"Step","plain 0 - val/error","plain 0 - val/error"\n"0","0.5","0.6"\n')
    with pytest.raises(FetchError, match="several runs are named 'plain 0'"):
        collect(sources, out, study)


def test_a_name_with_the_separator_has_its_curve(tmp_path: Path) -> None:
    """And a byte-order mark, and capitals in the file's name, change nothing."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6)
    lines = [HEAD.replace('"Name"', '"Name","ID"')]
    for i, (algo, seed) in enumerate((a, s) for a in "ab" for s in range(6)):
        lines.append(
            f'"net - {algo} {seed}","r{i}","finished","","","","","100","s","{algo}","{seed}",'
            f'"{0.1 + i / 1000}"\n'
        )
    runs, chart = tmp_path / "RUNS.CSV", tmp_path / "chart.csv"
    runs.write_text("".join(lines), encoding="utf-8-sig")
    chart.write_text('"Step","net - a 0 - val/error","net - b 1 - val/error"\n"1","0.5","0.7"\n')
    asked = Request([str(runs), str(chart)], sweep=sweep, out=tmp_path / "out")
    study, sources, out = resolve(asked)
    collect(sources, out, study)
    _, history = read_tables(out)
    assert history.set_index("run_id")["val/error"].to_dict() == {"r0": 0.5, "r7": 0.7}
