"""Compare two-fold cross-validation on the JSRT radiographs with the published results."""

from typing import Any

import pandas as pd

from analysis.runs import per_item, provenance
from analysis.runs.data import StudyData
from analysis.runs.load import sibling
from lib.spec.declaration import StudyError
from lib.spec.study import Study

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


def load(study: Study) -> dict[str, Any] | None:
    """Return the results of the study's two-fold sweep, or None if the study declares none.

    If they are not available, the only other key next to ``sweep`` is ``missing``, the reason.

    Raises:
        StudyError, TableError: if the sweep or its tables cannot be read.
    """
    name = study.declaration.cross_validation
    if name is None:
        return None
    data = sibling(study, name)
    if data is None:
        return {"sweep": name, "missing": "its runs have not been fetched"}
    wrong = data.completeness.problems + list(data.completeness.waivable.values())
    if wrong or data.per_item is None:
        why = "; ".join(wrong) or f"its outputs per item ({per_item.NAME}) are missing"
        return {"sweep": name, "missing": why}
    return summarize(data) | {"provenance": provenance.of_study(data)}


def overlaps(data: StudyData) -> pd.DataFrame:
    """Return the Jaccard index of each image in each run (images, runs); NaN if not tested."""
    table = per_item.of_runs(data.per_item, "jaccard", data.run_ids)
    if table is None:
        raise StudyError(f"{data.folder}/{per_item.NAME} lacks the Jaccard index of some runs")
    return table


def summarize(data: StudyData) -> dict[str, Any]:
    """Return mean and standard deviation over all images per seed, and the worst images.

    Raises:
        StudyError: if the two folds of a seed do not test each of the 247 JSRT images exactly once
            at 256 pixels. Other scores are not comparable with the published ones.
    """
    study, jaccard = data.study, overlaps(data)
    if set(study.factors) != {"fold"} or set(study.factors["fold"]) != {"odd", "even"}:
        raise StudyError(f"{study.name} must vary only `fold: [odd, even]` and the seed")
    side = data.recipe.get("image_size")
    foreign = [name for name in jaccard.index if not str(name).startswith("JPC")]
    if foreign or len(jaccard) != IMAGES or side != SIDE:
        raise StudyError(
            f"{study.name}: {len(jaccard)} images at {side} pixels"
            f"{f', such as {foreign[0]}' if foreign else ''}. The published results are for the "
            f"{IMAGES} JSRT radiographs at {SIDE} pixels with the SCR masks."
        )
    seeds, by_seed = [], {}
    for seed in study.seeds:
        runs = [run for e in data.completeness.entries if e.seed == seed for run in e.runs]
        if not (jaccard[runs].notna().sum(axis=1) == 1).all():
            raise StudyError(f"{study.name}, seed {seed}: each image must be tested exactly once")
        by_seed[seed] = jaccard[runs].sum(axis=1)
        seeds.append(
            {
                "seed": seed,
                "mean": float(by_seed[seed].mean()),
                "sd": float(by_seed[seed].std()),
                "runs": runs,
            }
        )
    median = pd.DataFrame(by_seed).median(axis=1).sort_values(kind="stable")
    worst = [{"image": name, "median": float(value)} for name, value in median[:WORST].items()]
    recipe = data.recipe
    return {
        "sweep": study.name,
        "n_images": len(jaccard),
        "mean": sum(s["mean"] for s in seeds) / len(seeds),
        "sd": sum(s["sd"] for s in seeds) / len(seeds),
        "seeds": seeds,
        "worst": worst,
        "without_worst": float(median[WORST:].mean()),
        "fixed": {key: recipe[key] for key in ("image_size", "width", "epochs") if key in recipe},
        "published": [{"name": n, "mean": m, "sd": s} for n, m, s in PUBLISHED],
    }
