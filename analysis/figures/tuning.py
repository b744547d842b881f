"""Figure of a study's hyperparameter tuning: validation score against the tuned value."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.figures import style
from analysis.runs.data import StudyData
from analysis.runs.load import sibling
from analysis.runs.tables import CONFIG, numbers
from lib.spec.declaration import StudyError
from lib.spec.metric import Metric, with_part
from lib.spec.study import Study
from lib.spec.sweep import same_value, show_value
from lib.spec.words import capitalize, count


@dataclass(frozen=True)
class Tuned:
    """A tuning sweep: the tuned ``key``, a table of its runs with their score, the best value."""

    data: StudyData
    key: str
    label: str  # the levels of the study's factors that this sweep fixes
    table: pd.DataFrame  # columns: value, score, and the study's other factors
    best: float

    @property
    def budget(self) -> tuple:
        """Number of variants, seeds, epochs; must be equal for all tuning sweeps to be fair."""
        study = self.data.study
        return len(study.variants), tuple(study.seeds), self.data.recipe.get("epochs")


def lacking(study: Study) -> list[str]:
    """Return the names of the tuning sweeps whose tables are missing."""
    tables = study.places.tables
    return [n for n in study.declaration.tuning if not (tables(n) / "runs.csv").exists()]


def load(data: StudyData) -> list[Tuned]:
    """Return the study's tuning sweeps.

    Raises:
        StudyError: if one is incomplete or does not tune exactly one setting, if their budgets
            differ, or if the study uses another value or a tuning seed.
    """
    tunings = [_load(data, name) for name in data.study.declaration.tuning]
    if len({one.budget for one in tunings}) > 1:
        names = ", ".join(data.study.declaration.tuning)
        budgets = "; ".join(str(one.budget) for one in tunings)
        raise StudyError(
            f"the tuning sweeps {names} must have equal budgets (variants, seeds, epochs), got "
            f"{budgets}"
        )
    return tunings


def validation(study: Study) -> Metric:
    """Return the validation metric on which settings are tuned."""
    return study.metric.on(with_part(study.metric.key, "val"))


def _load(data: StudyData, name: str) -> Tuned:
    study, metric = data.study, validation(data.study)
    tuning = sibling(study, name)
    sweep = tuning.study
    tuned = [key for key in sweep.factors if key not in study.factor_keys]
    found = tuning.completeness
    if found.problems or found.waivable or len(tuned) != 1:
        why = "; ".join([*found.problems, *found.waivable.values()]) or (
            f"it varies {', '.join(sweep.factors)}; exactly one of these must not be a factor of "
            f"{study.name}"
        )
        raise StudyError(f"the tuning sweep {name} is incomplete or unsuitable: {why}")
    (key,) = tuned
    runs = tuning.included
    table = pd.DataFrame({"value": pd.to_numeric(runs[CONFIG + key], errors="coerce")})
    table["score"] = metric.display(numbers(runs, metric.key))
    if table.isna().any(axis=None):
        raise StudyError(
            f"the tuning sweep {name} needs numbers for {key} and {metric.key} in every run"
        )
    for other in sweep.factors:
        if other != key:
            table[other] = runs[CONFIG + other]
    mean = table.groupby("value")["score"].mean()
    best = float(mean.idxmax() if metric.sign > 0 else mean.idxmin())
    used = data.recipe.get(key)
    if not same_value(used, best):
        raise StudyError(
            f"{name} has the best mean at {key} = {best:g}, but {study.name} uses "
            f"{show_value(used)}"
        )
    if any(same_value(a, b) for a in sweep.seeds for b in study.seeds):
        raise StudyError(f"{name} and {study.name} must not share seeds")
    levels = [(f, sweep.fixed[f]) for f in study.factor_keys if f in sweep.fixed]
    label = ", ".join(study.level_label(f, v) for f, v in levels) or name
    return Tuned(tuning, key, label, table, best)


def draw(study: Study, tunings: list[Tuned]) -> Figure:
    """Plot one panel per tuning sweep, with one dot per run.

    The gray bar marks the value with the best mean over the other factors' levels.
    """
    metric = validation(study)
    style.use()
    size = (style.COLUMN, 2.7)
    figure, axes = plt.subplots(1, len(tunings), figsize=size, sharey=True, squeeze=False)
    for axis, one in zip(axes[0], tunings, strict=True):
        others = [column for column in one.table if column not in ("value", "score")]
        groups = one.table.groupby(others) if others else [((), one.table)]
        for i, (levels, runs) in enumerate(groups):
            words = [study.level_label(f, v) for f, v in zip(others, levels, strict=True)]
            look = {"color": style.color(i), "marker": style.marker(i), "linestyle": ""}
            label = ", ".join(words) or one.data.study.name
            axis.plot(runs["value"], runs["score"], label=label, **look)
        axis.axvline(one.best, color="0.8", linewidth=5, zorder=0)
        values = sorted(one.table["value"].unique())
        if values[0] > 0:
            axis.set_xscale("log")
        else:  # 0 has no place on a logarithmic axis
            nonzero = min(abs(value) for value in values if value) if any(values) else 1.0
            axis.set_xscale("symlog", linthresh=nonzero, linscale=0.5)
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.xaxis.set_minor_locator(NullLocator())
        is_rate = one.key == "lr" or one.key.endswith("_lr")
        axis.set_xlabel("Learning rate" if is_rate else study.factor_label(one.key))
        axis.set_title(one.label, fontsize=8)
    axes[0, 0].set_ylabel(metric.axis)
    shown = np.concatenate([one.table["score"].to_numpy() for one in tunings])
    style.metric_scale(list(axes[0]), shown, metric)
    style.legend_above(figure, axes[0, 0])
    return figure


def caption(study: Study, tunings: list[Tuned]) -> str:
    """Return the figure's caption."""
    variants, seeds, epochs = tunings[0].budget
    names = ", ".join(one.data.study.name for one in tunings)
    used = "; ".join(f"{one.label} {one.best:g}" for one in tunings)
    budget = f", {count(epochs, 'epoch')}" if epochs else ""
    return (
        f"{capitalize(validation(study).title)} at the end of the tuning runs against the tuned "
        f"value, one dot per run ({names}: {count(variants, 'variant')} each{budget}, n = "
        f"{count(len(seeds), 'seed')}, not used by the study). Gray: the value with the best mean, "
        f"which the study uses ({used}). Chosen on validation; no statistical test was run."
    )
