"""Update the generated blocks in README.md and docs/ from the reports.

    python -m analysis.readme [FILE ...]

The lines <!-- gtsrb_short --> and <!-- /gtsrb_short --> enclose sentences, a figure and tables of
that study. The lines <!-- results: STUDY ... --> and <!-- /results --> enclose a table with one row
per study.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.pages import formats, run_tables, tables
from analysis.statistics.notes import AVERAGE
from analysis.statistics.sentences import format_p, show_level
from lib.spec.errors import UserError, command
from lib.spec.files import write_atomically
from lib.spec.load import load_study
from lib.spec.study import ROOT, RULES, Places, Study
from lib.spec.words import count

RESULTS = re.compile(r"<!-- results:(?P<studies>[\w. -]+?)-->\n.*?<!-- /results -->", re.DOTALL)
OPENING = re.compile(r"<!-- ([\w.-]+) -->\n")


def block(where: str, results: dict[str, Any], study: Study) -> str:
    """Return the Markdown block of one study: sentences, figure with caption, tables.

    ``where``: the study's folder, relative to the page.
    """
    caption = formats.plain(results["captions"]["fig3_final_scores"])
    lines = [sentences(results), ""]
    lines += [f"![{caption}]({where}/figures/fig3_final_scores.png)", "", f"*{caption}*", ""]
    rule = RULES[results["score_rule"]]
    lines += [
        all_tables(results, study),
        "",
        f"Score: {study.metric.key} ({rule}), {study.metric.better} is better. Full report: "
        f"[{results['study']}]({where}/report.md).",
    ]
    return "\n".join(lines)


def sentences(results: dict[str, Any]) -> str:
    """Return the graded sentences as a Markdown list, with their notes as sublists."""
    lines = []
    for c in results["contrasts"]:
        lines.append(f"- *{c['grade'].replace('_', ' ')}*: {formats.plain(c['sentence'])}")
        lines += [f"  - {formats.plain(note)}" for note in c["notes"]]
    return "\n".join(lines)


def all_tables(results: dict[str, Any], study: Study) -> str:
    """Return the Markdown tables of variants, contrasts, runs by seed, and cross-validation."""
    metric = study.metric
    candidates = [
        tables.variants(results, metric),
        run_tables.by_seed(results, study),
        tables.grades(results, metric),
        run_tables.cross_validation(results),
    ]
    shown = [formats.to_markdown(table, list_runs=False) for table in candidates if table]
    return "\n\n".join(shown)


def overview(names: Sequence[str], page: Path) -> str:
    """Return a Markdown table: a row per study that has a report, a line per contrast."""
    lines = [
        "| study | score, seeds, budget | contrast: [grade](#how-to-read-a-report), difference "
        "[interval] |",
        "|---|---|---|",
    ]
    for name in names:
        folder = Places().tables(name)
        if not (folder / "results.json").exists():
            continue
        study, results = load_study(name), read_results(folder)
        verdicts = [_contrast_line(c, study) for c in results["contrasts"]]
        n = count(results["n_seeds"], results["unit"])
        about = f"{study.metric.axis}, {n}, {results['budget']}"
        link = f"[{name}]({_seen_from(page, folder)}/report.md)"
        lines.append(f"| {link} | {about} | {'<br>'.join(verdicts)} |")
    return "\n".join(lines)


def _contrast_line(c: dict[str, Any], study: Study) -> str:
    """Return one line for a contrast: label, grade, difference with interval, p of the claim."""
    show, unit = study.metric.show_signed, study.declaration.unit
    text = f"{formats.plain(c['label'])}: *{c['grade'].replace('_', ' ')}*"
    if c["difference"] is None:
        return text
    text += f", {show(c['difference'])}"
    if c["confidence"]:
        ends = f"{show(c['ci_low'])}, {show(c['ci_high'])}"
        text += f" [{show_level(c['confidence'])} CI {ends}]"
    if c["n_trained"] < c["n"]:
        text += f" over the {c['n_trained']} of {c['n']} {unit}s without failed runs"
    if c["grade"] == "practically_equivalent":
        text += f", Holm p of equivalence {format_p(c['p_within'])}"
    elif c["grade"] != "not_testable":
        text += f", Holm p {format_p(c['p_holm'])}"
        text += f" over all {unit}s, failed runs counted as worst" * (c["n_trained"] < c["n"])
    if c["grade"] == "meaningful":
        text += f", beyond ±δ {format_p(c['p_beyond'])}"
    if c["grade"] == "support_small":
        text += f", within ±δ {format_p(c['p_within'])}"
    if any(note.startswith(AVERAGE) for note in c["notes"]):
        text += "; an average over unlike effects"
    return text.replace("|", "\\|")


def _seen_from(page: Path, folder: Path) -> str:
    return Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()


def insert(text: str, name: str, content: str) -> str:
    """Return ``text`` with the block between the markers called ``name`` replaced by ``content``.

    Raises:
        UserError: when the markers are missing.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise UserError(f"missing lines {begin.strip()} and {end}; add them to the page")
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n\n" + end + rest.split(end, 1)[1]


def read_results(folder: Path) -> dict[str, Any]:
    """Return the content of a report's results.json.

    Raises:
        UserError: when it is missing or damaged.
    """
    path = folder / "results.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; run analysis.report first") from error


def renewed(page: Path) -> str:
    """Return the text of a page with its blocks regenerated.

    Blocks whose name is not that of a study with a report are not changed.
    """
    text = page.read_text()
    for match in RESULTS.finditer(text):
        head = match[0].splitlines()[0]
        table = overview(match["studies"].split(), page)
        text = text.replace(match[0], f"{head}\n\n{table}\n\n<!-- /results -->")
    for name in OPENING.findall(text):
        folder = Places().tables(name)
        if (folder / "results.json").exists():
            shown = block(_seen_from(page, folder), read_results(folder), load_study(name))
            text = insert(text, name, shown)
    return text


@command
def main() -> None:
    """Update the generated blocks in README.md and docs/ from the reports."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    parser.add_argument("pages", nargs="*", type=Path, default=pages, help="default: all pages")
    for page in parser.parse_args().pages:
        text = renewed(page)
        if text != page.read_text():
            write_atomically(page, text.encode())
            print(f"updated: {page}")


if __name__ == "__main__":
    main()
