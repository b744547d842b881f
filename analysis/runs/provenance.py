"""Where numbers come from: the plan, the runs, their code and data, and this analysis itself."""

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
# What no report rests on.
APART = {"calibrate.py", "fetch.py", "plan.py", "readme.py", "wandb_report.py"}
APART |= {"wandb_csv.py", "wandb_offline.py", "wandb_server.py"}
SHORT = 12  # hexadecimal digits of the two hashes made here
OF_ALL = ("git_commit", "data_sha256", "device", "torch_version", "numpy_version", "python_version")
OF_ONE = ("git_commit", "data_sha256", "split_sha256", "order_sha256", "device")


def analysis_version() -> str:
    """Return the hash of the code and templates that make a report: equal code, equal version."""
    digest = hashlib.sha256()
    code = sorted([*ANALYSIS.glob("**/*.py"), *ANALYSIS.glob("pages/templates/*")])
    for path in [*code, *sorted(SPEC.glob("*.py"))]:
        if path.name in APART:
            continue
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:SHORT]


def config_hash(study: Study) -> str:
    """Return the hash of what was planned and declared: variants, seeds, fixed values, study."""
    declared = study.declaration.model_dump(exclude_defaults=True)
    text = json.dumps([study.plan(), declared], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def of_study(data: StudyData) -> dict[str, Any]:
    """Return what the included runs say of their origin, each value once."""
    own, shared = data.included, {}
    for name in OF_ALL:
        values = own.get(SUMMARY + name, pd.Series(dtype=object))
        if found := sorted({str(value) for value in values if not is_missing(value)}):
            shared[name] = found
    return shared | {
        "config_sha256": config_hash(data.study),
        "analysis_version": analysis_version(),
    }


def of_runs(data: StudyData) -> dict[str, dict[str, Any]]:
    """Return, by run id, a run's variant, seed, state, score and origin."""
    rows = data.included
    scores = numbers(rows, data.study.score_key())
    described = {}
    for entry in data.completeness.entries:
        for run in entry.runs:
            found = rows.loc[run]
            origin = {name: found.get(SUMMARY + name) for name in OF_ONE}
            origin = {"source": found["source"], "url": found["url"]} | origin
            described[run] = {
                **({"block": entry.block} if entry.block else {}),
                "variant": data.study.variant_name(entry.variant),
                SEED: entry.seed,
                "state": entry.state,
                "score": float(scores[run]),
                "epochs": entry.epochs,
                "minutes": round(entry.seconds / 60, 2),
                "resumed_from_epoch": entry.resumed,
                "replaces": list(entry.replaced),
                **{k: str(v) for k, v in origin.items() if v and not is_missing(v)},
            }
    return described
