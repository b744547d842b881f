"""Write a report: figures, results.json, pages in Markdown and HTML, and LaTeX tables."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import jinja2

from analysis.figures import style
from analysis.figures.picture import Picture
from analysis.pages import formats, methods_text, scope_text, tables
from analysis.pages.sections import chapters, sections, sections_after_figures
from analysis.runs import recipe
from analysis.runs.data import StudyData, unused_items
from analysis.statistics.notes import PLANNED
from lib.spec.files import write_all, write_atomically
from lib.spec.words import count

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"  # folder next to the tables
KINDS = ("png", "pdf", "json")
PAGES = ("report.md", "report.html", "tables.tex")


def save(folder: Path, picture: Picture, origin: dict[str, Any]) -> bool:
    """Write a figure as .png and .pdf, and its caption, runs and provenance as .json.

    Returns whether the figure could be drawn.
    """
    figure = picture.draw()
    if figure is None:
        return False
    style.save(figure, folder, picture.name)
    sidecar = {"figure": picture.name, "caption": picture.caption, "runs": picture.runs}
    content = _json(sidecar | (picture.provenance or origin))
    write_atomically(folder / f"{picture.name}.json", content)
    return True


def write(
    data: StudyData, results: dict[str, Any], pictures: list[Picture], draw: bool = True
) -> None:
    """Write figures, results.json, report.md, report.html and tables.tex, deterministically.

    If a figure cannot be drawn, an existing file is kept if its caption, which names its runs, is
    unchanged; otherwise the figure is skipped. Figures of an earlier report that this one does not
    have are removed. ``draw``: False keeps all existing figures and draws none.
    """
    folder, shown = data.folder, []
    earlier = _earlier_captions(folder)
    origin = {"study": data.study.name, **results["provenance"]}
    for picture in pictures:
        files = [folder / FIGURES / f"{picture.name}.{kind}" for kind in KINDS]
        if not (draw and save(folder / FIGURES, picture, origin)):
            same = earlier.get(picture.name) == picture.caption
            if not same or not all(path.exists() for path in files):
                if not draw:
                    continue
                print(f"{picture.name} skipped: files of its runs are missing; fetch them again")
                continue
        encoded = base64.b64encode(files[0].read_bytes()).decode()
        shown.append({"picture": picture, "data": encoded, "number": len(shown) + 1})
    captions = {one["picture"].name: one["picture"].caption for one in shown}
    results = results | {"captions": captions}
    variables = {
        "r": results,
        "study": data.study,
        "pictures": shown,
        "headline": next((one for one in shown if one["picture"].name == "overview"), None),
        "chapters": chapters,
        "planned": PLANNED,
        "before": sections(data, results),
        "after": sections_after_figures(data, results),
        "lead": scope_text.lead(data, results),
        "head": head(data, results),
        "for_papers": methods_text.for_papers(data, results),
        "secondary": methods_text.secondary(results) if results["secondary"] else "",
        "tables": tables,
        "formats": formats,
    }
    pages = {"results.json": _json(results)}
    for name in PAGES:
        template = _environment(name).get_template(f"{name}.j2")
        pages[name] = template.render(variables).encode()
    write_all({folder / name: page for name, page in pages.items()})
    for name in set(earlier) - set(captions) if draw else ():
        for kind in KINDS:
            (folder / FIGURES / f"{name}.{kind}").unlink(missing_ok=True)


def head(data: StudyData, results: dict[str, Any]) -> list[str]:
    """Return the paragraphs below the statements: failed runs, other exceptions, and the score."""
    words = []
    if failed := results["failures"]:
        fail = "run failed" if len(failed) == 1 else "runs failed"
        listed = ", ".join(f"{run} ({why})" for run, why in failed.items())
        words.append(
            f"{len(failed)} {fail}: {listed}. Tests over all runs rank "
            f"{'it' if len(failed) == 1 else 'them'} as worst; estimates and intervals exclude "
            f"{results['unit']}s with a failed run."
        )
    words += [f"Not included: {reason}." for reason in results["repeated"]]
    study = data.study
    words.append(
        f"The score of a run is its `{study.metric.key}` ({study.rule_words}); "
        f"{study.metric.better} is better. "
        f"{count(results['n_seeds'], results['unit'])} per variant, {results['budget']}."
    )
    included = [run for run in data.replaced if run in data.run_ids]
    if included and study.rule == "last":
        words.append(
            f"In {count(len(included), 'run')} the summary has the best `{study.logged.key}` of "
            "the history, not the last. The score is the last one: the best of many is too good "
            "by chance."
        )
    unlike = [run for run in data.unlike_last if run in data.run_ids]
    if unlike and study.rule == "last":
        words.append(
            f"In {count(len(unlike), 'run')} the summary has another `{study.logged.key}` than the "
            "last one in the history. The score is the one in the summary, as of a final test."
        )
    if study.names_best:
        words.append(
            f"The name `{study.metric.key}` suggests the best of several evaluations. If the epoch "
            "was chosen by this score itself, the score is too good by chance."
        )
    if unchecked := recipe.unchecked(study, data.included):
        words.append(unchecked)
    words += [text for text in (results["look"], results["declaration"]) if text]
    if reason := unused_items(data):
        words.append(reason)
    return words


def _environment(name: str) -> jinja2.Environment:
    """Return Jinja2 with our filters; LaTeX templates use << and <%, since LaTeX needs braces."""
    marks = {}
    if name.endswith(".tex"):
        marks = {"variable_start_string": "<<", "variable_end_string": ">>"}
        marks |= {"block_start_string": "<%", "block_end_string": "%>"}
        marks |= {"comment_start_string": "<#", "comment_end_string": "#>"}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        **marks,
    )
    environment.tests["starts"] = str.startswith
    environment.filters |= {
        "tex": formats.tex,
        "plain": formats.plain,
        "inline": inline_html,
        "lower_first": style.lower_first,
        "slug": lambda text: re.sub(r"[^A-Za-z0-9-]+", "-", str(text)),
        "grade": lambda text: text.replace("_", " "),
    }
    return environment


def inline_html(text: str) -> str:
    """Return a paragraph as HTML: escaped, with `code` between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _earlier_captions(folder: Path) -> dict[str, str]:
    """Return the captions of the existing report in the folder; they name each figure's runs."""
    try:
        return json.loads((folder / "results.json").read_text())["captions"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
