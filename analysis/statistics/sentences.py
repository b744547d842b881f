"""A sentence per contrast, no stronger than its grade: first the claim, then the numbers.

The scope (data, budget, seeds, learning rates) is stated once, above the sentences.
"""

import re

from analysis.statistics.contrasts import Contrast
from analysis.statistics.grades import SUPPORTED
from analysis.statistics.intervals import Interval
from analysis.statistics.testing import Tested
from lib.spec.study import Study
from lib.spec.words import capitalize, count

ALPHAS = [k / 200 for k in range(1, 21)]


def sentence(grade: str, tested: Tested, study: Study) -> str:
    """Return claim and numbers of a contrast, to be shown after its grade."""
    what = claim(grade, tested, study)
    return f"{what}." if tested.all_equal else f"{what}: {numbers(grade, tested, study)}."


def claim(grade: str, tested: Tested, study: Study) -> str:
    """Return what the grade claims of a contrast, in one line without numbers."""
    what = subject(tested.contrast, study)
    if grade in SUPPORTED:
        worst = ", failed runs counted as worst" if tested.failures else ""
        return f"{begin(_difference(tested, study))}{_size(grade, study)}{worst}"
    if grade == "practically_equivalent":
        without = (
            f", among {study.declaration.unit}s without failed runs" if tested.failures else ""
        )
        return _equivalence(tested, study) + without
    if not tested.all_equal:
        return what
    if tested.failures:
        return f"{what}: all {tested.n} differences are zero, failed runs counted as worst"
    if tested.contrast.kind == "published":
        return f"{what}: every run has the published score, in all digits shown"
    zero = f"{what}: all {tested.n} differences are zero"
    single = all(len(side) == 1 for side in tested.contrast.sides)
    return f"{zero}; both variants may have run the same code" if single else zero


def numbers(grade: str, tested: Tested, study: Study) -> str:
    """Return a contrast's estimate with its interval and seeds, and the p of its claims."""
    if tested.all_equal:
        return ""
    if tested.trained is None:
        unit = study.declaration.unit
        shown = f"no estimate, since no {unit}s without failed runs are left to compare"
    else:
        shown = _estimate(tested, study)
    return f"{shown}, {_p_value(grade, tested, study)}"


def _p_value(grade: str, tested: Tested, study: Study) -> str:
    if grade == "not_testable":
        zeros = tested.test.n_zero if tested.paired else 0
        least = f"smallest possible Holm p {format_p(tested.least_holm)}"
        return f"{least} ({count(zeros, 'zero difference')})" if zeros else least
    if grade == "practically_equivalent":
        return f"Holm p of equivalence = {format_p(tested.p_within)}"
    unit = study.declaration.unit
    over = f" over all {count(tested.n, unit)}" if tested.failures else ""
    at_floor = tested.p_holm <= tested.least_holm * (1 + 1e-9)
    floor = f", the smallest that these {unit}s can give" if at_floor else ""
    about_delta = ""
    if grade == "meaningful":
        about_delta = f"; beyond ±δ, Holm p = {format_p(tested.p_beyond)}"
    if grade == "support_small":
        about_delta = f"; within ±δ, Holm p = {format_p(tested.p_within)}"
    return f"Holm p = {format_p(tested.p_holm)}{over}{floor}{about_delta}"


def begin(text: str) -> str:
    """Begin a sentence with a capital letter, but leave the name of a setting as it is."""
    return text if re.match(r"\S+ = ", text) else capitalize(text)


def _size(grade: str, study: Study) -> str:
    if grade == "meaningful":
        return f", by more than {study.metric.show_exactly(study.smallest_effect)}"
    if grade == "support_small":
        return f", by less than {study.metric.show_exactly(study.smallest_effect)}"
    return ""


def _equivalence(tested: Tested, study: Study) -> str:
    contrast, metric = tested.contrast, study.metric
    within = f"within ±{metric.show_exactly(study.smallest_effect)}"
    if contrast.kind == "published":
        ours = study.variant_label(())
        return f"{begin(ours)} and {contrast.name} are practically equivalent, {within}"
    if contrast.kind == "interaction":
        return f"{subject(contrast, study)}: practically no interaction, {within}"
    ((factor, baseline, treatment),) = contrast.parts
    return (
        f"{begin(study.level_label(factor, treatment))} and "
        f"{study.level_label(factor, baseline)} are practically equivalent in {metric.title}, "
        f"{within}"
    )


def subject(contrast: Contrast, study: Study) -> str:
    """Name what a contrast compares, in words."""
    if contrast.kind == "published":
        return f"{begin(study.variant_label(()))} against {contrast.name}"
    first, *rest = contrast.parts
    if not rest:
        return (
            f"{begin(study.level_label(first.factor, first.treatment))} instead of "
            f"{study.level_label(first.factor, first.baseline)}"
        )
    (second,) = rest
    return (
        f"Interaction of {study.factor_label(first.factor)} and {study.factor_label(second.factor)}"
    )


def _difference(tested: Tested, study: Study) -> str:
    contrast, metric = tested.contrast, study.metric
    up = tested.direction > 0
    direction = "higher" if up else "lower"
    better = "better" if up == (metric.sign > 0) else "worse"
    if contrast.kind == "published":
        return (
            f"{study.variant_label(())} has a {direction} ({better}) {metric.title} "
            f"than the published {metric.show_with_unit(contrast.baseline[0])} ({contrast.name})"
        )
    first, *rest = contrast.parts
    treatment = study.level_label(first.factor, first.treatment)
    baseline = study.level_label(first.factor, first.baseline)
    if not rest:
        return f"{treatment} gives a {direction} ({better}) {metric.title} than {baseline}"
    (second,) = rest
    return (
        f"the change in {metric.title} from {study.level_label(second.factor, second.baseline)} to "
        f"{study.level_label(second.factor, second.treatment)} is {direction} with {treatment} "
        f"than with {baseline}"
    )


def _estimate(tested: Tested, study: Study) -> str:
    """Return the estimate with its interval, and how many seeds lie on its side of 0."""
    test, interval = tested.trained, tested.interval
    unit = f" {study.metric.difference_unit}" if study.metric.difference_unit else ""
    given = f" [{show_interval(interval, study)}]" if interval.confidence > 0 else ""
    shown = f"{study.metric.show_signed(interval.estimate)}{unit}{given}"
    if not tested.paired:
        shown += f", n = {test.n_x} and {test.n_y} (unpaired, A12 = {test.a12:.2f})"
        return f"{shown} without failed runs" if tested.failures else shown
    below = interval.estimate < 0 or (interval.estimate == 0 and test.negative > test.positive)
    sides = {"below": test.negative, "above": test.positive}
    first, second = ("below", "above") if below else ("above", "below")
    said = f"{first} 0 in {sides[first]}"
    if 2 * sides[first] < test.n:  # not the majority: say the rest
        said += f", {second} 0 in {sides[second]}"
    said += f" of {count(test.n, study.declaration.unit)}"
    return f"{shown}, {said} without failed runs" if tested.failures else f"{shown}, {said}"


def show_interval(interval: Interval, study: Study) -> str:
    """Show an interval with its confidence: "98.3 % CI −0.30, +0.12"."""
    signed = study.metric.show_signed
    return f"{show_level(interval.confidence)} CI {signed(interval.low)}, {signed(interval.high)}"


def show_level(confidence: float) -> str:
    """Show a confidence level in percent: "98.3 %", and "99.96 %" rather than "100 %"."""
    percent, digits = 100 * confidence, 3
    while float(f"{percent:.{digits}g}") >= 100 > percent and digits < 12:
        digits += 1
    return f"{percent:.{digits}g} %"


def format_p(p: float) -> str:
    """Show p to two significant digits, without the zero before the point.

    With more digits if they would be rounded to .05 or another α, so that p and α can be compared.
    """
    if p < 1e-4:
        return f"{p:.1e}"
    digits = 2
    while digits < 6 and p != float(f"{p:.{digits}g}") in ALPHAS:
        digits += 1
    return f"{p:.{digits}g}".lstrip("0")
