"""The words of the report: one sentence a contrast, no stronger than its evidence."""

import math

from analysis.grid import REFERENCE, Study
from analysis.statistics import rank_tests
from analysis.statistics.contrasts import Contrast, Tested

SUPPORTED = ("preliminary_support", "support_small", "meaningful")

# What each rung of the ladder means, from the least to the most said; δ: the smallest effect that
# the study declared to matter.
GRADES = {
    "not_testable": "the design could not have given a Holm p below α, or nothing differed at all",
    "inconclusive": "Holm p is not below α, and the interval is too wide to say ±δ either",
    "suggestive": "a direction that does not survive the correction, or depends on the score rule",
    "preliminary_support": "Holm p is below α and the interval excludes 0",
    "support_small": "the same, and the whole interval lies inside ±δ",
    "practically_equivalent": "the interval at 1 - 2 α lies inside ±δ",
    "meaningful": "Holm p is below α and the whole interval lies beyond δ",
}

MANY = 100  # more seeds than these are not counted: the interval then hangs on single runs


def decide(tested: Tested, family: int, study: Study, rules_agree: bool) -> str:
    """Return the rung of the ladder on which a tested contrast stands.

    ``family``: number of contrasts that Holm's correction runs over. ``rules_agree``: whether the
    other score rules lead to the same conclusion. Intervals are exact; see statistics in README.
    """
    alpha, delta = study.alpha, study.smallest_effect
    interval, narrow = tested.interval, tested.interval_90
    if tested.smallest_p * family >= alpha or tested.all_equal:
        return "not_testable"
    if tested.p_holm < alpha and (interval.low > 0 or interval.high < 0):
        if not rules_agree:
            return "suggestive"
        if delta and (interval.low > delta or interval.high < -delta):
            return "meaningful"
        if delta and -delta < interval.low and interval.high < delta:
            return "support_small"
        return "preliminary_support"
    if not rules_agree:
        return "suggestive"
    if delta and -delta < narrow.low and narrow.high < delta:
        return "practically_equivalent"
    if tested.test.p < alpha:
        return "suggestive"
    return "inconclusive"


def sentence(
    state: str, tested: Tested, family: int, study: Study, epochs: int, rules_agree: bool
) -> str:
    """Return the sentence for a contrast in ``state``, with its numbers and its scope."""
    scope = (
        f"on this data set and {_part(study)} set, with a budget of {epochs} epochs, {tested.n} "
        "seeds and these learning rates"
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
    if tested.all_equal and tested.contrast.parts[0][0] == REFERENCE:
        return f"{what}: every run has the published score, to its last digit."
    if tested.all_equal:
        return (
            f"{what}: all {tested.n} differences are zero; both variants probably ran the same "
            "code. Nothing can be concluded."
        )
    return (
        f"{what}: this design could not have given p < {format_p(study.alpha)} (n = {tested.n}, "
        f"smallest p {format_p(tested.smallest_p)}, {family} comparison(s) under Holm's "
        f"correction): description only. {_numbers(tested, study)}."
    )


def _inconclusive(tested: Tested, study: Study) -> str:
    interval, delta, more = tested.interval, study.smallest_effect, ""
    half = (interval.high - interval.low) / 2
    if delta and half > delta:
        extra = max(1, math.ceil(tested.n * (half / delta) ** 2) - tested.n)
        about = f"about {extra}" if extra <= MANY else f"more than {MANY}"
        more = (
            f" An answer to ±{amount(delta, study)} would take {about} more seeds, in a study "
            "planned with that number."
        )
    return (
        f"{subject(tested.contrast, study)}: inconclusive; the {tested.n} seeds are compatible "
        f"with anything from {_range(interval, study)}{_unit(study)}.{more} "
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
    narrow = tested.interval_90
    return (
        f"{subject(tested.contrast, study)}: practically equivalent within "
        f"±{amount(study.smallest_effect, study)}, the margin set beforehand "
        f"({100 * narrow.confidence:.3g} % interval {_range(narrow, study)}), {scope}. "
        f"{_numbers(tested, study)}."
    )


def _supported(state: str, tested: Tested, study: Study, scope: str) -> str:
    ending, delta = "", study.smallest_effect
    if state == "support_small":
        ending = (
            f"; detectable, but smaller than ±{amount(delta, study)}, which was said beforehand to "
            "matter"
        )
    if state == "meaningful":
        ending = f"; at least as large as the margin of {amount(delta, study)} set beforehand"
    return (
        f"Preliminary evidence that {_claim(tested, study)}, {scope}{ending}. "
        f"{_numbers(tested, study)}."
    )


def qualification(row: dict, rows: list[dict], secondary: list[dict], study: Study) -> str:
    """Return a warning, or nothing, that a main effect is an average over unlike simple effects.

    ``row``: a primary contrast as results.json has it, one of ``rows``; ``secondary``: the simple
    effects.
    """
    part, *more = row["parts"]
    if more:
        return ""
    for other in rows:
        factors = [name for name, _, _ in other["parts"]]
        if len(factors) == 2 and part[0] in factors and other["state"] in SUPPORTED:
            (b,) = set(factors) - {part[0]}
            return (
                f" This is an average: the effect depends on {study.factor_label(b)} (see the "
                "interaction and the simple effects)."
            )
    own = [simple for simple in secondary if simple["levels"] == part]
    sure = [simple for simple in own if simple["p_holm"] < study.alpha]
    if {simple["difference"] > 0 for simple in sure} == {True, False}:
        return " This is an average: the simple effects have opposite signs."
    return ""


def other_scale(name: str) -> str:
    """Return the warning that an interaction's conclusion belongs to one scale only."""
    return f" Not scale-robust: on the {name} the conclusion is another."


def subject(contrast: Contrast, study: Study) -> str:
    """Name what a contrast compares, in words."""
    (a, a1, a2), *rest = contrast.parts
    if a == REFERENCE:
        return f"{_cap(study.level_label(a, a2))} against {a1}"
    if not rest:
        return f"{_cap(study.level_label(a, a2))} instead of {study.level_label(a, a1)}"
    ((b, _, _),) = rest
    return f"Interaction of {study.factor_label(a)} and {study.factor_label(b)}"


def amount(value: float, study: Study) -> str:
    """Show a size of the metric: percentage points for an error, four decimals for the rest."""
    return f"{digits(value, study)}{_unit(study)}"


def _claim(tested: Tested, study: Study) -> str:
    (a, a1, a2), *rest = tested.contrast.parts
    quantity = f"{_part(study)} {study.quantity}"
    up = tested.interval.estimate > 0
    better = "better" if up == (study.direction == "higher") else "worse"
    if a == REFERENCE:
        return (
            f"{study.level_label(a, a2)} has a {'higher' if up else 'lower'} ({better}) {quantity} "
            f"than the published {digits(tested.contrast.first[0], study)}{' %' * study.percent} "
            f"({a1})"
        )
    if not rest:
        return (
            f"{study.level_label(a, a2)} instead of {study.level_label(a, a1)} gives a "
            f"{'higher' if up else 'lower'} ({better}) {quantity}"
        )
    ((b, b1, b2),) = rest
    return (
        f"the change in {quantity} from {study.level_label(a, a1)} to {study.level_label(a, a2)} "
        f"is {'higher' if up else 'lower'} with {study.level_label(b, b2)} than with "
        f"{study.level_label(b, b1)}"
    )


def _part(study: Study) -> str:
    return "validation" if study.metric.startswith("val/") else "test"


def _numbers(tested: Tested, study: Study) -> str:
    test, interval = tested.test, tested.interval
    if tested.paired:
        below = interval.estimate <= 0
        count = test.negative if below else test.positive
        last = f"{'below' if below else 'above'} zero in {count} of {tested.n} seeds"
    else:
        last = f"Mann–Whitney, as the seeds are no pairs; A12 = {test.a12:.2f}"
    p = f"{'exact ' * tested.exact}p = {format_p(test.p)}"
    given = f"{100 * interval.confidence:.3g} % interval {_range(interval, study)}; "
    return (
        f"Difference {signed(interval.estimate, study)}{_unit(study)} "
        f"({given * (interval.confidence > 0)}n = {tested.n}, "
        f"{p}, Holm p = {format_p(tested.p_holm)}, {last})"
    )


def _range(interval: rank_tests.Interval, study: Study) -> str:
    return f"{signed(interval.low, study)} to {signed(interval.high, study)}"


def signed(value: float, study: Study) -> str:
    """Show a difference in the metric's unit, with its sign."""
    shown = digits(abs(value), study)
    sign = "" if float(shown) == 0 else "+" if value > 0 else "−"
    return sign + shown


def digits(value: float, study: Study) -> str:
    """Show a value in the metric's unit, without it: 100 times an error, else four decimals."""
    return f"{100 * value:.2f}" if study.percent else f"{value:.4f}"


def _unit(study: Study) -> str:
    return " percentage points" if study.percent else ""


def format_p(p: float) -> str:
    """Show p to two significant digits, without the zero before the point."""
    return f"{p:.2g}".lstrip("0") if p >= 1e-4 else f"{p:.1e}"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
