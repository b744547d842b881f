"""A table of text, and how it is written in Markdown, HTML and LaTeX."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
}
LEVEL = re.compile(r" (\([0-9.]+ %\))$")  # of an interval, at the end of a cell
RUNS_PER_SIDE = "n (baseline vs. treatment)"
# In LaTeX, where the long headings do not fit the page.
SHORT_HEADINGS = {RUNS_PER_SIDE: "n", "Difference": "Diff.", "Difference from first": "vs. first"}
SHORT_HEADINGS |= {"Minimum": "Min.", "Maximum": "Max.", "Parameters": "Param."}
SHORT_HEADINGS |= {"Below / above 0": "−/+"}
# Ends of headings that LaTeX leaves out: a unit, which the caption has, and what an interval is of.
LONG_END = re.compile(r"(?<=^Median) \(.*\)$|(?<=^CI), all comparisons")


@dataclass(frozen=True)
class Table:
    """A table of text.

    ``runs``: the ids of the runs behind each row, if known. ``text``: the left-aligned columns in
    addition to the first. ``widths``: column widths in LaTeX, as shares of the line width.
    """

    name: str
    frame: pd.DataFrame
    runs: Sequence[Sequence[str]] = ()
    text: Sequence[str] = ()
    widths: dict[str, float] = field(default_factory=dict)
    list_runs: bool = False  # whether Markdown lists the runs in a column
    anchors: Sequence[str] = ()  # HTML id of each row
    details: Sequence[dict[str, str]] = ()  # more about each row, collapsed in HTML

    def is_text(self, column: str) -> bool:
        """Return whether a column is left-aligned text."""
        return column in self.text or column == self.frame.columns[0]


def or_dash(value: Any, show: Callable[[Any], str]) -> str:
    """Return ``value`` as ``show`` formats it, or a dash for None."""
    return "–" if value is None else show(value)


def tex(text: object) -> str:
    """Escape text for LaTeX, on one line, so that it cannot leave a comment."""
    return "".join(TEX.get(c, c) for c in " ".join(str(text).splitlines()))


def cell(text: object) -> str:
    """Escape text for a cell of a Markdown table."""
    return plain(text).replace("|", "\\|").replace("\n", " ")


def plain(text: object) -> str:
    """Escape HTML and links in one paragraph of Markdown."""
    line = " ".join(str(text).splitlines())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def to_markdown(table: Table, list_runs: bool = True) -> str:
    """Return the table in Markdown, with a column of runs if the table lists them."""
    frame = table.frame.map(cell).rename(columns=cell)
    if table.list_runs and list_runs:
        frame = frame.assign(runs=[" ".join(map(cell, ids)) for ids in table.runs])
    return frame.to_markdown(
        index=False,
        disable_numparse=True,
        colalign=["left" if table.is_text(c) or c == "runs" else "right" for c in frame],
    )


def to_html(table: Table) -> str:
    """Return the table in HTML; the last column expands to the runs behind each row."""
    frame = table.frame.map(lambda text: LEVEL.sub(r"<br>\1", html.escape(str(text))))
    for column in frame:
        if table.is_text(column):
            frame[column] = [f'<span class="text">{text}</span>' for text in frame[column]]
    first = frame.columns[0]
    if len(table.anchors):
        ids = [html.escape(anchor, quote=True) for anchor in table.anchors]
        frame[first] = [
            f'<span id="{a}">{text}</span>' for a, text in zip(ids, frame[first], strict=True)
        ]
    heads = {c: f'<span class="text">{html.escape(c)}</span>' for c in frame if table.is_text(c)}
    frame = frame.rename(columns=lambda name: heads.get(name) or html.escape(str(name)))
    if len(table.runs):
        frame["Runs"] = [_folded_runs(ids) for ids in table.runs]
    if len(table.details):
        frame["Origin"] = [_folded_details(one) for one in table.details]
    text = frame.to_html(index=False, escape=False, border=0, classes=table.name, justify="unset")
    return text.replace('style="text-align: unset;"', "")


def _folded_runs(ids: Sequence[str]) -> str:
    safe = [html.escape(run, quote=True) for run in ids]
    links = " ".join(f'<a href="#run-{run}">{run}</a>' for run in safe)
    return f'<details class="behind"><summary>{len(safe)}</summary>{links}</details>'


def _folded_details(values: dict[str, str]) -> str:
    items = []
    for key, value in values.items():
        shown = html.escape(value, quote=True)
        if key == "url" and value.startswith(("https://", "http://")):
            shown = f'<a href="{shown}">{shown}</a>'
        items.append(f"<dt>{html.escape(key)}</dt><dd>{shown}</dd>")
    return f'<details class="behind"><summary>show</summary><dl>{"".join(items)}</dl></details>'


def to_latex(table: Table, caption: str, label: str) -> str:
    """Return the table in LaTeX with booktabs rules; ``caption`` is LaTeX code."""
    columns = []
    for name in table.frame:
        width = table.widths.get(name)
        columns.append(rf"p{{{width}\linewidth}}" if width else "r")
    frame = table.frame.rename(columns=SHORT_HEADINGS)
    frame = frame.rename(columns=lambda name: LONG_END.sub("", str(name)))
    frame = frame.map(tex).rename(columns=tex)
    return frame.style.hide(axis="index").to_latex(
        column_format="".join(columns),
        hrules=True,
        caption=caption,
        label=label,
        environment="table",
        position_float="centering",
    )
