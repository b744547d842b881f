"""Write what people read: figures, results.json, the report as Markdown and HTML, LaTeX tables."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from analysis.figures import networks, style
from analysis.figures.catalogue import Drawn
from analysis.grid import RULES, Study, Sweep
from analysis.runs.tables import replace_file
from analysis.statistics import grades, published

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"  # folder beside the tables
KINDS = ("png", "pdf", "json")
PAGES = ("report.md", "report.html", "tables.tex")
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


def save(folder: Path, name: str, drawn: Drawn, origin: dict[str, Any]) -> None:
    """Write a figure's .png and .pdf and, beside them, .json: its caption and what is behind it."""
    style.save(drawn.figure, folder, name)
    sidecar = {"figure": name, "caption": drawn.caption, "runs": drawn.runs}
    replace_file(folder / f"{name}.json", _json(sidecar | (drawn.provenance or origin)))


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
        files = [folder / FIGURES / f"{name}.{kind}" for kind in KINDS]
        if one.figure is not None:
            save(folder / FIGURES, name, one, {"study": sweep.name, **results["provenance"]})
        elif earlier.get(name) != one.caption or not all(path.exists() for path in files):
            print(f"{name} left out: what the runs saved is not in files/; fetch again from them")
            continue
        data = base64.b64encode(files[0].read_bytes()).decode()
        pictures.append({"name": name, "caption": one.caption, "data": data})
        pictures[-1]["explained"] = one.explained
    results = results | {"captions": {p["name"]: p["caption"] for p in pictures}}
    pages, described = {"results.json": _json(results)}, networks.described(folder)
    for name in PAGES:
        template = _environment(study, name).get_template(f"{name}.j2")
        variables = _variables(results, pictures, study, sweep) | {"networks": described}
        words = _environment(study, "optimizers.txt").get_template("optimizers.txt")
        variables["optimizers"] = words.render(variables).splitlines()
        pages[name] = template.render(variables).encode()
    for name, page in pages.items():  # all of them, or none
        replace_file(folder / name, page)
    for name in set(earlier) - set(results["captions"]):
        for kind in KINDS:
            (folder / FIGURES / f"{name}.{kind}").unlink(missing_ok=True)


def _variables(
    results: dict[str, Any], pictures: list[dict[str, str]], study: Study, sweep: Sweep
) -> dict[str, Any]:
    """Return what the templates may use."""
    return {
        "r": results,
        "pictures": pictures,
        "metric_name": style.metric_name(study),
        "unit": "%" if study.percent else "",
        "difference_unit": "percentage points" if study.percent else "",
        "rules": RULES,
        "grades": grades.GRADES,
        "words": study.level_label,
        "step_words": study.steps,
        "data_source": study.data_source,
        "labels": {sweep.label(cell): style.cell_label(sweep, study, cell) for cell in sweep.cells},
    }


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
        "p": grades.format_p,
        "score": lambda v: grades.digits(v, study),
        "quoted": lambda v: published.shown(v, study),
        "own_unit": lambda v: f"{v:+.4g}".replace("-", "−"),
        "signed": lambda v: grades.signed(v, study),
        "cell": lambda text: str(text).replace("|", "\\|").replace("<", "&lt;"),
        "lower_first": style.lower_first,
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
