"""Provenance of a report: hashes and versions of the plan, runs, code, data and analysis."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs.data import StudyData
from analysis.runs.tables import SUMMARY, is_missing, numbers
from lib.spec.declaration import SEED
from lib.spec.study import Study

ANALYSIS = Path(__file__).parents[1]
SPEC = ANALYSIS.parent / "lib" / "spec"
# Files that do not affect a report.
UNUSED = {"calibrate.py", "plan.py", "readme.py", "wandb_report.py"}
UNUSED |= {"fetch.py", "sources.py", "collect.py"}  # tables come from them, no page does
UNUSED |= {"wandb_csv.py", "wandb_offline.py", "wandb_server.py"}
SHORT = 12  # hexadecimal digits of analysis_version and config_hash
SHARED = (
    "git_commit",
    "data_sha256",
    "device",
    "torch_version",
    "numpy_version",
    "python_version",
)
PER_RUN = ("git_commit", "data_sha256", "split_sha256", "order_sha256", "device")


def analysis_version() -> str:
    """Return a hash of the code and templates that produce a report."""
    digest = hashlib.sha256()
    code = sorted([*ANALYSIS.glob("**/*.py"), *ANALYSIS.glob("pages/templates/*")])
    for path in [*code, *sorted(SPEC.glob("*.py"))]:
        if path.name in UNUSED:
            continue
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:SHORT]


def config_hash(study: Study) -> str:
    """Return a hash of the plan and declaration: variants, seeds, fixed values, declared keys."""
    declared = study.declaration.model_dump(exclude_defaults=True)
    text = json.dumps([study.plan(), declared], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def of_study(data: StudyData) -> dict[str, Any]:
    """Return the distinct values of each provenance key over the included runs, and two hashes."""
    rows, distinct = data.included, {}
    for name in SHARED:
        values = rows.get(SUMMARY + name, pd.Series(dtype=object))
        if known := sorted({str(value) for value in values if not is_missing(value)}):
            distinct[name] = known
    return distinct | {
        "config_sha256": config_hash(data.study),
        "analysis_version": analysis_version(),
    }


def of_runs(data: StudyData) -> dict[str, dict[str, Any]]:
    """Return, by run id, each included run's variant, seed, state, score and provenance."""
    rows = data.included
    scores = numbers(rows, data.study.score_key())
    described = {}
    for entry in data.completeness.entries:
        for run in entry.runs:
            row = rows.loc[run]
            origin = {name: row.get(SUMMARY + name) for name in PER_RUN}
            origin = {"source": row["source"], "url": row["url"]} | origin
            described[run] = {
                **({"block": entry.block} if entry.block else {}),
                "variant": data.study.variant_name(entry.variant),
                SEED: entry.seed,
                "state": entry.state,
                "score": float(scores[run]),
                "epochs": entry.epochs,
                "minutes": round(entry.seconds / 60, 2) if entry.seconds else None,
                "resumed_from_epoch": entry.resumed,
                "replaces": list(entry.replaced),
                **{k: str(v) for k, v in origin.items() if v and not is_missing(v)},
            }
    return described
