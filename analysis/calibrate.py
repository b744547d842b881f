"""Show how often the analysis errs: false alarms where nothing differs, coverage of intervals.

    python -m analysis.calibrate gtsrb_short --studies 2000
    python -m analysis.calibrate gtsrb_short --permute analysis/results/gtsrb_short

Made-up studies go through the same contrasts, tests and grades as real ones: some in which nothing
differs, and some with an effect of the first factor of a known size. With --permute the scores of a
real study are permuted among the variants of each seed: what it finds is a false alarm.
"""

import argparse
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from analysis.runs import data as study_data
from analysis.statistics import contrasts, grades
from lib.spec.declaration import StudyError
from lib.spec.errors import UserError, command
from lib.spec.study import Study, load_study

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
    study: Study,
    n: int,
    studies: int,
    noise: str,
    rng: np.random.Generator,
    effect: float = 0.0,
) -> Tally:
    """Analyze made-up studies of ``n`` seeds; the first factor's later levels add ``effect``.

    In standard deviations of a run's noise; with 0 nothing differs.
    """
    if not study.factors:
        raise StudyError(f"{study.name} varies nothing but the seed: there is nothing to compare")
    levels = next(iter(study.factors.values()))
    means = np.array([effect * (levels.index(variant[0]) > 0) for variant in study.variants])
    values = (
        means[:, None] + NOISE[noise](rng, (len(means), n)) + rng.normal(0, 1, n)
        for _ in range(studies)
    )
    return _tally(study, values, studies, means)


def permute(
    study: Study,
    table: np.ndarray,
    studies: int,
    rng: np.random.Generator,
    paired: bool = True,
) -> Tally:
    """Analyze a real study's scores (variants, seeds), permuted among the variants of each seed."""
    values = (rng.permuted(table, axis=0) for _ in range(studies))
    return _tally(study, values, studies, np.zeros(len(table)), paired)


def _tally(
    study: Study,
    values: Iterable[np.ndarray],
    studies: int,
    means: np.ndarray,
    paired: bool = True,
) -> Tally:
    """Count over ``values``, tables (variants, seeds) whose variants truly have ``means``."""
    truth = [float(c.differences[0]) for c in contrasts.build(study, means[:, None])]
    alarms, found, covering, confidence = 0, 0, [], 0.0
    for table in tqdm(values, total=studies, unit="study", disable=None):
        built = contrasts.build(study, table)
        tested = contrasts.run_tests(built, study.alpha, paired, delta=study.smallest_effect)
        states = [grades.grade(t, len(tested), study, rules_agree=True) for t in tested]
        claims = [grade in grades.SUPPORTED for grade in states]
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


@command
def main() -> None:
    """Show how often the analysis errs on studies of which the truth is known."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the path of its sweep's YAML")
    parser.add_argument("--study", dest="declaration", type=Path, help="the declaration's YAML")
    parser.add_argument("--studies", type=int, default=2000, help="made-up studies per line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 10], help="seeds per variant")
    parser.add_argument(
        "--effect",
        type=float,
        default=1.5,
        help="size of the known effect, in standard deviations of a run's noise",
    )
    parser.add_argument("--permute", type=Path, help="folder of a study's tables to permute")
    arguments = parser.parse_args()
    if arguments.studies < 1 or min(arguments.seeds) < 1:
        parser.error("--studies and --seeds must be 1 or more")
    rng = np.random.default_rng(0)
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    declared = load_study(name, sweep=sweep, declaration=arguments.declaration)
    if not declared.factors:
        raise StudyError(
            f"{name} has one variant next to published scores: there is nothing to permute among "
            "variants; calibrate takes a study with factors"
        )
    # Made-up scores are in standard deviations, for which a declared smallest effect is no size.
    declaration = declared.declaration.model_copy(update={"smallest_effect": None})
    study = dataclasses.replace(declared, declaration=declaration)
    if arguments.permute:
        data = study_data.load(study, arguments.permute)
        if data.completeness.problems:
            problem = data.completeness.problems[0]
            raise UserError(f"{arguments.permute} is incomplete: {problem}")
        tally = permute(study, data.scores, arguments.studies, rng, data.paired)
        print(describe(f"{arguments.permute}, permuted", tally, study))
        return
    for n in arguments.seeds:
        for noise in NOISE:
            for effect in (0.0, arguments.effect):
                tally = simulate(study, n, arguments.studies, noise, rng, effect)
                what = f"an effect of {effect:g} SD" if effect else "no effect"
                print(describe(f"{n} seeds, {noise} noise, {what}", tally, study), flush=True)


if __name__ == "__main__":
    main()
