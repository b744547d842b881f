"""Find a study's files by its name, and the studies that a run belongs to."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.spec.build import build_study
from lib.spec.declaration import StudyError, read_declaration, study_hash
from lib.spec.errors import UserError
from lib.spec.study import Places, Study
from lib.spec.sweep import Sweep, flat, read_sweep, same_value


def load_study(
    name: str,
    places: Places | None = None,
    sweep: Path | None = None,
    declaration: Path | None = None,
) -> Study:
    """Return the study ``name`` from its sweeps and declaration in ``places``.

    ``sweep`` and ``declaration`` are paths of YAML files to use instead.

    Raises:
        StudyError: if a file is missing, has an unknown key or wrong value, or files contradict
            each other.
        SweepError: if a sweep cannot be used.
    """
    places = places or Places()
    path = declaration or places.declaration(name)
    if declaration is not None and not path.exists():
        raise StudyError(f"{path} not found; --study must be the path of a declaration's YAML file")
    declared = read_declaration(path) if path.exists() else None
    if sweep is not None and declared and len(declared.sweeps or []) > 1:
        raise StudyError(
            f"--sweep {sweep} cannot be used with {path}, which pools the sweeps "
            f"{', '.join(declared.sweeps)}. Run the command without --sweep"
        )
    paths = [sweep or places.sweep(n) for n in (declared and declared.sweeps) or [name]]
    if missing := [str(p) for p in paths if not p.exists()]:
        raise StudyError(
            f"{not_found(missing, name, places)} (--sweep). Runs on a server are found as "
            f"entity/project/{name} if that is a sweep's id, entity/{name} if it is a project"
        )
    return build_study(name, [read_sweep(p) for p in paths], declared, places, path)


def not_found(missing: Sequence[str], name: str, places: Places) -> str:
    """Return the message about ``missing`` sweep files of ``name``, with similar names."""
    names = [p.stem for p in places.sweeps.glob("*.yaml")]
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"sweep not found: {', '.join(missing)}.{hint} Give the name of a sweep in "
        f"{places.sweeps}/ or the path of its YAML file"
    )


def varied(sweeps: Sequence[Sweep]) -> dict[str, list[Any]]:
    """Return the values of all parameters with more than one value over all sweeps, by name."""
    union: dict[str, list[Any]] = {}
    for sweep in sweeps:
        for name, values in sweep.parameters.items():
            known = union.setdefault(name, [])
            known += [v for v in values if not any(same_value(v, k) for k in known)]
    return {name: values for name, values in union.items() if len(values) > 1}


def hashes_of(program: str, config: dict[str, Any], places: Places | None = None) -> str:
    """Return the hashes of the declared studies that a run belongs to, as "name:hash name:hash".

    A run belongs to a study if one of the study's sweeps has the same program and includes the
    run's value of each of its parameters. Declarations and sweeps that cannot be read are skipped,
    because they should not stop a run. ``config`` may be nested.
    """
    config, _ = flat(config)
    places, hashes = places or Places(), []
    for path in sorted(places.studies.glob("*.yaml")):
        try:
            declared = read_declaration(path)
            sweeps = [read_sweep(places.sweep(n)) for n in declared.sweeps or [path.stem]]
        except UserError:
            continue
        if any(_belongs(program, config, sweep) for sweep in sweeps):
            hashes.append(f"{path.stem}:{study_hash(declared, varied(sweeps))}")
    return " ".join(hashes)


def _belongs(program: str, config: dict[str, Any], sweep: Sweep) -> bool:
    return Path(sweep.program).name == Path(program).name and all(
        name in config and any(same_value(config[name], value) for value in values)
        for name, values in sweep.parameters.items()
    )
