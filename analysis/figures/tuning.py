"""Figure 13: how a study's learning rates were chosen: validation score against the rate."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.figures import style
from analysis.grid import GridError, Study, load_study, load_sweep
from analysis.runs.completeness import check
from analysis.runs.tables import read_tables

RATE = "_lr"  # a tuning sweep varies one parameter of such a name


def draw(study: Study, folder: Path, sweep_path: Path) -> tuple[Figure, str, list[str]] | None:
    """Return the figure of the study's tuning sweeps with caption and runs, or None without any.

    None, too, with a word on the terminal, where their tables are not here: they lie beside
    ``folder``, the YAMLs beside ``sweep_path``. One dot a run; the grey bar marks the rate with the
    best mean over the other factors' levels.

    Raises:
        GridError: when such a sweep is incomplete or varies no learning rate, when their budgets
            differ, or the study takes another rate or repeats a tuning seed.
    """
    if not study.tuning:
        return None
    if lacking := [n for n in study.tuning if not (folder.parent / n / "runs.csv").exists()]:
        where = ", ".join(str(folder.parent / name) for name in lacking)
        print(f"fig13_tuning left out: no tables in {where}; fetch the tuning sweeps there")
        return None
    mpl.rcParams.update(style.STYLE)
    size = (style.COLUMN, 2.7)
    figure, axes = plt.subplots(1, len(study.tuning), figsize=size, sharey=True, squeeze=False)
    own_sweep = load_sweep(sweep_path)
    told, everyone, shown, budgets = [], [], [], set()
    for axis, name in zip(axes[0], study.tuning, strict=True):
        sweep = load_sweep(sweep_path.with_name(f"{name}.yaml"))
        runs, history = read_tables(folder.parent / name)
        ledger = check(sweep, load_study(sweep), runs, history)
        rates = [factor for factor in sweep.factors if factor.endswith(RATE)]
        if ledger.problems or len(rates) != 1:
            why = "; ".join(ledger.problems) or f"it varies {', '.join(sweep.factors)}"
            raise GridError(f"the tuning sweep {name} is incomplete or tunes no rate: {why}")
        (rate,) = rates
        budgets.add((len(sweep.cells), tuple(sweep.seeds), sweep.fixed.get("epochs")))
        others = [factor for factor in sweep.factors if factor != rate]
        column = f"val/{study.metric.split('/')[-1]}"
        counting = runs[runs["run_id"].isin(ledger.counting)]
        scores = counting.assign(score=counting[column] * style.display_factor(study))
        groups = scores.groupby(others) if others else [((), scores)]
        for i, (levels, own) in enumerate(groups):
            words = [study.level_label(f, v) for f, v in zip(others, levels, strict=True)]
            look = {"color": style.colour(i), "marker": style.marker(i)}
            axis.plot(own[rate], own["score"], linestyle="", label=", ".join(words) or name, **look)
        mean = scores.groupby(rate)["score"].mean()
        best = float(mean.idxmin() if study.direction == "lower" else mean.idxmax())
        if own_sweep.fixed.get(rate) != best:
            raise GridError(
                f"{name} has its best mean at {rate} = {best:g}, but {own_sweep.name} takes "
                f"{own_sweep.fixed.get(rate)}"
            )
        if set(sweep.seeds) & set(own_sweep.seeds):
            raise GridError(f"{name} was tuned on seeds that {own_sweep.name} tests")
        axis.axvline(best, color="0.8", linewidth=5, zorder=0)
        axis.set_xscale("log")
        axis.set_xticks(list(mean.index), [f"{value:g}" for value in mean.index])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("Learning rate")
        fixed = sweep.fixed.get("optimizer", name)
        axis.set_title(study.level_label("optimizer", fixed), fontsize=8)
        told.append(f"{study.level_label('optimizer', fixed)} {best:g}")
        everyone += ledger.counting
        shown.append(scores["score"].to_numpy())
    if len(budgets) > 1:
        raise GridError(f"{', '.join(study.tuning)} had unlike budgets: {sorted(budgets)}")
    ((count, seeds, epochs),) = budgets
    words = style.part_name("val", study)
    axes[0, 0].set_ylabel(f"{words}{style.unit(study)}")
    style.metric_scale(list(axes[0]), np.concatenate(shown))
    style.legend_above(figure, axes[0, 0])
    caption = (
        f"{words} at the end of the tuning runs against the learning rate, one dot a run "
        f"({', '.join(study.tuning)}: {count} cells each, {epochs} epoch(s), n = {len(seeds)} "
        f"seed(s), which the study does not use). Grey: the rate with the best mean, which the "
        f"study takes ({'; '.join(told)}). Chosen on validation; no test was made."
    )
    return figure, caption, everyone
