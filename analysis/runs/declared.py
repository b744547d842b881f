"""Check that a study was declared before its runs: by the hash that runs log, else by git."""

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
from lib.spec.load import varied
from lib.spec.study import ROOT, Study
from lib.spec.sweep import read_sweep, show_value
from lib.spec.words import count

NAME = "declared_at_runs.json"  # next to the tables: the declaring keys at the runs' commits
KEY = "study_sha256"  # summary key; "name:hash name:hash", as a run may belong to several studies
COMMIT = re.compile(r"[0-9a-f]{40}")
OLD_KEYS = {"score_rule": "score", "family": "primary", "references": "published_scores"}
OLD_GOALS = {"lower": "minimize", "higher": "maximize"}  # values of the old key `direction:`


def record(study: Study, folder: Path, runs: Any) -> None:
    """Write the declaring keys at the commits of runs that logged no hash, read from git.

    Commits that are already recorded are not read again; commits unknown to git are skipped.
    """
    logged = [value for value in _values(runs, KEY) if _logged(study, value)]
    if not study.declared or len(logged) == len(runs):
        return
    known = read(folder)
    new = {
        commit: keys
        for commit in sorted({str(value)[:40] for value in _values(runs, "git_commit")})
        if COMMIT.fullmatch(commit) and commit not in known
        if (keys := _at_commit(study, commit)) is not None
    }
    if new:
        text = json.dumps(known | new, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(folder / NAME, f"{text}\n".encode())


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the recorded declaring keys by commit; empty if there is no readable record."""
    try:
        recorded = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def verdict(study: Study, folder: Path, runs: Any) -> tuple[bool, str]:
    """Return whether the study was declared before its runs, and the evidence as text."""
    if not study.declared:
        return False, "Exploratory: the study has no declaration."
    number = len(runs)
    logged = [_logged(study, value) for value in _values(runs, KEY)]
    logged += [""] * (number - len(logged))
    own = study_hash(study.declaration, varied(study.sweeps))
    if all(value == own for value in logged):
        return True, (
            "Declared before the runs: the declaring keys and the sweep's levels and seeds are as "
            f"they were when the runs started (all {count(number, 'run')} logged the hash {own})."
        )
    if other := sum(value not in ("", own) for value in logged):
        return False, (
            f"Exploratory: {count(other, 'run')} logged another hash than the current one, {own}: "
            "declaring keys, levels or seeds have changed since the runs."
        )
    at_runs = read(folder)
    unhashed = runs[[value == "" for value in _aligned(study, runs)]]
    commits = [str(value) for value in _values(unhashed, "git_commit")]
    base = {commit[:40] for commit in commits}
    if not base or len(commits) < len(unhashed) or not base <= set(at_runs):
        return False, (
            "Exploratory: the declaration cannot be verified, because "
            f"{count(len(unhashed), 'run')} logged no hash of it and the declaration at their "
            "commits is not recorded or available from git."
        )
    changed = sorted({text for commit in base for text in _changes(study, at_runs[commit])})
    where = "commit " + ", ".join(commit[:8] for commit in sorted(base))
    if changed:
        return False, (
            f"Exploratory: the declaration has changed since the runs ({where}): "
            f"{'; '.join(changed)}."
        )
    if any(commit.endswith("-dirty") for commit in commits):
        return False, (
            f"Exploratory: {count(len(unhashed), 'run')} logged no hash and ran with uncommitted "
            f"changes ({where}), so the declaration cannot be verified."
        )
    shown = set(declaring(study.declaration)).union(*(at_runs[commit] for commit in base))
    keys = ", ".join(sorted(shown - {"goal", "varied"}))
    return True, (
        f"Declared before the runs, according to git: {count(len(unhashed), 'run')} logged no "
        f"hash of the declaration, but at their {where} the declaring keys ({keys}) and the "
        "sweep's levels and seeds were the same as now."
    )


def _aligned(study: Study, runs: Any) -> list[str]:
    """Return the hash that each run logged for this study, or "", in the order of the runs."""
    column = SUMMARY + KEY
    if column not in runs:
        return [""] * len(runs)
    return ["" if is_missing(value) else _logged(study, value) for value in runs[column]]


def _values(runs: Any, key: str) -> list[Any]:
    column = SUMMARY + key
    return [] if column not in runs else [v for v in runs[column] if not is_missing(v) and v]


def _logged(study: Study, value: Any) -> str:
    """Return this study's hash from a logged value, or ""."""
    pairs = dict(part.split(":", 1) for part in str(value).split() if ":" in part)
    return pairs.get(study.name, "")


def _at_commit(study: Study, commit: str) -> dict[str, Any] | None:
    """Return the declaring keys of the study's file at a commit, empty if it had no such file.

    None if git or the commit is not available.
    """
    path = study.places.declaration(study.name).resolve()
    if not path.is_relative_to(ROOT):
        return None
    try:
        git = ["git", "-C", str(ROOT)]
        subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], check=True, **_CAPTURE)
        file = f"{commit}:{path.relative_to(ROOT).as_posix()}"
        done = subprocess.run([*git, "show", file], check=False, **_CAPTURE)
    except (OSError, subprocess.CalledProcessError):
        return None
    raw = yaml.safe_load(done.stdout) if done.returncode == 0 else {}
    keys = _with_new_names(raw if isinstance(raw, dict) else {})
    if keys:
        keys["varied"] = _varied_at(study, commit)
    return keys


def _varied_at(study: Study, commit: str) -> dict[str, list[Any]] | None:
    """Return the levels and seeds of the study's sweeps at a commit; None if unreadable."""
    sweeps = []
    for sweep in study.sweeps:
        path = study.places.sweep(sweep.name).resolve()
        if not path.is_relative_to(ROOT):
            return None
        file = f"{commit}:{path.relative_to(ROOT).as_posix()}"
        done = subprocess.run(["git", "-C", str(ROOT), "show", file], check=False, **_CAPTURE)
        try:
            sweeps.append(read_sweep(yaml.safe_load(done.stdout), sweep.name))
        except (UserError, yaml.YAMLError, TypeError, ValueError):
            return None
    return varied(sweeps)


_CAPTURE = {"capture_output": True, "text": True}


def _with_new_names(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the declaring keys of a declaration, old key names replaced by the current ones."""
    renamed = {OLD_KEYS.get(key, key): value for key, value in raw.items()}
    if "primary" in renamed:
        renamed["primary"] = [name.replace(" × ", ":") for name in renamed["primary"]]
    kept = {key: value for key, value in renamed.items() if key in DECLARING}
    if (goal := OLD_GOALS.get(renamed.get("direction"))) is not None:
        kept["goal"] = goal
    return kept


def _changes(study: Study, then: dict[str, Any]) -> list[str]:
    """Return the changes from the declaring keys at a commit to the current ones, as texts."""
    if not then:
        return ["there was no declaration"]
    then, changes = dict(then), []
    levels, levels_now = then.pop("varied", None), varied(study.sweeps)
    if levels is None:
        changes.append("the sweep at this commit cannot be read")
    for key in sorted({*levels, *levels_now}) if levels is not None else []:
        if levels.get(key) != levels_now.get(key):
            changes.append(
                f"{key} was {_shown(levels.get(key))}, now {_shown(levels_now.get(key))}"
            )
    if then.pop("goal", study.metric.goal) != study.metric.goal:
        changes.append(f"the goal is now {study.metric.goal}")
    after = declaring(study.declaration)
    before = declaring(study.declaration.model_copy(update=then))
    for key in sorted({*after, *before}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if (
            key == "published_scores"
            and old
            and new
            and sorted(old.values()) == sorted(new.values())
        ):
            continue  # only the names of the scores have changed
        changes.append(f"{key} was {_shown(old)}, now {_shown(new)}")
    return changes


def _shown(value: Any) -> str:
    return "not set" if value is None else show_value(value)
