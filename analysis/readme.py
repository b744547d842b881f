"""Write a study's figure, table and sentences into README.md, between its two markers.

    python -m analysis.readme gtsrb_short README.md

The markers are the lines <!-- gtsrb_short --> and <!-- /gtsrb_short -->; what is between them is
replaced, so that no number in the README is typed by hand.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from analysis.pages import tables
from lib.spec.errors import UserError, command
from lib.spec.files import write_atomically
from lib.spec.study import ROOT, RULES, Study, load_study


def block(folder: Path, results: dict[str, Any], study: Study) -> str:
    """Return the Markdown of one study: sentences, figure with caption, tables."""
    where = folder.resolve().relative_to(ROOT).as_posix() if _inside(folder) else str(folder)
    caption = tables.plain(results["captions"]["fig3_final_scores"])
    lines = [sentences(results), ""]
    lines += [f"![{caption}]({where}/figures/fig3_final_scores.png)", "", f"*{caption}*", ""]
    rule = RULES[results["score_rule"]]
    lines += [
        all_tables(results, study),
        "",
        f"Score: {study.metric.key} ({rule}), {study.metric.better} is better. Everything behind "
        f"it: [{where}]({where}/report.md).",
    ]
    return "\n".join(lines)


def _inside(folder: Path) -> bool:
    return folder.resolve().is_relative_to(ROOT)


def sentences(results: dict[str, Any]) -> str:
    """Return the graded sentences as a Markdown list, their notes below them."""
    lines = []
    for c in results["contrasts"]:
        lines.append(f"- *{c['grade'].replace('_', ' ')}*: {tables.plain(c['sentence'])}")
        lines += [f"  - {tables.plain(note)}" for note in c["notes"]]
    return "\n".join(lines)


def all_tables(results: dict[str, Any], study: Study) -> str:
    """Return the Markdown tables of variants, runs and contrasts, and of two folds."""
    metric = study.metric
    found = [
        tables.variants(results, metric),
        tables.by_seed(results, study),
        tables.grades(results, metric),
        tables.cross_validation(results),
    ]
    shown = [tables.to_markdown(table, list_runs=False) for table in found if table]
    return "\n\n".join(shown)


def insert(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between the markers of study ``name``.

    Raises:
        UserError: when the markers are missing.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise UserError(f"no lines {begin.strip()} and {end} to write between")
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n\n" + end + rest.split(end, 1)[1]


def read_results(folder: Path) -> dict[str, Any]:
    """Return what a report's results.json holds.

    Raises:
        UserError: when it is missing or damaged.
    """
    path = folder / "results.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; run analysis.report first") from error


@command
def main() -> None:
    """Write a study's figure, table and sentences into README.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the folder of its report")
    parser.add_argument("readme", type=Path, help="README.md with the study's markers")
    arguments = parser.parse_args()
    folder = Path(arguments.study)
    study = load_study(folder.name)
    if not folder.is_dir():
        folder = study.places.tables(study.name)
    results = read_results(folder)
    text = insert(arguments.readme.read_text(), study.name, block(folder, results, study))
    write_atomically(arguments.readme, text.encode())


if __name__ == "__main__":
    main()
