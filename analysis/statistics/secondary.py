"""What no grade depends on: simple effects, and the same differences under other tests."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from analysis.statistics import rank_tests
from analysis.statistics.contrasts import Contrast, Part, build, tolerance
from analysis.statistics.intervals import ends
from analysis.statistics.testing import Tested, run_tests
from lib.spec.study import Study
from lib.spec.sweep import show_value


def simple_effects(
    study: Study,
    scores: np.ndarray,
    failed: np.ndarray | None = None,
    resolution: float | None = None,
    paired: bool = False,
    splitting: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Compare all pairs of variants that differ in one factor.

    This is the secondary family, with its own Holm correction, without pairs that a primary
    contrast compares: a second p for the same difference would only confuse. The tests are those of
    the primary contrasts: signed-rank where seeds are paired, else Mann–Whitney, see ``run_tests``.
    Returns one dict per comparison of treatment with baseline (name, levels, variants, at, paired,
    n, statistic, p, p_holm, exact, rank_biserial, difference, ci_low, ci_high, confidence). The
    test and rank_biserial use all runs; n (of baseline and treatment), difference and the
    simultaneous interval exclude failed runs, if paired with their pairs (the last two are None if
    nothing is left). ``scores``, ``failed``: (variants, seeds).
    """
    compared = _single_variants(study, scores, resolution)
    if not compared:
        return []
    tested = run_tests(compared, study.alpha, paired, splitting, failed=failed)
    return [_row(study, one) for one in tested]


def _single_variants(study: Study, scores: np.ndarray, resolution: float | None) -> list[Contrast]:
    """Return a contrast per pair of variants that differ in one factor and are no primary one."""
    sides = [one.sides for one in build(study, scores) if one.kind == "main"]
    primary = [{*a, *b} for a, b in sides if len(a) == len(b) == 1]
    index = {variant: i for i, variant in enumerate(study.variants)}
    found, tied = [], tolerance(scores, resolution)
    for axis, (factor, levels) in enumerate(study.factors.items()):
        for variant, level in itertools.product(study.variants, levels):
            if levels.index(variant[axis]) >= levels.index(level):
                continue
            i, j = index[variant], index[(*variant[:axis], level, *variant[axis + 1 :])]
            if {i, j} in primary:
                continue
            name = factor
            if len(levels) > 2:
                name = f"{factor}: {show_value(level)} - {show_value(variant[axis])}"
            if at := _at(study, variant, factor):
                name += f" at {', '.join(f'{n}={show_value(v)}' for n, v in at)}"
            part = Part(factor, variant[axis], level)
            found.append(Contrast(name, "main", scores[i], scores[j], [part], ([i], [j]), tied))
    return found


def _at(study: Study, variant: Sequence[Any], factor: str) -> list[tuple[str, Any]]:
    """Return the levels of a variant's other factors."""
    return [(n, v) for n, v in zip(study.factors, variant, strict=True) if n != factor]


def _row(study: Study, tested: Tested) -> dict[str, Any]:
    """Return the entry of a simple effect in results.json."""
    ((factor, baseline, treatment),) = tested.contrast.parts
    first, second = (study.variants[side[0]] for side in tested.contrast.sides)
    return {
        "name": tested.contrast.name,
        "levels": [factor, baseline, treatment],
        "variants": [list(first), list(second)],
        "at": _at(study, first, factor),
        "paired": tested.paired,
        "n": [int(side.sum()) for side in tested.kept],
        "statistic": tested.test.statistic,
        "p": tested.test.p,
        "exact": tested.exact,
        "rank_biserial": tested.rank_biserial,
        "p_holm": tested.p_holm,
        "difference": tested.interval and tested.interval.estimate,
        **ends(tested.interval),
    }


def sensitivity(tested: Tested) -> dict[str, float | None]:
    """Return the p of two other paired tests, ``p_sign_flip`` of the mean and ``p_t``.

    Also ``correlation``: Pearson's r over seeds between baseline and treatment, which shows how
    much variance pairing removes. All over the seeds without a failed run. A value is None if it is
    undefined: without pairs, for too few seeds (or, for the sign flips, too many), or without any
    variation. No grade depends on these values.
    """
    if not tested.paired:
        return dict.fromkeys(("p_sign_flip", "p_t", "correlation"))
    tied, kept = tested.contrast.tolerance, np.isfinite(tested.per_seed)
    x, y = tested.contrast.baseline[kept], tested.contrast.treatment[kept]
    d = tested.per_seed[kept]
    varied = len(d) > 2 and np.ptp(d) > 0
    return {
        "p_sign_flip": rank_tests.sign_flip(d, tied) if 1 < len(d) <= 20 else None,
        "p_t": float(ttest_1samp(d, 0).pvalue) if varied else None,
        "correlation": float(np.corrcoef(x, y)[0, 1])
        if len(d) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
        else None,
    }
