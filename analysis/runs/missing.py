"""Write the sweeps that fill a study's gaps: grids of exactly the cells and seeds that lack a run.

W&B's grid does not repeat runs that crashed; a sweep of its own does. Its runs are read beside the
first sweep's: `python -m analysis.fetch FIRST FILL_IN --sweep …` takes several sources.
"""

import itertools
from pathlib import Path
from typing import Any

import yaml

from analysis.grid import SEED, Sweep
from analysis.runs.completeness import Ledger
from analysis.runs.tables import replace_file

HEADER = """\
# The cells and seeds that {name} lacks: {runs} run(s). Then fetch both sweeps together:
#   python -m analysis.fetch SOURCE_OF_{name} SOURCE_OF_THIS --sweep {path} --out {folder}
# On one machine the first sweep's own command is enough: it runs what is missing.
"""
UNUSABLE = ("duplicate", "finished", "diverged")  # a further run would not mend these


def grids(sweep: Sweep, ledger: Ledger) -> list[dict[str, list[Any]]]:
    """Return grids (name -> values) whose combinations are exactly the cells and seeds to run.

    One grid for all cells that lack the same seeds where those cells are a full product, else one
    for each of them.
    """
    lacking: dict[tuple, list[int]] = {}
    for entry in ledger.entries:
        if entry.state not in UNUSABLE:
            lacking.setdefault(entry.cell, []).append(entry.seed)
    by_seeds: dict[tuple, list[tuple]] = {}
    for cell, seeds in lacking.items():
        by_seeds.setdefault(tuple(seeds), []).append(cell)
    found = []
    for seeds, cells in by_seeds.items():
        levels = [list(dict.fromkeys(column)) for column in zip(*cells, strict=True)]
        whole = len(cells) == len(list(itertools.product(*levels)))
        for part in [levels] if whole else [[[level] for level in cell] for cell in cells]:
            found.append(dict(zip(sweep.factors, part, strict=True)) | {SEED: list(seeds)})
    return found


def write(folder: Path, path: Path, sweep: Sweep, ledger: Ledger) -> list[Path]:
    """Write fill_in.yaml, fill_in_2.yaml, … into ``folder`` and return them; remove older ones.

    ``path``: the sweep's YAML, of which they repeat everything but the values.
    """
    for old in folder.glob("fill_in*.yaml"):
        old.unlink()
    written = []
    for grid in grids(sweep, ledger):
        raw = yaml.safe_load(path.read_text())
        raw["parameters"] |= {name: {"values": values} for name, values in grid.items()}
        runs = 1
        for values in grid.values():
            runs *= len(values)
        head = HEADER.format(name=sweep.name, runs=runs, path=path, folder=folder)
        body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
        suffix = f"_{len(written) + 1}" if written else ""
        written.append(folder / f"fill_in{suffix}.yaml")
        replace_file(written[-1], (head + body).encode())
    return written
