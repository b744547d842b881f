"""Write fill-in sweeps: grids of exactly the variants and seeds that are missing from a study.

A W&B grid sweep does not rerun crashed runs, so they need a new sweep. The report reads the runs of
both sweeps together: `python -m analysis.report FIRST FILL_IN --sweep …`.
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
# Variants and seeds of {name} without a finished run: {runs}. To report both sweeps together:
#   python -m analysis.report SOURCE_OF_{name} SOURCE_OF_THIS --sweep {path} --out {folder}
# With the local agent, running the first sweep again is enough: it runs what is missing.
"""
NOT_RERUN = ("duplicate", "finished", "diverged")  # states that another run would not fix


def grids(data: StudyData) -> list[dict[str, list[Any]]]:
    """Return grids (name -> values) whose combinations are exactly the variants and seeds to run.

    Variants with the same missing seeds share one grid if they are a full product of levels;
    otherwise each variant gets its own grid.
    """
    study, missing_seeds = data.study, {}
    for (block, variant, seed), entry in zip(
        study.expected, data.completeness.entries, strict=True
    ):
        if entry.state not in NOT_RERUN:
            config = study.configs[variant] | block
            missing_seeds.setdefault(tuple(config.items()), []).append(seed)
    by_seeds: dict[tuple, list[tuple]] = {}
    for config, seeds in missing_seeds.items():
        by_seeds.setdefault(tuple(seeds), []).append(config)
    parts = []
    for seeds, group in by_seeds.items():
        configs = [dict(config) for config in group]
        levels = {key: list(dict.fromkeys(c[key] for c in configs)) for key in configs[0]}
        is_product = len(configs) == len(list(itertools.product(*levels.values())))
        products = [levels] if is_product else [{k: [v] for k, v in c.items()} for c in configs]
        parts += [product | {study.declaration.replicate: list(seeds)} for product in products]
    return parts


def more_repeats(data: StudyData) -> str:
    """Return how many more runs each variant needs, if replicates are repeats; otherwise empty."""
    study, needed = data.study, Counter()
    if not study.declaration.repeats:
        return ""
    for (_, variant, _), entry in zip(study.expected, data.completeness.entries, strict=True):
        needed[variant] += entry.state not in NOT_RERUN
    parts = [f"{study.variant_name(v)}: {number} more" for v, number in needed.items() if number]
    return ", ".join(parts)


def write(data: StudyData) -> list[Path]:
    """Write fill_in_<study>.yaml, fill_in_<study>_2.yaml, …; return their paths.

    Fill-in sweeps of earlier calls are removed. The names contain the study's name, so that the
    runs of two studies do not share a folder.
    """
    folder, study = data.folder, data.study
    for old in folder.glob("fill_in*.yaml"):
        old.unlink()
    written: list[Path] = []
    if study.declaration.repeats or any(sweep.method != "grid" for sweep in study.sweeps):
        return written  # a grid cannot express these runs
    if not {"program", "command"} & set(study.sweeps[0].raw):
        return written  # levels collected from the runs: nothing says how to start one
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
