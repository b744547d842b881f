"""The grade of a contrast: which claims its exact p-values allow, each kind corrected by Holm."""

from analysis.statistics.testing import Tested
from lib.spec.study import Study

# What each grade means; δ: the smallest effect of interest that the study declares.
GRADES = {
    "not_testable": "no outcome of this design could have reached α, or all differences are zero",
    "inconclusive": "none of the claims below; the interval says what the data are compatible with",
    "preliminary_support": "a difference: Holm p < α",
    "support_small": "a difference, and it lies within ±δ: Holm p < α for both",
    "meaningful": "a difference, and it lies beyond ±δ: Holm p < α for both",
    "practically_equivalent": "the difference lies within ±δ (Holm p < α), and none is shown",
}
SUPPORTED = ("preliminary_support", "support_small", "meaningful")
CLAIMS = (*SUPPORTED, "practically_equivalent")


def decide(
    p_difference: float, p_beyond: float | None, p_within: float | None, alpha: float
) -> str:
    """Return the grade that Holm-adjusted p-values allow; None where there is no δ."""
    within = p_within is not None and p_within < alpha
    if p_difference < alpha:
        if p_beyond is not None and p_beyond < alpha:
            return "meaningful"
        return "support_small" if within else "preliminary_support"
    return "practically_equivalent" if within else "inconclusive"


def is_testable(tested: Tested, family: int, alpha: float) -> bool:
    """Say whether a difference could have been shown with these seeds, ties and zeros."""
    return tested.smallest_p * family < alpha and not tested.all_equal


def grade(tested: Tested, family: int, study: Study) -> str:
    """Return the grade of a tested contrast; ``family``: contrasts that are tested together."""
    if not is_testable(tested, family, study.alpha):
        return "not_testable"
    return decide(tested.p_holm, tested.p_beyond, tested.p_within, study.alpha)


def on_other_items(grade: str, both: tuple[float, float] | None, delta: float | None) -> str:
    """Return the grade of a claim against a published score, which other test items must allow.

    The published score was measured on the same finite test set by somebody else's seeds, so a
    claim must hold for seeds and test items together. ``both``: the interval over both, or None
    where the runs' outputs are not known; then no claim stands.
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
