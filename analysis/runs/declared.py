"""Was the study declared before its runs? By the hash that runs log, else by the code's history."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from analysis.runs.tables import SUMMARY, is_missing
from lib.spec.declaration import DECLARING, declaring, study_hash
from lib.spec.errors import UserError
from lib.spec.files import write_atomically
from lib.spec.metric import count
from lib.spec.study import ROOT, Study, varied
from lib.spec.sweep import read_sweep, show_value

NAME = "declared_at_runs.json"  # next to the tables: the declaring keys at the runs' commits
KEY = "study_sha256"  # summary key; "name:hash name:hash", as a run may belong to several studies
COMMIT = re.compile(r"[0-9a-f]{40}")
EARLIER = {"score_rule": "score", "family": "primary", "references": "published_scores"}
EARLIER_GOALS = {"lower": "minimize", "higher": "maximize"}  # as `direction:` said it


def record(study: Study, folder: Path, runs: Any) -> None:
    """Write what git says of the declaration at the commits of runs that logged no hash.

    Commits that are known from an earlier call, or that git does not have, stay as they are.
    """
    logged = [value for value in _values(runs, KEY) if _logged(study, value)]
    if not study.declared or len(logged) == len(runs):
        return
    known = read(folder)
    found = {
        commit: keys
        for commit in sorted({str(value)[:40] for value in _values(runs, "git_commit")})
        if COMMIT.fullmatch(commit) and commit not in known
        if (keys := _at_commit(study, commit)) is not None
    }
    if found:
        text = json.dumps(known | found, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(folder / NAME, f"{text}\n".encode())


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the declaring keys by commit, as recorded; empty where nothing was or can be read."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def verdict(study: Study, folder: Path, runs: Any) -> tuple[bool, str]:
    """Return whether the study was declared before its runs, and how that is known, in words."""
    if not study.declared:
        return False, "Exploratory: nothing was declared."
    number = len(runs)
    logged = [_logged(study, value) for value in _values(runs, KEY)]
    logged += [""] * (number - len(logged))
    own = study_hash(study.declaration, varied(study.sweeps))
    if all(value == own for value in logged):
        return True, (
            f"Declared before the runs: all {number} logged the hash of the declaring keys as they "
            f"are now, {own}."
        )
    if other := sum(value not in ("", own) for value in logged):
        return False, (
            f"Exploratory: {count(other, 'run')} logged another hash of this study than the "
            f"declaring keys and the sweep's levels and seeds have now, {own}: something was "
            "changed after the runs."
        )
    at_runs = read(folder)
    silent = runs[[value == "" for value in _aligned(study, runs)]]
    commits = [str(value) for value in _values(silent, "git_commit")]
    base = {commit[:40] for commit in commits}
    if not base or len(commits) < len(silent) or not base <= set(at_runs):
        return False, (
            "Exploratory: whether the declaration is as it was before the runs is not known, since "
            f"{count(len(silent), 'run')} logged no hash of it and no record of the code's history "
            "says."
        )
    changed = sorted({text for commit in base for text in _changes(study, at_runs[commit])})
    where = "commit " + ", ".join(commit[:8] for commit in sorted(base))
    if changed:
        return False, (
            f"Exploratory: the declaration has changed since the runs ({where}): "
            f"{'; '.join(changed)}."
        )
    dirty = any(commit.endswith("-dirty") for commit in commits)
    unless = ", but files were changed and not committed then" if dirty else ""
    shown = set(declaring(study.declaration)).union(*(at_runs[commit] for commit in base))
    keys = ", ".join(sorted(shown - {"goal", "varied"}))
    return not dirty, (
        f"Declared before the runs, by the code's history: {count(len(silent), 'run')} logged no "
        f"hash, and at their {where} the declaring keys ({keys}) and the sweep's levels and seeds "
        f"were the same{unless}."
    )


def _aligned(study: Study, runs: Any) -> list[str]:
    """Return the hash that each run logged for this study, or nothing, in the order of the runs."""
    column = SUMMARY + KEY
    if column not in runs:
        return [""] * len(runs)
    return ["" if is_missing(value) else _logged(study, value) for value in runs[column]]


def _values(runs: Any, key: str) -> list[Any]:
    column = SUMMARY + key
    return [] if column not in runs else [v for v in runs[column] if not is_missing(v) and v]


def _logged(study: Study, value: Any) -> str:
    """Return the hash that a run logged for this study, or nothing."""
    pairs = dict(part.split(":", 1) for part in str(value).split() if ":" in part)
    return pairs.get(study.name, "")


def _at_commit(study: Study, commit: str) -> dict[str, Any] | None:
    """Return the declaring keys of the study's file at a commit, empty where there was none.

    None where git or the commit is not here.
    """
    path = study.places.declaration(study.name).resolve()
    if not path.is_relative_to(ROOT):
        return None
    try:
        here = ["git", "-C", str(ROOT)]
        subprocess.run([*here, "cat-file", "-e", f"{commit}^{{commit}}"], check=True, **_QUIET)
        file = f"{commit}:{path.relative_to(ROOT).as_posix()}"
        done = subprocess.run([*here, "show", file], check=False, **_QUIET)
    except (OSError, subprocess.CalledProcessError):
        return None
    raw = yaml.safe_load(done.stdout) if done.returncode == 0 else {}
    found = _as_now(raw if isinstance(raw, dict) else {})
    if found:
        found["varied"] = _varied_at(study, commit)
    return found


def _varied_at(study: Study, commit: str) -> dict[str, list[Any]] | None:
    """Return what the study's sweeps varied at a commit; None where they cannot be read."""
    sweeps = []
    for sweep in study.sweeps:
        path = study.places.sweep(sweep.name).resolve()
        if not path.is_relative_to(ROOT):
            return None
        file = f"{commit}:{path.relative_to(ROOT).as_posix()}"
        done = subprocess.run(["git", "-C", str(ROOT), "show", file], check=False, **_QUIET)
        try:
            sweeps.append(read_sweep(yaml.safe_load(done.stdout), sweep.name))
        except (UserError, yaml.YAMLError, TypeError, ValueError):
            return None
    return varied(sweeps)


_QUIET = {"capture_output": True, "text": True}


def _as_now(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the declaring keys of a declaration under the names that they have now."""
    found = {EARLIER.get(key, key): value for key, value in raw.items()}
    if "primary" in found:
        found["primary"] = [name.replace(" × ", ":") for name in found["primary"]]
    kept = {key: value for key, value in found.items() if key in DECLARING}
    if (goal := EARLIER_GOALS.get(found.get("direction"))) is not None:
        kept["goal"] = goal
    return kept


def _changes(study: Study, then: dict[str, Any]) -> list[str]:
    if not then:
        return ["there was no declaration"]
    then, reasons = dict(then), []
    levels, own = then.pop("varied", None), varied(study.sweeps)
    if levels is None:
        reasons.append("the sweep of then cannot be read")
    for key in sorted({*(levels or {}), *own}) if levels is not None else []:
        if (levels.get(key), own.get(key)) != (own.get(key), own.get(key)):
            reasons.append(f"{key} was {_shown(levels.get(key))}, is {_shown(own.get(key))}")
    if then.pop("goal", study.metric.goal) != study.metric.goal:
        reasons.append(f"the goal is {study.metric.goal} now")
    now = declaring(study.declaration)
    before = declaring(study.declaration.model_copy(update=then))
    for key in sorted({*now, *before}):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if (
            key == "published_scores"
            and one
            and other
            and sorted(one.values()) == sorted(other.values())
        ):
            continue  # other words for the same numbers
        reasons.append(f"{key} was {_shown(one)}, is {_shown(other)}")
    return reasons


def _shown(value: Any) -> str:
    return "not set" if value is None else show_value(value)
