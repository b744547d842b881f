"""Show how often the analysis errs: false alarms where nothing differs, coverage of intervals.

    python -m analysis.calibrate sweeps/gtsrb_short.yaml --studies 2000
    python -m analysis.calibrate sweeps/gtsrb_short.yaml --real analysis/results/gtsrb_short

Made-up studies go through the same contrasts, tests and ladder as real ones: some in which nothing
differs, and some with an effect of the first factor of a known size. With --real the scores of a
real study are dealt anew among the cells of each seed: what it finds is a false alarm.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from analysis.grid import GridError, Study, Sweep, load_study, load_sweep
from analysis.runs.completeness import check, scores
from analysis.runs.tables import TableError, read_tables
from analysis.statistics import contrasts, grades

CLAIMS = ("preliminary_support", "support_small", "meaningful")
NOISE = {  # of a run, in standard deviations, beside a seed effect of the same size
    "normal": lambda rng, size: rng.normal(0, 1, size),
    "skewed": lambda rng, size: rng.exponential(1, size),
}


@dataclass(frozen=True)
class Tally:
    """Counts over studies.

    ``false_alarms``: studies with a claim on a contrast that is truly 0; ``found``: claims on those
    that are not, of ``effects``; ``covering`` (studies,): each study's share of intervals that hold
    the true difference; ``confidence``: what these intervals promise.
    """

    studies: int
    false_alarms: int
    effects: int
    found: int
    covering: np.ndarray
    confidence: float


def simulate(
    sweep: Sweep,
    study: Study,
    n: int,
    studies: int,
    noise: str,
    rng: np.random.Generator,
    effect: float = 0.0,
) -> Tally:
    """Analyse made-up studies of ``n`` seeds; the first factor's later levels add ``effect``.

    In standard deviations of a run's noise; with 0 nothing differs.
    """
    if not sweep.factors:
        raise GridError(f"{sweep.name} varies nothing but the seed: there is nothing to compare")
    levels = next(iter(sweep.factors.values()))
    means = np.array([effect * (levels.index(cell[0]) > 0) for cell in sweep.cells])
    values = (
        means[:, None] + NOISE[noise](rng, (len(sweep.cells), n)) + rng.normal(0, 1, n)
        for _ in range(studies)
    )
    return _tally(sweep, study, values, studies, means)


def reshuffle(
    sweep: Sweep,
    study: Study,
    table: np.ndarray,
    studies: int,
    rng: np.random.Generator,
    paired: bool = True,
) -> Tally:
    """Analyse a real study's scores (cells, seeds), dealt anew among the cells of each seed."""
    values = (rng.permuted(table, axis=0) for _ in range(studies))
    return _tally(sweep, study, values, studies, np.zeros(len(sweep.cells)), paired)


def _tally(
    sweep: Sweep,
    study: Study,
    values: Iterable[np.ndarray],
    studies: int,
    means: np.ndarray,
    paired: bool = True,
) -> Tally:
    """Count over ``values``, tables (cells, seeds) whose cells truly have ``means``."""
    by_cell = {cell: [mean] for cell, mean in zip(sweep.cells, means, strict=True)}
    truth = [float(c.differences[0]) for c in contrasts.build(sweep, study, by_cell)]
    alarms, found, covering, confidence = 0, 0, [], 0.0
    for table in tqdm(values, total=studies, unit="study", disable=None):
        built = contrasts.build(sweep, study, dict(zip(sweep.cells, table, strict=True)))
        tested = contrasts.test(built, study.alpha, paired)
        states = [grades.decide(t, len(tested), study, rules_agree=True) for t in tested]
        claims = [state in CLAIMS for state in states]
        alarms += any(claim for claim, true in zip(claims, truth, strict=True) if true == 0)
        found += sum(claim for claim, true in zip(claims, truth, strict=True) if true != 0)
        pairs = zip(tested, truth, strict=True)
        covering.append(np.mean([t.interval.low <= true <= t.interval.high for t, true in pairs]))
        confidence = tested[0].interval.confidence
    effects = studies * sum(true != 0 for true in truth)
    return Tally(studies, alarms, effects, found, np.array(covering), confidence)


def describe(name: str, tally: Tally, study: Study) -> str:
    """Return the rates with 95 % intervals: Clopper & Pearson's for alarms, normal for coverage.

    The intervals of one study are not independent: the study is the unit there too.
    """
    alarms = binomtest(tally.false_alarms, tally.studies).proportion_ci()
    mean = tally.covering.mean()
    half = 1.96 * tally.covering.std() / np.sqrt(tally.studies)
    found = f", effects found {tally.found / tally.effects:.3f}" if tally.effects else ""
    return (
        f"{name}: false alarms in {tally.false_alarms} of {tally.studies} studies = "
        f"{tally.false_alarms / tally.studies:.4f} ({alarms.low:.4f} to {alarms.high:.4f}; at most "
        f"{study.alpha} is right), interval coverage {mean:.4f} ({mean - half:.4f} to "
        f"{min(1.0, mean + half):.4f}; at least {tally.confidence:.4g} is right){found}"
    )


def main() -> None:
    """Show how often the analysis errs on studies of which the truth is known."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="the sweep's YAML: its cells and family are used")
    parser.add_argument("--studies", type=int, default=2000, help="made-up studies per line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 10], help="seeds per variant")
    parser.add_argument(
        "--effect",
        type=float,
        default=1.5,
        help="size of the known effect, in standard deviations of a run's noise",
    )
    parser.add_argument("--real", type=Path, help="analysis/results/<study> to deal anew")
    arguments = parser.parse_args()
    if arguments.studies < 1 or min(arguments.seeds) < 1:
        parser.error("--studies and --seeds must be 1 or more")
    rng = np.random.default_rng(0)
    try:
        sweep = load_sweep(arguments.sweep)
        study = load_study(sweep).model_copy(update={"smallest_effect": None})
        if study.references:
            raise GridError(
                f"{sweep.name} has one variant, beside published scores: there is nothing to deal "
                "among variants; calibrate takes a sweep with factors"
            )
        if arguments.real:
            runs, history = read_tables(arguments.real)
            ledger = check(sweep, study, runs, history)
            if ledger.problems:
                raise GridError(f"{arguments.real} is incomplete: {ledger.problems[0]}")
            by_cell = scores(sweep, ledger, runs, study.score_column())
            table = np.array([by_cell[cell] for cell in sweep.cells])
            paired = not ledger.unpaired
            tally = reshuffle(sweep, study, table, arguments.studies, rng, paired)
            print(describe(f"{arguments.real}, dealt anew", tally, study))
            return
        for n in arguments.seeds:
            for noise in NOISE:
                for effect in (0.0, arguments.effect):
                    tally = simulate(sweep, study, n, arguments.studies, noise, rng, effect)
                    what = f"an effect of {effect:g} SD" if effect else "no effect"
                    print(describe(f"{n} seeds, {noise} noise, {what}", tally, study), flush=True)
    except (GridError, TableError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
