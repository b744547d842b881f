"""Find the study that was asked for, where its runs are, and the folder of its tables.

If there is no sweep YAML, the sweep is read from the server, or its levels are collected from the
runs, which are then fetched here; it is written to sweep.yaml next to the tables.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from analysis.runs import per_item, selection, wandb_csv, wandb_server
from analysis.runs.collect import collect, is_export
from analysis.runs.declared import NAME as DECLARED
from analysis.runs.record import FetchError
from analysis.runs.tables import NETWORK, read_tables
from lib.spec.declaration import read_declaration
from lib.spec.files import write_atomically
from lib.spec.load import load_study
from lib.spec.study import ROOT, Places, Study
from lib.spec.sweep import read_sweep, same_value

SWEEP = "sweep.yaml"  # next to the tables: the sweep from the server, or collected from the runs
FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RUNS = ROOT / "runs"  # the local agent writes a study's runs here


@dataclass(frozen=True)
class Request:
    """The command-line arguments: sources, filters, and paths of the study's files."""

    sources: Sequence[str]
    sweep: Path | None = None
    declaration: Path | None = None
    out: Path | None = None
    filters: dict[str, Any] = field(default_factory=dict)
    prune: bool = False
    fresh: bool = False


def resolve(asked: Request) -> tuple[Study, list[str | Path], Path]:
    """Return the study, the sources still to be read, and the folder for its tables.

    The first source may be a study's name, whose runs are in runs/<name> and runs/fill_in_<name>,
    or a folder of tables, which leaves no source to read. The configuration of a sweep on a server
    is read from there. Runs without a sweep are fetched here, because the study's levels are
    collected from their configurations.

    Raises:
        StudyError: when the study cannot be found.
        FetchError: when a folder of tables is followed by other sources, a server cannot be read,
            or neither a sweep nor declared factors say what is compared.
    """
    first = asked.sources[0]
    is_tables = (Path(first) / "runs.csv").exists()
    is_name = "/" not in first and not Path(first).is_dir()
    sweep, name = asked.sweep, asked.sweep.stem if asked.sweep else Path(first).name
    if is_tables and sweep is None and (Path(first) / SWEEP).exists():
        sweep = Path(first) / SWEEP
    is_name = is_name and not is_export(first)
    on_server = not is_name and not Path(first).is_dir() and not is_export(first)
    if is_export(first) and sweep is None:
        name = asked.declaration.stem if asked.declaration else Path(first).stem
        return _without_sweep(asked, name, wandb_csv.NOT_SETTINGS)
    if on_server and sweep is None:
        return _from_server(asked, wandb_server.address(first))
    if Path(first).is_dir() and not is_tables and sweep is None:
        own = asked.declaration.stem if asked.declaration else name
        name = name if Places().sweep(name).exists() else own
        if not Places().sweep(name).exists() and not _pools(name, asked.declaration):
            return _without_sweep(asked, name, f"no sweep is known for the runs in {first}")
    study = load_study(name, sweep=sweep, declaration=asked.declaration)
    folder = asked.out or (Path(first) if is_tables else study.places.tables(study.name))
    if is_tables and len(asked.sources) > 1:
        raise FetchError(
            f"{first} contains tables, which cannot be combined with other sources "
            f"({', '.join(asked.sources[1:])}); pass the folders or sweeps that its runs came from"
        )
    if is_tables or is_name:
        source = Path(first) if is_tables else study.places.tables(study.name)
        _copy_tables(source, folder, with_sweep=asked.sweep is None)
    if is_tables:
        return study, [], folder
    if not is_name:
        return study, list(asked.sources), folder
    places = [RUNS / sweep.name for sweep in study.sweeps]
    fill_in = re.compile(rf"fill_in_{re.escape(study.name)}(_\d+)?")
    places += sorted(place for place in RUNS.glob("fill_in_*") if fill_in.fullmatch(place.name))
    places = [place for place in places if (place / "wandb").is_dir()]  # runs have started there
    if not places and not asked.sources[1:] and not (folder / "runs.csv").exists():
        raise FetchError(
            f"no runs of {study.name} in {RUNS}; run `python -m lib.agent {study.name}`, or pass "
            "their folder or sweep as source"
        )
    return study, [*places, *asked.sources[1:]], folder


def _from_server(
    asked: Request, where: wandb_server.Address
) -> tuple[Study, list[str | Path], Path]:
    """Return study, sources and folder for runs on a server, without a local sweep YAML."""
    raw = wandb_server.sweep_config(where) if where.sweep else None
    name = asked.declaration.stem if asked.declaration else where.sweep or where.project
    if raw and isinstance(raw.get("name"), str) and FILE_NAME.fullmatch(raw["name"]):
        name = asked.declaration.stem if asked.declaration else raw["name"]
    folder = asked.out or Places().tables(name)
    here = Places().sweep(name).exists() and asked.out is None
    if here or _pools(name, asked.declaration):
        return load_study(name, declaration=asked.declaration), list(asked.sources), folder
    if raw is not None:
        _require_known_levels(raw, asked.sources[1:])
        _write_sweep(folder, raw, f"The sweep {where.path}, read from the server.")
        study = load_study(name, sweep=folder / SWEEP, declaration=asked.declaration)
        return study, list(asked.sources), folder
    return _without_sweep(asked, name, f"{where.path} is a project, not a sweep")


def _require_known_levels(first: dict[str, Any], others: Sequence[str]) -> None:
    """Raise a FetchError if other sweeps on a server have levels that the first one lacks.

    A fill-in sweep has a part of them.
    """
    levels = read_sweep(first).parameters
    for source in others:
        if Path(source).is_dir() or is_export(source):
            continue
        where = wandb_server.address(source)
        if not where.sweep:
            continue
        for name, values in read_sweep(wandb_server.sweep_config(where)).parameters.items():
            known = levels.get(name, [])
            new = [v for v in values if not any(same_value(v, other) for other in known)]
            if new:
                raise FetchError(
                    f"{source}: {name} = {new[0]!r} is not a level of the first sweep. Pass a YAML "
                    "with the levels of both as --sweep; or pass the project, with --filter "
                    '\'{"sweep": {"$in": ["FIRST", "SECOND"]}}\' and `factors:` in the declaration'
                )


def _pools(name: str, declaration: Path | None) -> bool:
    """Return whether a study's declaration names the sweeps that it pools."""
    path = declaration or Places().declaration(name)
    return path.exists() and bool(read_declaration(path).sweeps)


def _without_sweep(asked: Request, name: str, why: str) -> tuple[Study, list[str | Path], Path]:
    """Fetch runs that have no sweep, and collect the declared keys' levels from them.

    Raises:
        StudyError: when the declaration cannot be used.
        FetchError: when there is no declaration (``why``: what was given instead of a sweep), or
            it does not say what is compared.
    """
    path = asked.declaration or Places().declaration(name)
    if not path.exists():
        not_found = f"{path} not found; " if asked.declaration else ""
        raise FetchError(
            f"{not_found}{why}. Pass the sweep's YAML as --sweep, or a declaration that has "
            "`metric:` and `factors:` as --study (and select runs with --filter); see "
            "docs/own-study.md"
        )
    folder = asked.out or Places().tables(name)
    declared = read_declaration(path)
    settings = selection.settings_of(declared)
    if not settings and any(map(is_export, asked.sources)):
        raise FetchError(f"{why}. Add `factors:` or `arms:` to {path}")
    collected = collect(
        asked.sources,
        folder,
        None,
        asked.prune,
        asked.filters,
        declared.step,
        [*settings, *declared.free],
        asked.fresh,
    )
    print(collected)
    runs, _ = read_tables(folder)
    _write_sweep(folder, selection.sweep_of(runs, declared), "Levels of the fetched runs.")
    return load_study(name, sweep=folder / SWEEP, declaration=path), [], folder


def _write_sweep(folder: Path, raw: dict[str, Any], about: str) -> None:
    text = f"# {about}\n" + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    write_atomically(folder / SWEEP, text.encode())


def _copy_tables(source: Path, folder: Path, with_sweep: bool) -> None:
    """Copy the tables of ``source``, and what belongs to them, unless ``folder`` has tables.

    ``with_sweep``: also the sweep next to them, if ``folder`` has none.
    """
    if (folder / "runs.csv").exists() or not (source / "runs.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sweep = (SWEEP,) if with_sweep and not (folder / SWEEP).exists() else ()
    for name in (*sweep, DECLARED, *NETWORK, "history.csv", per_item.NAME, "runs.csv"):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
