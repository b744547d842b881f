"""Where numbers come from: the plan, the runs, their code and data, and this analysis itself."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.grid import SEED, Study, Sweep
from analysis.runs.completeness import Ledger

HERE = Path(__file__).parent.parent
# What no report rests on.
APART = {"calibrate.py", "fetch.py", "wandb_offline.py", "plan.py", "readme.py", "wandb_report.py"}
SHORT = 12  # hexadecimal digits of the two hashes made here
OF_ALL = ("git_commit", "data_sha256", "device", "torch_version", "numpy_version", "python_version")
OF_ONE = ("source", "url", "git_commit", "data_sha256", "split_sha256", "order_sha256", "device")


def analysis_version() -> str:
    """Return the hash of the code and templates that make a report: equal code, equal version."""
    digest = hashlib.sha256()
    code = [path for path in HERE.glob("**/*.py") if path.name not in APART]
    for path in sorted([*code, *HERE.glob("pages/templates/*")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:SHORT]


def config_hash(sweep: Sweep, study: Study) -> str:
    """Return the hash of what was planned and declared: grid, seeds, fixed values, study."""
    plan = {"factors": sweep.factors, "seeds": sweep.seeds, "fixed": sweep.fixed}
    text = json.dumps([plan, study.model_dump(exclude_defaults=True)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:SHORT]


def of_study(sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame) -> dict[str, Any]:
    """Return what all runs that count have in common, each value once."""
    own = runs[runs["run_id"].isin(ledger.counting)]
    shared = {n: sorted(own[n].astype(str).unique()) for n in OF_ALL if n in own}
    return shared | {
        "config_sha256": config_hash(sweep, study),
        "analysis_version": analysis_version(),
    }


def of_runs(
    sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    """Return, by run id, a run's variant, seed, state, score and origin."""
    rows = runs.set_index("run_id")
    described = {}
    for entry in ledger.entries:
        for run in entry.runs:
            found = rows.loc[run]
            origin = {k: str(found[k]) for k in OF_ONE if k in rows and pd.notna(found[k])}
            described[run] = {
                "variant": sweep.label(entry.cell),
                SEED: entry.seed,
                "state": entry.state,
                "score": float(found[study.score_column()]),
                "epochs": entry.epochs,
                "minutes": round(entry.seconds / 60, 2),
                "resumed_from_epoch": entry.resumed,
                "replaces": list(entry.replaced),
                **origin,
            }
    return described
