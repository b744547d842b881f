"""Write what people read: figures, results.json, and the report as Markdown and HTML."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from analysis import plotting, statement
from analysis.grid import RULES, Study, Sweep
from analysis.tables import replace_file

TEMPLATES = Path(__file__).parent / "templates"


def write(folder: Path, results: dict[str, Any], drawn: dict, study: Study, sweep: Sweep) -> None:
    """Write figures, results.json, report.md and report.html; equal input gives equal files.

    ``drawn``: file name -> (figure, caption). Where the figure is None, the one that stands in the
    folder is kept if it has the same caption, which names the runs behind it; else it is left out.
    """
    pictures, earlier = [], _earlier_captions(folder)
    for name, (figure, caption) in drawn.items():
        if figure is not None:
            plotting.save(figure, folder / "figures", name)
        elif earlier.get(name) != caption or not (folder / "figures" / f"{name}.png").exists():
            print(f"{name} left out: what the runs saved is not in files/; fetch again from them")
            continue
        data = base64.b64encode((folder / "figures" / f"{name}.png").read_bytes()).decode()
        pictures.append({"name": name, "caption": caption, "data": data})
    results = results | {"captions": {p["name"]: p["caption"] for p in pictures}}
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    replace_file(folder / "results.json", text.encode())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "p": statement.format_p,
        "score": lambda v: f"{100 * v:.2f}" if study.percent else f"{v:.4f}",
        "own_unit": lambda v: f"{v:+.4g}",
        "signed": lambda v: f"{100 * v:+.2f}" if study.percent else f"{v:+.4f}",
    }
    variables = {
        "r": results,
        "pictures": pictures,
        "unit": "%" if study.percent else "",
        "difference_unit": "percentage points" if study.percent else "",
        "rules": RULES,
        "grades": statement.GRADES,
        "words": study.level_label,
        "labels": {
            sweep.label(cell): ", ".join(
                study.level_label(n, v) for n, v in zip(sweep.factors, cell, strict=True)
            )
            for cell in sweep.cells
        },
    }
    for name in ("report.md", "report.html"):
        page = environment.get_template(f"{name}.j2").render(variables)
        replace_file(folder / name, page.encode())


def _earlier_captions(folder: Path) -> dict[str, str]:
    """Return the captions of the report that stands here: they name the runs behind a figure."""
    try:
        return json.loads((folder / "results.json").read_text())["captions"]
    except (OSError, ValueError, KeyError):
        return {}
