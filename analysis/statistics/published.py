"""Results of a recipe that is compared with published scores: each run, and each step's effect."""

import itertools
from typing import Any

import numpy as np

from analysis.runs import per_item
from analysis.runs.data import StudyData, test_scores
from analysis.runs.tables import TableError
from analysis.statistics import testing
from analysis.statistics.contrasts import Contrast
from analysis.statistics.intervals import ends


def by_seed(data: StudyData) -> list[dict[str, Any]]:
    """Return one row per run: seed, run, score, minutes, mistakes, and the scores of other steps.

    ``without_duplicates``: the score without the test items that are identical to training items.
    This and ``mistakes`` are None if the outputs per item are unknown. Empty if the study declares
    no published scores.

    Raises:
        TableError: if the runs lack the score of a declared step.
    """
    study, steps = data.study, data.study.declaration.cumulative_steps
    if not study.declaration.published_scores:
        return []
    if lacking := [key for key in steps if not data.has(key)]:
        raise TableError(
            f"{data.folder}/runs.csv has no numbers under {', '.join(lacking)}, declared in the "
            "study's `cumulative_steps:`"
        )
    table = data.per_item
    scores = test_scores(data) if study.rule == "last" else None
    predicted = per_item.of_runs(table, "predicted", data.run_ids)
    new = None if table is None or "in_training" not in table else table["in_training"] == 0
    others = {key: data.values(key)[0] for key in steps if key != study.score_key()}
    rows, worst = [], study.metric.worst_value
    for k, entry in enumerate(data.completeness.entries):
        (run,) = entry.runs
        known = scores is not None and predicted is not None
        rows.append(
            {
                "seed": entry.seed,
                "run": run,
                "score": float(data.scores[0, k] if worst is None else worst)
                if data.failed[0, k]
                else float(data.scores[0, k]),
                "minutes": round(entry.seconds / 60, 1) if entry.seconds else None,
                "mistakes": int(per_item.wrong(predicted, table["label"])[run].sum())
                if known
                else None,
                "without_duplicates": float(scores[run][new].mean())
                if known and new is not None
                else None,
                "others": {key: float(values[k]) for key, values in others.items()},
            }
        )
    return rows


def steps(data: StudyData) -> list[dict[str, Any]]:
    """Compare the scores after each declared step with those before it, paired by run.

    Exact signed-rank tests over the seeds whose run has not failed, neither corrected nor declared
    as contrasts. Empty if all runs failed.
    """
    words = data.study.declaration.cumulative_steps
    values = {key: data.values(key)[0][~data.failed[0]] for key in words}
    if data.failed.all():
        return []
    rows = []
    for before, after in itertools.pairwise(words):
        pair = Contrast(after, "main", values[before], values[after])
        (tested,) = testing.run_tests([pair], data.study.alpha, paired=True)
        rows.append(
            {
                "step": words[after],
                "before": words[before],
                "medians": [float(np.median(values[key])) for key in (after, before)],
                "difference": tested.interval.estimate,
                **ends(tested.interval),
                "p": tested.test.p,
                "lower": tested.test.negative,
                "higher": tested.test.positive,
            }
        )
    return rows
