"""The report's tables of single runs: scores by seed, cross-validation, recipe, network, runs."""

from typing import Any

import pandas as pd

from analysis.pages.formats import Table, or_dash
from lib.spec.study import Study
from lib.spec.words import capitalize


def by_seed(results: dict[str, Any], study: Study) -> Table | None:
    """Return the table of runs of a study with published scores, or None without these."""
    metric, words = study.metric, study.declaration.cumulative_steps
    rows = []
    for s in results["by_seed"]:
        row = {
            capitalize(results["unit"]): s["seed"],
            metric.quoted_axis: metric.show_quoted(s["score"]),
        }
        row["Mistakes"] = or_dash(s["mistakes"], str)
        if results["duplicates"] is not None:
            row["Without duplicates"] = or_dash(s["without_duplicates"], metric.show_quoted)
        row |= {words[key]: metric.show_quoted(value) for key, value in s["others"].items()}
        rows.append(row | {"Minutes": or_dash(s["minutes"], "{:.1f}".format)})
    runs = [[s["run"]] for s in results["by_seed"]]
    return Table("by-seed", pd.DataFrame(rows), runs, list_runs=True) if rows else None


def cross_validation(results: dict[str, Any]) -> Table | None:
    """Return the table of two-fold results and published results, or None without these."""
    folds = results["cross_validation"]
    if not folds or "missing" in folds:
        return None
    title = f"Jaccard index, mean ± SD over {folds['n_images']} images"
    rows = [
        {"Method": f"U-Net, seed {s['seed']}", title: f"{s['mean']:.4f} ± {s['sd']:.4f}"}
        for s in folds["seeds"]
    ]
    mean = f"{folds['mean']:.4f} ± {folds['sd']:.4f}"
    rows.append({"Method": f"U-Net, mean of {len(folds['seeds'])} seeds", title: mean})
    rows += [
        {"Method": f"{m['name']} (2006)", title: f"{m['mean']:.3f} ± {m['sd']:.3f}"}
        for m in folds["published"]
    ]
    return Table("cross-validation", pd.DataFrame(rows))


def recipe(results: dict[str, Any]) -> Table:
    """Return the table of the config values that all runs share."""
    rows = [{"Setting": key, "Value": _shown(v)} for key, v in results["recipe"].items()]
    return Table("recipe", pd.DataFrame(rows, columns=["Setting", "Value"]), text=["Value"])


def layers(network: dict[str, Any]) -> Table:
    """Return the table of a network's layers, one row each, from network.json."""
    frame = pd.DataFrame(network["rows"], columns=network["headings"])
    return Table("layers", frame, text=list(frame.columns[:2]))


def runs(results: dict[str, Any], study: Study) -> Table:
    """Return the table of runs; details such as URL and commit are collapsed in HTML."""
    labels = {study.variant_name(v): study.variant_label(v) for v in study.variants}
    unit = f" ({study.logged.unit})" if study.logged.unit else ""
    shown = ("block", "variant", "seed", "state", "score", "epochs", "minutes")
    rows, details = [], []
    for run_id, run in results["runs"].items():
        rows.append(
            {
                "Run": run_id,
                **({"Block": run["block"]} if "block" in run else {}),
                "Variant": labels[run["variant"]],
                capitalize(results["unit"]): run["seed"],
                f"Score{unit}": study.logged.show(run["score"]),
                "Epochs": run["epochs"],
                "Minutes": or_dash(run["minutes"], "{:.1f}".format),
                "State": run["state"],
            }
        )
        more = {k: _shown(v) for k, v in run.items() if k not in shown and v}
        details.append(more)
    anchors = [f"run-{run_id}" for run_id in results["runs"]]
    text = ["Variant", "State"]
    return Table("runs", pd.DataFrame(rows), text=text, anchors=anchors, details=details)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
