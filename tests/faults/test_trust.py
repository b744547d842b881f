"""What comes from a stranger is checked where it enters, and escaped where it goes out."""

import csv
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.pages import formats
from analysis.runs import per_item, wandb_server
from analysis.runs.collect import collect
from analysis.runs.record import FetchError, build_record
from analysis.runs.tables import decode, encode, read_tables, runs_table, write_tables
from tests import factories

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "x\n\\write18{rm -rf ~}",
    "x\r\\input{/etc/passwd}",
    "x\u2028\\write18{x}",
    "[click](javascript:alert(1))",
    "![](http://127.0.0.1:9/x.png)",
    "| a | b |\n|---|---|",
    "$x^2$ %comment & more # ~ _ {} \\",
    '=HYPERLINK("http://127.0.0.1","x")',
    "+1+cmd|'/C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "../../etc/passwd",
    "`code` ``` fence",
]


class Tags(html.parser.HTMLParser):
    """Collect a page's elements and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.events: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.events.append(name)


def hostile_study(folder: Path, text: str) -> tuple[Path, Path]:
    """Write a study in which whatever a stranger can set says ``text``."""
    sweep = factories.grid(folder / "s.yaml", {"algo": [text, "plain"]}, 6, x=text)
    rng = np.random.default_rng(0)
    scores = {(text,): rng.normal(0.3, 0.01, 6).tolist()}
    scores[("plain",)] = rng.normal(0.2, 0.01, 6).tolist()
    more = {"git_commit": text, "device": text, "torch_version": text, "data_sha256": text}
    runs, history = factories.scored(sweep, scores, test_item=text, **more)
    runs["run_id"] = [f"r{i}" for i in range(len(runs))]
    history["run_id"] = runs["run_id"]
    runs["url"] = text  # in tables that somebody changed: newly fetched runs are checked on entry
    runs["source"] = text
    return factories.write_study(folder / "t", runs, history), sweep


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_its_place(tmp_path: Path, text: str) -> None:
    """In HTML, Markdown, LaTeX and CSV."""
    folder, sweep = hostile_study(tmp_path, text)
    declared = {"question": text, "notes": [text], "labels": {f"algo={text}": text}}
    if not text.strip():
        declared.pop("labels")
    factories.report(folder, sweep, **declared)

    page = Tags()
    page.feed((folder / "report.html").read_text())
    assert not page.tags & {"script", "iframe", "object", "form"}
    assert page.events == []
    assert all(
        link.startswith(("#", "https://", "http://", "data:image/png;base64,"))
        for link in page.links
    ), page.links
    assert "img" not in page.tags or all("onerror" not in link for link in page.links)

    for line in (folder / "report.md").read_text().splitlines():
        assert not re.search(r"<(script|img|a|iframe)\b", line), line
        assert not re.search(r"\]\((javascript|data|http://127)", line), line

    for line in (folder / "tables.tex").read_text().splitlines():
        code = re.sub(r"(?<!\\)%.*", "", line)
        assert r"\write18" not in code
        assert r"\input" not in code
        if "label{" in line:
            assert re.fullmatch(r".*\\label\{[A-Za-z0-9:-]+\}.*", line)

    for name in ("runs.csv", "history.csv"):
        for row in csv.reader(io.StringIO((folder / name).read_text())):
            for cell in row[5:]:  # after the columns that a server or folder names
                assert not re.match(r"[=+@]|-\D", cell), cell


@pytest.mark.parametrize("text", HOSTILE)
def test_cells_come_back_as_they_were(text: str) -> None:
    cell = encode(text)
    assert decode(cell) == text
    assert cell[0] not in "=+-@"
    assert "\n" not in formats.plain(text)
    assert "\n" not in formats.tex(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_runs_are_checked_where_they_enter(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
        with pytest.raises(FetchError, match="run ids name files"):
            build_record(text, "finished", 0, "s", {}, {}, [])
    with pytest.raises(FetchError, match="state must be at most"):
        build_record("r", text, 0, "s", {}, {}, [])
    assert build_record("r", "finished", 0, "s", {}, {}, [], text).row["url"] == ""


def test_keys_of_a_run_are_no_columns_of_ours() -> None:
    """A crashed run whose summary says that it finished has crashed."""
    ours = {"state": "finished", "exit_code": 0, "run_id": "x", "source": "y", "url": "http://z"}
    row = build_record("r", "crashed", 1, "s", ours, ours, []).row
    assert (row["state"], row["exit_code"], row["run_id"], row["url"]) == ("crashed", 1, "r", "")
    assert row["config.state"] == row["summary.state"] == "finished"


def test_columns_and_items_with_names_like_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"epoch": 1, "=cmd": 1.0, "x\ny": 2.0, "val/error": 0.5, "_step": 0}]
    run = build_record("r", "finished", 0, "s", {"seed": 1}, {"test/error": 0.1}, rows)
    monkeypatch.setattr(wandb_server, "fetch_runs", lambda *_: (set(), iter([run])))
    path = tmp_path / "out" / per_item.FILES / "r" / per_item.SCORES
    path.parent.mkdir(parents=True)
    names = ["=1+1", "-a", "plain", "@x", "007"]
    np.savez(path, items=names, score=[0.1, 0.2, 0.3, 0.4, 0.5])
    collect(["e/p/s"], tmp_path / "out", None)
    assert "dropping history columns '=cmd', 'x\\ny': names" in capsys.readouterr().out
    assert "val/error" in read_tables(tmp_path / "out")[1]
    text = (tmp_path / "out" / per_item.NAME).read_text()
    assert not re.search(r"^[=+@-]", text, re.MULTILINE)
    assert sorted(per_item.read(tmp_path / "out").index) == sorted(names)


def test_a_table_that_somebody_changed_links_nowhere(tmp_path: Path) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep)
    runs["url"] = "javascript:alert(1)"
    folder = factories.write_study(tmp_path / "t", runs, history)
    factories.report(folder, sweep)
    assert 'href="javascript:' not in (folder / "report.html").read_text()


def test_runs_of_one_kind_in_any_order_give_one_table(tmp_path: Path) -> None:
    """The columns of test_images.csv do not depend on which run was read first."""
    contents = []
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        folder = tmp_path / order[0]
        for run in order:
            path = folder / per_item.FILES / run / per_item.SCORES
            path.parent.mkdir(parents=True)
            np.savez(path, items=["x", "y"], score=[0.1, 0.2])
        per_item.write(folder, order)
        contents.append((folder / per_item.NAME).read_bytes())
    assert contents[0] == contents[1]


def test_a_shortened_table_of_items_is_reported(tmp_path: Path) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep)
    folder = factories.write_study(tmp_path / "t", runs, history)
    items = pd.DataFrame({"item": [f"{i:03d}" for i in range(400)], "label": 0})
    for run, score in zip(runs["run_id"], runs["summary.test/error"], strict=True):
        wrong = (np.arange(400) < round(400 * score)).astype(int)
        items[f"predicted.{run}"] = wrong
        runs.loc[runs["run_id"] == run, "summary.test/error"] = float(wrong.mean())
    write_tables(folder, runs_table(runs.to_dict("records")), history)
    items.to_csv(folder / per_item.NAME, index=False)
    factories.report(folder, sweep)
    assert "per-item test outputs are not used" not in (folder / "report.md").read_text()
    items.iloc[:300].to_csv(folder / per_item.NAME, index=False)
    factories.report(folder, sweep)
    assert "per-item test outputs are not used because" in (folder / "report.md").read_text()


@pytest.mark.parametrize("column", ["git_commit", "parameters", "resumed_from_epoch", "device"])
@pytest.mark.parametrize("value", ["", "Infinity", "1e308", "text"])
def test_odd_cells_of_a_summary_are_no_traceback(tmp_path: Path, column: str, value: str) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep)
    runs[f"summary.{column}"] = 3
    folder = factories.write_study(tmp_path / "t", runs, history)
    table = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    table.loc[3, f"summary.{column}"] = value
    table.to_csv(folder / "runs.csv", index=False)
    allow = ("commit",) if column == "git_commit" else ()
    assert factories.report(folder, sweep, *allow)["contrasts"]
