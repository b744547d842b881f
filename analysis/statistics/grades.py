"""The grade of a contrast: which claims its exact p-values allow, each kind corrected by Holm."""

from collections.abc import Sequence

from analysis.statistics.testing import Tested
from lib.spec.study import Study

# What each grade means; δ: the smallest effect of interest that the study declares.
GRADES = {
    "not_testable": "this design could not have shown any difference (its smallest Holm p is not "
    "below α), or all differences are zero",
    "inconclusive": "none of the claims below; the interval says what the data are compatible with",
    "preliminary_support": "a difference: Holm p < α",
    "support_small": "a difference, and it lies within ±δ: Holm p < α for both",
    "meaningful": "a difference, and it lies beyond ±δ: Holm p < α for both",
    "practically_equivalent": "the difference lies within ±δ (Holm p < α), and none is shown",
}
SUPPORTED = ("preliminary_support", "support_small", "meaningful")
CLAIMS = (*SUPPORTED, "practically_equivalent")


def decide(
    p_difference: float,
    p_beyond: float | None,
    p_within: float | None,
    alpha: float,
    same_without_failures: bool = True,
) -> str:
    """Return the grade that Holm-adjusted p-values allow; None where there is no δ.

    ``same_without_failures``: whether the seeds without a failed run show the same difference. If
    not, a difference over all runs and a claim about ±δ without the failed ones are about different
    things, and only the first is made.
    """
    within = p_within is not None and p_within < alpha
    if p_difference < alpha:
        if not same_without_failures:
            return "preliminary_support"
        if p_beyond is not None and p_beyond < alpha:
            return "meaningful"
        return "support_small" if within else "preliminary_support"
    return "practically_equivalent" if within else "inconclusive"


def is_testable(tested: Tested, family: int, alpha: float) -> bool:
    """Say whether a difference is shown, or could have been with these seeds, ties and zeros."""
    could = tested.smallest_p * family < alpha or tested.p_holm < alpha
    return could and not tested.all_equal


def grade(tested: Tested, family: int, study: Study) -> str:
    """Return the grade of a tested contrast; ``family``: contrasts that are tested together."""
    if not is_testable(tested, family, study.alpha):
        return "not_testable"
    same = tested.same_without_failures(study.alpha)
    return decide(tested.p_holm, tested.p_beyond, tested.p_within, study.alpha, same)


def under_other_rules(grade: str, others: Sequence[tuple[str, bool]]) -> str:
    """Return the grade that all score rules allow: others can only demote.

    ``others``: under each other rule the grade, and whether it concludes the same about a
    difference (the same direction, or none).
    """
    if grade not in CLAIMS:
        return grade
    if not all(same for _, same in others):
        return "inconclusive"
    if all(other == grade for other, _ in others):
        return grade
    return "inconclusive" if grade == "practically_equivalent" else "preliminary_support"


def on_other_items(grade: str, both: tuple[float, float] | None, delta: float | None) -> str:
    """Return the grade of a claim against a published score, which other test items must allow.

    The published score was measured on the same finite test set by somebody else's seeds, so a
    claim must hold for seeds and test items together. ``both``: the interval over both, or None
    where the runs' outputs are not known; then no claim is made.
    """
    if grade not in CLAIMS:
        return grade
    if both is None:
        return "inconclusive"
    low, high = both
    inside = delta is not None and -delta < low and high < delta
    if grade == "practically_equivalent":
        return grade if inside else "inconclusive"
    if low <= 0 <= high:
        return "inconclusive"
    if grade == "meaningful" and not (delta is not None and (low > delta or high < -delta)):
        return "preliminary_support"
    if grade == "support_small" and not inside:
        return "preliminary_support"
    return grade
