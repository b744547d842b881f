"""The two folds of the JSRT radiographs beside the published table of the same protocol."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.grid import SEED, GridError, Study, Sweep, load_study, load_sweep
from analysis.runs import per_item, provenance
from analysis.runs.completeness import check
from analysis.runs.tables import read_tables

# Lung fields, Jaccard, mean and standard deviation over 247 images at 256×256, two folds.
# Source: van Ginneken, Stegmann, Loog, Medical Image Analysis 10 (2006).
PUBLISHED = [
    ("Hybrid voting", 0.949, 0.020),
    ("Human observer", 0.946, 0.018),
    ("Pixel classification, post-processed", 0.945, 0.022),
    ("Pixel classification", 0.938, 0.027),
    ("Active shape model, tuned", 0.927, 0.032),
    ("Mean shape", 0.713, 0.075),
]
IMAGES, SIDE = 247, 256
WORST = 10


def load(study: Study, sweep_path: Path, folder: Path) -> dict[str, Any] | None:
    """Return the table of the study's two-fold sweep, or None where the study declares none.

    Looks beside the study's own sweep and results. ``missing`` says why there is no table.

    Raises:
        GridError, TableError: when the sweep or its tables cannot be read.
    """
    if study.folds is None:
        return None
    place = folder.parent / study.folds
    if not (place / "runs.csv").exists():
        return {"sweep": study.folds, "missing": "it has not been run and fetched"}
    sweep = load_sweep(sweep_path.with_name(f"{study.folds}.yaml"))
    runs, history = read_tables(place)
    ledger = check(sweep, load_study(sweep), runs, history)
    table = per_item.read(place)
    wrong = ledger.problems + list(ledger.doubts.values())
    if wrong or table is None:
        why = "; ".join(wrong) or f"its runs' per-image outputs ({per_item.NAME}) are gone"
        return {"sweep": study.folds, "missing": why}
    counting = runs[runs["run_id"].isin(ledger.counting)]
    origin = provenance.of_study(sweep, load_study(sweep), ledger, runs)
    return summarize(sweep, counting, table) | {"provenance": origin}


def summarize(sweep: Sweep, runs: pd.DataFrame, jaccard: pd.DataFrame) -> dict[str, Any]:
    """Return mean and standard deviation over all images per seed, and the worst images.

    ``jaccard``: rows are images, columns runs, as analysis.images has it.

    Raises:
        GridError: when a seed's two folds do not test each of the 247 images once at 256 pixels, or
            the images are others: such scores do not belong beside the published ones.
    """
    if set(sweep.factors) != {"fold"} or set(sweep.factors["fold"]) != {"odd", "even"}:
        raise GridError(f"{sweep.name} must vary `fold: [odd, even]` and the seed, nothing else")
    foreign = [name for name in jaccard.index if not str(name).startswith("JPC")]
    if foreign or len(jaccard) != IMAGES or sweep.fixed.get("image_size") != SIDE:
        raise GridError(
            f"{sweep.name}: {len(jaccard)} images at {sweep.fixed.get('image_size')} pixels"
            f"{f', such as {foreign[0]}' if foreign else ''}; the published table is of the "
            f"{IMAGES} JSRT radiographs at {SIDE} pixels with the SCR masks"
        )
    seeds, by_seed = [], {}
    for seed in sweep.seeds:
        own = runs["run_id"][runs[SEED] == seed].tolist()
        if not (jaccard[own].notna().sum(axis=1) == 1).all():
            raise GridError(f"{sweep.name}, seed {seed}: not every image is tested exactly once")
        by_seed[seed] = jaccard[own].sum(axis=1)
        seeds.append(
            {
                "seed": seed,
                "mean": float(by_seed[seed].mean()),
                "sd": float(by_seed[seed].std()),
                "runs": own,
            }
        )
    median = pd.DataFrame(by_seed).median(axis=1).sort_values(kind="stable")
    worst = [{"image": name, "median": float(value)} for name, value in median[:WORST].items()]
    return {
        "sweep": sweep.name,
        "n_images": len(jaccard),
        "mean": sum(s["mean"] for s in seeds) / len(seeds),
        "sd": sum(s["sd"] for s in seeds) / len(seeds),
        "seeds": seeds,
        "worst": worst,
        "without_worst": float(median[WORST:].mean()),
        "fixed": sweep.fixed,
        "published": [{"name": n, "mean": m, "sd": s} for n, m, s in PUBLISHED],
    }
