"""Grade a contrast: which claims its p-values allow, each kind of claim corrected by Holm."""

from collections.abc import Sequence

from analysis.statistics.testing import Tested
from lib.spec.study import Study

# What each grade means. δ is the declared smallest effect of interest.
GRADES = {
    "not_testable": "this number of runs, zeros and ties cannot show a difference (the smallest "
    "possible Holm p is not below α), and equivalence is not shown; or all differences are zero",
    "inconclusive": "none of the claims below; the interval shows which differences are compatible "
    "with the data",
    "preliminary_support": "there is a difference (Holm p < α)",
    "support_small": "there is a difference, and it lies within ±δ (Holm p < α for both)",
    "meaningful": "there is a difference, and it lies beyond ±δ (Holm p < α for both)",
    "practically_equivalent": "the difference lies within ±δ (Holm p < α), and the test for a "
    "difference has Holm p ≥ α",
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
    """Return the grade that Holm-adjusted p-values allow.

    ``p_beyond``, ``p_within``: None if no δ is declared. ``same_without_failures``: whether the
    seeds without a failed run show the same difference. If not, only the difference over all runs
    is claimed: a claim about ±δ, which excludes failed runs, may be about another effect.
    """
    within = p_within is not None and p_within < alpha
    if p_difference < alpha:
        if not same_without_failures:
            return "preliminary_support"
        if p_beyond is not None and p_beyond < alpha:
            return "meaningful"
        return "support_small" if within else "preliminary_support"
    return "practically_equivalent" if within else "inconclusive"


def grade(tested: Tested, study: Study) -> str:
    """Return the grade of a contrast."""
    if tested.all_equal:
        return "not_testable"
    found = decide(
        tested.p_holm,
        tested.p_beyond,
        tested.p_within,
        study.alpha,
        tested.same_without_failures(study.alpha),
    )
    floors = tested.design_holm, tested.design_trained, tested.least_holm
    return where_testable(found, *floors, study.alpha)


def where_testable(
    found: str, design: float, design_trained: float, least: float, alpha: float
) -> str:
    """Return the grade ``found`` from p-values, or a weaker one if the design allows no more.

    With too few seeds for any difference, equivalence is not claimed either: such a study could
    end in one way only. The same holds if too few seeds have no failed run. With enough seeds, many
    zeros may show equivalence. ``design``, ``design_trained``: the smallest Holm-adjusted p that
    the numbers of seeds allow, and of seeds without a failed run; ``least``: that zeros and ties
    allow too.
    """
    if design >= alpha:
        return "not_testable"
    if found == "practically_equivalent" and design_trained >= alpha:
        found = "inconclusive"
    return "not_testable" if found == "inconclusive" and least >= alpha else found


def under_other_rules(grade: str, others: Sequence[tuple[str, bool]]) -> str:
    """Return the grade that all score rules allow. Other rules can only lower a grade.

    ``others``: for each other rule, its grade and whether its conclusion about a difference is the
    same (the same direction, or no difference shown).
    """
    if grade not in CLAIMS:
        return grade
    if not all(same for _, same in others):
        return "inconclusive"
    if all(other == grade for other, _ in others):
        return grade
    return "inconclusive" if grade == "practically_equivalent" else "preliminary_support"


def on_other_items(
    grade: str, direction: int, both: tuple[float, float] | None, delta: float | None
) -> str:
    """Return the grade of a contrast with a published score, which new test items must allow too.

    The published score was measured on the same finite test set with other seeds, so a claim must
    hold for seeds and test items together. ``both``: the interval over both, or None if the outputs
    per item are unknown; then no claim is made. ``direction``: the sign of the difference that the
    seeds show, with failed runs, which ``both`` excludes, ranked as worst.
    """
    if grade not in CLAIMS:
        return grade
    if both is None:
        return "inconclusive"
    low, high = both
    inside = delta is not None and -delta < low and high < delta
    if grade == "practically_equivalent":
        return grade if inside else "inconclusive"
    if not (low > 0 if direction > 0 else high < 0):
        return "inconclusive"
    if grade == "meaningful" and not (delta is not None and (low > delta or high < -delta)):
        return "preliminary_support"
    if grade == "support_small" and not inside:
        return "preliminary_support"
    return grade
