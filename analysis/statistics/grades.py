"""The report's words: one sentence per contrast, no stronger than its evidence."""

import math

from analysis.statistics.contrasts import Contrast, Tested
from analysis.statistics.intervals import Interval
from lib.spec.metric import capitalize, count
from lib.spec.study import Study

SUPPORTED = ("preliminary_support", "support_small", "meaningful")

# What each grade means; δ: the smallest effect of interest that the study declares.
GRADES = {
    "not_testable": "the design could not have given a Holm p below α, or nothing differed at all",
    "inconclusive": "Holm p is not below α, and the interval is too wide to say ±δ either",
    "suggestive": "a direction that does not survive the correction, or depends on the score rule",
    "preliminary_support": "Holm p is below α and the interval excludes 0",
    "support_small": "the same, and Holm p of lying within ±δ is below α",
    "practically_equivalent": "Holm p of lying within ±δ is below α",
    "meaningful": "Holm p is below α, also that of lying beyond ±δ",
}

MANY = 100  # more seeds than these are not counted: the interval then depends on single runs


def grade(tested: Tested, family: int, study: Study, rules_agree: bool) -> str:
    """Return the grade of a tested contrast.

    ``family``: number of contrasts that Holm's correction runs over. ``rules_agree``: whether the
    other score rules lead to the same conclusion. Intervals are exact; see Methods in the README.
    """
    alpha, interval = study.alpha, tested.interval
    beyond = tested.p_beyond is not None and tested.p_beyond < alpha
    within = tested.p_within is not None and tested.p_within < alpha
    if tested.smallest_p * family >= alpha or tested.all_equal:
        return "not_testable"
    if tested.p_holm < alpha and (interval.low > 0 or interval.high < 0):
        if not rules_agree:
            return "suggestive"
        if beyond:
            return "meaningful"
        if within:
            return "support_small"
        return "preliminary_support"
    if not rules_agree:
        return "suggestive"
    if within:
        return "practically_equivalent"
    if tested.test.p < alpha:
        return "suggestive"
    return "inconclusive"


def sentence(
    state: str, tested: Tested, family: int, study: Study, budget: str, rules_agree: bool
) -> str:
    """Return the sentence for a contrast of grade ``state``, with its numbers and its scope.

    ``budget``: in words, such as "4 epochs".
    """
    part = f"{study.metric.part} set" if study.metric.part else "evaluation"
    scope = (
        f"on this data set and {part}, with a budget of {budget}, "
        f"{count(tested.n, 'seed')} and these learning rates"
    )
    if state == "not_testable":
        return _not_testable(tested, family, study)
    if state == "inconclusive":
        return _inconclusive(tested, study)
    if state == "suggestive":
        return _suggestive(tested, study, scope, rules_agree)
    if state == "practically_equivalent":
        return _equivalent(tested, study, scope)
    return _supported(state, tested, study, scope)


def _not_testable(tested: Tested, family: int, study: Study) -> str:
    what = subject(tested.contrast, study)
    if tested.all_equal and tested.contrast.kind == "published":
        return f"{what}: every run has the published score, to its last digit."
    if tested.all_equal:
        return (
            f"{what}: all {tested.n} differences are zero; both variants probably ran the same "
            "code. Nothing can be concluded."
        )
    zeros = tested.test.n_zero if tested.paired else 0
    are = "is" if zeros == 1 else "are"
    zero = f"of which {count(zeros, 'difference')} {are} zero, " if zeros else ""
    return (
        f"{what}: this design could not have given p < {format_p(study.alpha)} (n = {tested.n}, "
        f"{zero}smallest p {format_p(tested.smallest_p)}, {count(family, 'comparison')} under "
        f"Holm's correction): description only. {_numbers(tested, study)}."
    )


def _inconclusive(tested: Tested, study: Study) -> str:
    interval, delta, more = tested.interval, study.smallest_effect, ""
    half = (interval.high - interval.low) / 2
    if delta and half > delta:
        extra = max(1, math.ceil(tested.n * (half / delta) ** 2) - tested.n)
        about = f"about {count(extra, 'more seed')}"
        about = about if extra <= MANY else f"more than {MANY} more seeds"
        more = (
            f" An answer to ±{study.metric.show_amount(delta)} would take {about}, in a study "
            "planned with that number."
        )
    unit = f" {study.metric.difference_unit}" if study.metric.difference_unit else ""
    return (
        f"{subject(tested.contrast, study)}: inconclusive; the {count(tested.n, 'seed')} are "
        f"compatible with anything from {_range(interval, study)}{unit}.{more} "
        f"{_numbers(tested, study)}."
    )


def _suggestive(tested: Tested, study: Study, scope: str, rules_agree: bool) -> str:
    if not rules_agree:
        why = "that depends on the score rule (see the table of score rules)"
    elif tested.test.p < study.alpha <= tested.p_holm:
        why = "that does not survive the correction for several comparisons"
    else:
        why = "whose interval still touches zero (ties among so few seeds)"
    return (
        f"{subject(tested.contrast, study)}: suggestive only, {scope}; a direction {why}. "
        f"{_numbers(tested, study)}."
    )


def _equivalent(tested: Tested, study: Study, scope: str) -> str:
    return (
        f"{subject(tested.contrast, study)}: practically equivalent within "
        f"±{study.metric.show_amount(study.smallest_effect)}, the margin set beforehand "
        f"(two one-sided tests, Holm p = {format_p(tested.p_within)}), {scope}. "
        f"{_numbers(tested, study)}."
    )


def _supported(state: str, tested: Tested, study: Study, scope: str) -> str:
    ending, delta = "", study.smallest_effect
    if state == "support_small":
        ending = (
            f"; detectable, but smaller than ±{study.metric.show_amount(delta)}, which was said "
            "beforehand to matter"
        )
    if state == "meaningful":
        ending = f"; at least as large as the margin of {study.metric.show_amount(delta)} set "
        ending += "beforehand"
    return (
        f"Preliminary evidence that {_claim(tested, study)}, {scope}{ending}. "
        f"{_numbers(tested, study)}."
    )


def qualification(row: dict, rows: list[dict], secondary: list[dict], study: Study) -> str:
    """Return a warning, or nothing, that a main effect is an average over unlike simple effects.

    ``row``: a primary contrast as results.json has it, one of ``rows``; ``secondary``: the simple
    effects.
    """
    if row["kind"] != "main":
        return ""
    ((factor, *_),) = row["parts"]
    for other in rows:
        factors = [name for name, _, _ in other["parts"]]
        if other["kind"] == "interaction" and factor in factors and other["grade"] in SUPPORTED:
            (b,) = set(factors) - {factor}
            return (
                f" This is an average: the effect depends on {study.factor_label(b)} (see the "
                "interaction and the simple effects)."
            )
    own = [simple for simple in secondary if simple["levels"] == row["parts"][0]]
    sure = [simple for simple in own if simple["p_holm"] < study.alpha]
    if {simple["difference"] > 0 for simple in sure} == {True, False}:
        return " This is an average: the simple effects have opposite signs."
    return ""


def other_scale(name: str) -> str:
    """Return the warning that an interaction's conclusion belongs to one scale only."""
    return f" Not scale-robust: on the {name} the conclusion is another."


def subject(contrast: Contrast, study: Study) -> str:
    """Name what a contrast compares, in words."""
    if contrast.kind == "published":
        return f"{capitalize(study.variant_label(()))} against {contrast.name}"
    first, *rest = contrast.parts
    if not rest:
        return (
            f"{capitalize(study.level_label(first.factor, first.treatment))} instead of "
            f"{study.level_label(first.factor, first.baseline)}"
        )
    (second,) = rest
    return (
        f"Interaction of {study.factor_label(first.factor)} and {study.factor_label(second.factor)}"
    )


def _claim(tested: Tested, study: Study) -> str:
    contrast, metric = tested.contrast, study.metric
    up = tested.interval.estimate > 0
    direction = f"{'higher' if up else 'lower'}"
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
        return f"{treatment} instead of {baseline} gives a {direction} ({better}) {metric.title}"
    (second,) = rest
    return (
        f"the change in {metric.title} from {baseline} to {treatment} is {direction} with "
        f"{study.level_label(second.factor, second.treatment)} than with "
        f"{study.level_label(second.factor, second.baseline)}"
    )


def _numbers(tested: Tested, study: Study) -> str:
    test, interval = tested.test, tested.interval
    if tested.paired:
        below = interval.estimate <= 0
        number = test.negative if below else test.positive
        last = f"{'below' if below else 'above'} zero in {number} of {count(tested.n, 'seed')}"
    else:
        last = f"Mann–Whitney, as the seeds are no pairs; A12 = {test.a12:.2f}"
    p = f"{'exact ' * tested.exact}p = {format_p(test.p)}"
    given = f"{100 * interval.confidence:.3g} % interval {_range(interval, study)}; "
    unit = f" {study.metric.difference_unit}" if study.metric.difference_unit else ""
    return (
        f"Difference {study.metric.show_signed(interval.estimate)}{unit} "
        f"({given * (interval.confidence > 0)}n = {tested.n}, "
        f"{p}, Holm p = {format_p(tested.p_holm)}, {last})"
    )


def _range(interval: Interval, study: Study) -> str:
    signed = study.metric.show_signed
    return f"{signed(interval.low)} to {signed(interval.high)}"


def format_p(p: float) -> str:
    """Show p to two significant digits, without the zero before the point."""
    return f"{p:.2g}".lstrip("0") if p >= 1e-4 else f"{p:.1e}"
