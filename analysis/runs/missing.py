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
from lib.spec.study import Study
from lib.spec.sweep import Sweep, same_value
from lib.spec.words import count

HEADER = """\
# Variants and seeds of {name} without a finished run: {runs}. To report both sweeps together:
#   python -m analysis.report SOURCE_OF_{name} SOURCE_OF_THIS --sweep {path} --out {folder}
# With the local agent, running the first sweep again is enough: it runs what is missing.
"""
NOT_RERUN = ("duplicate", "finished", "diverged")  # states that another run would not fix


def grids(data: StudyData) -> list[tuple[Sweep, dict[str, list[Any]]]]:
    """Return grids (name -> values) whose combinations are exactly the variants and seeds to run.

    Each with the sweep that it belongs to. Variants with the same missing seeds share one grid if
    they are a full product of levels; otherwise each variant gets its own grid.
    """
    study, missing_seeds, seed = data.study, {}, data.study.declaration.replicate
    for (block, variant, one), entry in zip(study.expected, data.completeness.entries, strict=True):
        if entry.state not in NOT_RERUN:
            config = study.configs[variant] | block
            of = _sweep_of(study, config, {seed: one})
            missing_seeds.setdefault((of, tuple(config.items())), []).append(one)
    by_seeds: dict[tuple, list[tuple]] = {}
    for (of, config), seeds in missing_seeds.items():
        by_seeds.setdefault((of, tuple(seeds)), []).append(config)
    parts = []
    for (of, seeds), group in by_seeds.items():
        configs = [dict(config) for config in group]
        levels = {key: list(dict.fromkeys(c[key] for c in configs)) for key in configs[0]}
        is_product = len(configs) == len(list(itertools.product(*levels.values())))
        products = [levels] if is_product else [{k: [v] for k, v in c.items()} for c in configs]
        parts += [(study.sweeps[of], product | {seed: list(seeds)}) for product in products]
    return parts


def _sweep_of(study: Study, config: dict[str, Any], seed: dict[str, Any]) -> int:
    """Return the index of the sweep that plans a variant, if possible with this seed; else 0."""
    for wanted in (config | seed, config):
        for i, sweep in enumerate(study.sweeps):
            if all(
                any(same_value(value, level) for level in sweep.parameters.get(name, []))
                for name, value in wanted.items()
            ):
                return i
    return 0


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
    for sweep, grid in grids(data):
        values = {**sweep.parameters, **grid}
        raw = sweep.raw | {"parameters": _as_written(sweep.raw.get("parameters", {}), values)}
        suffix = f"_{len(written) + 1}" if written else ""
        raw["name"] = f"fill_in_{study.name}{suffix}"
        runs = 1
        for levels in grid.values():
            runs *= len(levels)
        head = HEADER.format(
            name=study.name, runs=count(runs, "run"), path=sweep.where, folder=folder
        )
        body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
        written.append(folder / f"{raw['name']}.yaml")
        write_atomically(written[-1], (head + body).encode())
    return written


def _as_written(
    parameters: dict[str, Any], values: dict[str, list[Any]], prefix: str = ""
) -> dict[str, Any]:
    """Return a sweep's ``parameters:`` with other ``values``, nested as they were written.

    Names that the sweep does not have are added as they are.
    """
    written, left = {}, dict(values)
    for key, parameter in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(parameter, dict) and "parameters" in parameter:
            inner = {n: v for n, v in values.items() if n.startswith(f"{name}.")}
            inner = {"parameters": _as_written(parameter["parameters"], inner, f"{name}.")}
            left = {n: v for n, v in left.items() if not n.startswith(f"{name}.")}
            written[key] = inner
        elif name in left:
            levels = left.pop(name)
            single = len(levels) == 1 and not isinstance(levels[0], list | tuple)
            written[key] = {"value": levels[0]} if single else {"values": levels}
    if left:
        written |= _as_written({name: {} for name in left}, left)
    return written
