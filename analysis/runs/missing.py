"""Write the sweeps that fill a study's gaps: grids of exactly the variants and seeds without a run.

W&B's grid does not repeat runs that crashed; a sweep of its own does. Its runs are read together
with the first sweep's: `python -m analysis.report FIRST FILL_IN --sweep …` takes several sources.
"""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from analysis.runs.data import StudyData
from lib.spec.files import write_atomically
from lib.spec.metric import count

HEADER = """\
# The variants and seeds that {name} has no finished run of: {runs}. Then report both together:
#   python -m analysis.report SOURCE_OF_{name} SOURCE_OF_THIS --sweep {path} --out {folder}
# On one machine the first sweep's own command is enough: it runs what is missing.
"""
UNUSABLE = ("duplicate", "finished", "diverged")  # a further run would not mend these


def grids(data: StudyData) -> list[dict[str, list[Any]]]:
    """Return grids (name -> values) whose combinations are exactly the variants and seeds to run.

    Variants that lack the same seeds share one grid if they are a full product of levels; else each
    gets its own.
    """
    study, lacking = data.study, {}
    for (block, variant, seed), entry in zip(
        study.expected, data.completeness.entries, strict=True
    ):
        if entry.state not in UNUSABLE:
            config = study.configs[variant] | block
            lacking.setdefault(tuple(config.items()), []).append(seed)
    by_seeds: dict[tuple, list[tuple]] = {}
    for config, seeds in lacking.items():
        by_seeds.setdefault(tuple(seeds), []).append(config)
    found = []
    for seeds, group in by_seeds.items():
        configs = [dict(config) for config in group]
        levels = {key: list(dict.fromkeys(c[key] for c in configs)) for key in configs[0]}
        whole = len(configs) == len(list(itertools.product(*levels.values())))
        parts = [levels] if whole else [{k: [v] for k, v in c.items()} for c in configs]
        found += [part | {study.declaration.replicate: list(seeds)} for part in parts]
    return found


def more_repeats(data: StudyData) -> str:
    """Say how many more runs each variant needs, where replicates are repeats and no sweep can."""
    study, lacking = data.study, Counter()
    if not study.declaration.repeats:
        return ""
    for (_, variant, _), entry in zip(study.expected, data.completeness.entries, strict=True):
        lacking[variant] += entry.state not in UNUSABLE
    words = [f"{study.variant_name(v)}: {number} more" for v, number in lacking.items() if number]
    return ", ".join(words)


def write(data: StudyData) -> list[Path]:
    """Write fill_in_<study>.yaml, fill_in_<study>_2.yaml, …; return them; remove older ones.

    Each carries the study's name, so that the runs of two studies do not share a folder.
    """
    folder, study = data.folder, data.study
    for old in folder.glob("fill_in*.yaml"):
        old.unlink()
    written: list[Path] = []
    if study.declaration.repeats or any(sweep.method != "grid" for sweep in study.sweeps):
        return written  # more of the same runs are to be made, which no grid can say
    for grid in grids(data):
        raw = dict(study.sweeps[0].raw)
        parameters = {n: {"values": v} for n, v in study.sweeps[0].parameters.items()}
        parameters |= {name: {"values": values} for name, values in grid.items()}
        raw["parameters"] = {
            name: {"value": p["values"][0]} if _one_scalar(p["values"]) else p
            for name, p in parameters.items()
        }
        suffix = f"_{len(written) + 1}" if written else ""
        raw["name"] = f"fill_in_{study.name}{suffix}"
        runs = 1
        for values in grid.values():
            runs *= len(values)
        head = HEADER.format(
            name=study.name, runs=count(runs, "run"), path=study.sweeps[0].where, folder=folder
        )
        body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
        written.append(folder / f"{raw['name']}.yaml")
        write_atomically(written[-1], (head + body).encode())
    return written


def _one_scalar(values: list[Any]) -> bool:
    return len(values) == 1 and not isinstance(values[0], list)
