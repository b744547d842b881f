"""Write what people read: figures, results.json, the report as Markdown and HTML, LaTeX tables."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from analysis import plotting, statement
from analysis.drawing import Drawn
from analysis.grid import RULES, Study, Sweep
from analysis.tables import replace_file

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"  # folder beside the tables
KINDS = ("png", "pdf", "json")
TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
}


def save(folder: Path, name: str, drawn: Drawn, provenance: dict[str, Any]) -> None:
    """Write a figure's .png and .pdf and, beside them, .json: its caption and what is behind it."""
    if drawn.figure is not None:
        plotting.save(drawn.figure, folder, name)
    sidecar = {"figure": name, "caption": drawn.caption, "runs": drawn.runs, **provenance}
    replace_file(folder / f"{name}.json", _json(sidecar))


def write(
    folder: Path, results: dict[str, Any], drawn: dict[str, Drawn], study: Study, sweep: Sweep
) -> None:
    """Write figures, results.json, report.md, report.html, tables.tex; equal input, equal files.

    ``drawn``: by file name. Where a figure is None, the one that stands in the folder is kept if it
    has the same caption, which names the runs behind it; else it is left out. Figures of an earlier
    report that this one does not have are removed.
    """
    pictures, earlier = [], _earlier_captions(folder)
    for name, one in drawn.items():
        path = folder / FIGURES / f"{name}.png"
        if one.figure is None and (earlier.get(name) != one.caption or not path.exists()):
            print(f"{name} left out: what the runs saved is not in files/; fetch again from them")
            continue
        save(folder / FIGURES, name, one, {"study": sweep.name, **results["provenance"]})
        data = base64.b64encode(path.read_bytes()).decode()
        pictures.append({"name": name, "caption": one.caption, "data": data})
    shown = {f"{p['name']}.{kind}" for p in pictures for kind in KINDS}
    for path in (folder / FIGURES).glob("fig*"):
        if path.name not in shown:
            path.unlink()
    results = results | {"captions": {p["name"]: p["caption"] for p in pictures}}
    replace_file(folder / "results.json", _json(results))
    variables = {
        "r": results,
        "pictures": pictures,
        "unit": "%" if study.percent else "",
        "difference_unit": "percentage points" if study.percent else "",
        "rules": RULES,
        "grades": statement.GRADES,
        "words": study.level_label,
        "labels": {sweep.label(c): plotting.cell_label(sweep, study, c) for c in sweep.cells},
    }
    for name in ("report.md", "report.html", "tables.tex"):
        page = _environment(study, name).get_template(f"{name}.j2").render(variables)
        replace_file(folder / name, page.encode())


def _environment(study: Study, name: str) -> jinja2.Environment:
    """Return Jinja2 with our number formats; for LaTeX, whose braces are taken, with << and <%."""
    tex = name.endswith(".tex")
    marks = {}
    if tex:
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
    environment.filters |= {
        "p": statement.format_p,
        "score": lambda v: f"{100 * v:.2f}" if study.percent else f"{v:.4f}",
        "own_unit": lambda v: f"{v:+.4g}",
        "signed": lambda v: (f"{100 * v:+.2f}" if study.percent else f"{v:+.4f}").replace("-", "−"),
        "tex": lambda text: "".join(TEX.get(c, c) for c in str(text)),
    }
    return environment


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _earlier_captions(folder: Path) -> dict[str, str]:
    """Return the captions of the report that stands here: they name the runs behind a figure."""
    try:
        return json.loads((folder / "results.json").read_text())["captions"]
    except (OSError, ValueError, KeyError):
        return {}
