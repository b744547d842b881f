"""A recipe beside published scores: its runs one by one, and what its own other scores say."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.grid import RULES, Study, Sweep
from analysis.runs import per_item
from analysis.runs.completeness import Ledger, scores
from analysis.runs.tables import TableError
from analysis.statistics import contrasts
from analysis.statistics.contrasts import Contrast
from analysis.statistics.grades import digits


def quoted(value: float, study: Study) -> float:
    """Return a score as people quote it: an error as accuracy in percent, all else as it is."""
    return 100 * (1 - value) if study.percent else value


def shown(value: float, study: Study) -> str:
    """Show a score as people quote it, with the digits of the metric."""
    return f"{quoted(value, study):.2f}" if study.percent else digits(value, study)


def by_seed(
    study: Study, ledger: Ledger, runs: pd.DataFrame, table: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Return a row a run: seed, run, score, minutes, its mistakes, and the scores of other steps.

    ``without_twins``: the score on those test images that equal no training image. It and the
    mistakes are None where the runs' outputs per image do not say. Nothing without references.

    Raises:
        TableError: when the runs lack the score of a step that the study names.
    """
    if not study.references:
        return []
    if lacking := [name for name in study.steps if name not in runs]:
        raise TableError(f"runs.csv lacks {', '.join(lacking)}, which the study's `steps` name")
    at_the_end = table is not None and study.score_rule == "last"
    per_image = per_item.scores(table, study, ledger.counting) if at_the_end else None
    rows, found = [], runs.set_index("run_id")
    for entry in ledger.entries:
        (run,) = entry.runs
        row = {"seed": entry.seed, "run": run, "score": float(found[study.score_column()][run])}
        row |= {"minutes": round(entry.seconds / 60, 1), "mistakes": None, "without_twins": None}
        if per_image is not None and "label" in table:
            row["mistakes"] = int(per_image[run].sum())
            if "in_training" in table:
                row["without_twins"] = float(per_image[run][table["in_training"] == 0].mean())
        others = [name for name in study.steps if name != study.score_column()]
        rows.append(row | {"others": {name: float(found[name][run]) for name in others}})
    return rows


def steps(sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare each of the study's steps with the one before, seed by seed, on the same runs.

    Exact signed-rank tests, not corrected, not declared as contrasts.
    """
    values = {name: scores(sweep, ledger, runs, name)[()] for name in study.steps}
    rows = []
    for before, after in itertools.pairwise(study.steps):
        pair = Contrast(after, [], np.array(values[before]), np.array(values[after]))
        (tested,) = contrasts.test([pair], study.alpha, paired=True)
        rows.append(
            {
                "step": study.steps[after],
                "before": study.steps[before],
                "medians": [float(np.median(values[name])) for name in (after, before)],
                "difference": tested.interval.estimate,
                "ci_low": tested.interval.low,
                "ci_high": tested.interval.high,
                "p": tested.test.p,
                "lower": tested.test.negative,
                "higher": tested.test.positive,
            }
        )
    return rows


def final_scores(
    sweep: Sweep, study: Study, ledger: Ledger, values: dict[tuple, list[float]]
) -> tuple[Figure, str]:
    """Figure 3 of a study with references: each run's score, and lines where the published are."""
    figure, (axis,) = style.subplots(1, 3.6)
    own, middle = values[()], float(np.median(values[()]))
    ends = [-0.6, len(own) - 0.4]
    for i, (words, value) in enumerate(study.references.items(), start=1):
        look = {"color": style.colour(i), "linestyle": style.line(i), "linewidth": 1.4}
        axis.plot(ends, [quoted(value, study)] * 2, label=words, **look)
    axis.plot(ends, [quoted(middle, study)] * 2, color="black", linewidth=0.8, label="our median")
    note = {"fontsize": 6.5, "ha": "center", "textcoords": "offset points", "zorder": 4}
    for place, value in enumerate(own):
        at, above = quoted(value, study), quoted(value, study) >= quoted(middle, study)
        axis.scatter(place, at, s=24, color=style.colour(0), zorder=3)
        look = note | {"va": "bottom" if above else "top", "xytext": (0, 4 if above else -4)}
        axis.annotate(shown(value, study), (place, at), **look)
    axis.set_xticks(range(len(own)), sweep.seeds)
    axis.set_xlim(*ends)
    axis.margins(y=0.12)
    axis.set_xlabel("Seed")
    name = style.metric_name(study)
    name = name.replace("error", "accuracy (%)") if study.percent else name
    axis.set_ylabel(name)
    axis.ticklabel_format(axis="y", useOffset=False)
    style.legend_above(figure, axis)
    return figure, (
        f"{name} of every run ({RULES[study.score_rule]}): "
        f"{style.cell_label(sweep, study, ())}, a dot a seed (n = {len(own)}), thin black line: "
        f"their median, {shown(middle, study)}; other lines: "
        f"published scores. {style.run_set(sweep, ledger)}"
    )
