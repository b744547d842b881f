"""Write a study's figure, table and sentences into README.md, between its two markers.

    python -m analysis.readme analysis/results/gtsrb_short README.md

The markers are the lines <!-- gtsrb_short --> and <!-- /gtsrb_short -->; what stands between is
replaced, so that no number in the README is typed by hand.
"""

import argparse
import json
from pathlib import Path

from analysis.figures.style import cell_label, lower_first, metric_name
from analysis.grid import RULES, GridError, Study, Sweep, load_study, load_sweep
from analysis.runs.tables import replace_file
from analysis.statistics import published
from analysis.statistics.grades import digits, format_p, signed


def block(folder: Path, results: dict) -> str:
    """Return the Markdown of one study: sentences, figure with caption, tables."""
    figure = folder.as_posix() + "/figures/fig3_final_scores.png"
    caption = results["captions"]["fig3_final_scores"]
    lines = [sentences(results), "", f"![{caption}]({figure})", "", f"*{caption}*", ""]
    sweep = load_sweep(folder.parent.parent.parent / "sweeps" / f"{results['study']}.yaml")
    study = load_study(sweep)
    where = folder.as_posix()
    rule = RULES[results["score_rule"]]
    lines += [
        tables(results, sweep, study),
        "",
        f"Score: {study.metric} ({rule}), {study.direction} is better. Everything behind it: "
        f"[{where}]({where}/report.md).",
    ]
    return "\n".join(lines)


def sentences(results: dict) -> str:
    """Return the graded sentences as a Markdown list."""
    lines = [f"- *{c['state'].replace('_', ' ')}*: {c['sentence']}" for c in results["contrasts"]]
    return "\n".join(lines)


def tables(results: dict, sweep: Sweep, study: Study) -> str:
    """Return the Markdown tables of variants and contrasts, and of two folds where there are."""
    unit = " (%)" if study.percent else ""
    labels = {sweep.label(cell): cell_label(sweep, study, cell) for cell in sweep.cells}
    lines = [
        f"| variant | n | epochs | median {lower_first(metric_name(study))}{unit} | min – max |"
    ]
    lines += ["|---|---|---|---|---|"]
    for v in results["variants"]:
        median, low, high = (digits(v[k], study) for k in ("median", "min", "max"))
        n = len(v["scores"])
        lines += [
            f"| {labels[v['name']]} | {n} | {results['epochs']} | {median} | {low} – {high} |"
        ]
    if results.get("by_seed"):  # reports of earlier versions have none
        lines += ["", _by_seed(results["by_seed"], study)]
    scale = "percentage points" if study.percent else study.quantity
    lines += ["", f"| contrast (difference in {scale}) | n | difference | interval | p | Holm p |"]
    lines += ["|---|---|---|---|---|---|"]
    for c in results["contrasts"]:
        d, low, high = (signed(c[k], study) for k in ("difference", "ci_low", "ci_high"))
        p, p_holm = format_p(c["p"]), format_p(c["p_holm"])
        lines += [f"| {c['label']} | {c['n']} | {d} | {low} to {high} | {p} | {p_holm} |"]
    if (folds := results["folds"]) and "missing" not in folds:
        lines += ["", _beside_published(folds)]
    return "\n".join(lines)


def _by_seed(rows: list[dict], study: Study) -> str:
    """Return the table of runs one by one, with all their scores of the study's metric."""
    names = list(rows[0]["others"])
    quantity = "accuracy (%)" if study.percent else study.quantity
    heads = [study.steps[name] for name in names]
    lines = [f"| {' | '.join(['seed', quantity, 'mistakes', *heads, 'minutes'])} |"]
    lines += ["|---" * (4 + len(names)) + "|"]
    for row in rows:
        others = [published.shown(row["others"][name], study) for name in names]
        mistakes = "–" if row["mistakes"] is None else row["mistakes"]
        cells = [row["seed"], published.shown(row["score"], study), mistakes, *others]
        lines += [f"| {' | '.join(map(str, cells))} | {row['minutes']:.1f} |"]
    return "\n".join(lines)


def _beside_published(folds: dict) -> str:
    """Return the table of the two folds beside the published results."""
    rows = [(f"U-Net, mean of {len(folds['seeds'])} seeds", folds["mean"], folds["sd"])]
    rows += [(f"{m['name']} (2006)", m["mean"], m["sd"]) for m in folds["published"]]
    head = (
        f"| lung fields, Jaccard, {folds['n_images']} images, two folds | mean ± SD |\n|---|---|\n"
    )
    table = "\n".join(f"| {name} | {mean:.3f} ± {sd:.3f} |" for name, mean, sd in rows)
    return f"{head}{table}\n\n(2006): van Ginneken, Stegmann, Loog, Medical Image Analysis 10."


def insert(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between the markers of study ``name``.

    Raises:
        GridError: when the markers are missing.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise GridError(f"no lines {begin.strip()} and {end} to write between")
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n\n" + end + rest.split(end, 1)[1]


def main() -> None:
    """Write a study's figure, table and sentences into README.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="analysis/results/<study>")
    parser.add_argument("readme", type=Path, help="README.md with the study's markers")
    arguments = parser.parse_args()
    try:
        results = json.loads((arguments.folder / "results.json").read_text())
        content = block(arguments.folder, results)
        text = insert(arguments.readme.read_text(), results["study"], content)
        replace_file(arguments.readme, text.encode())
    except (OSError, GridError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
