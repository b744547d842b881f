"""Notes below a sentence: what qualifies its claim, and what the claim rests on."""

from typing import Any

import numpy as np

from analysis.statistics.design import Outcome
from analysis.statistics.grades import SUPPORTED
from analysis.statistics.intervals import hodges_lehmann
from analysis.statistics.sentences import format_p, show_level
from analysis.statistics.testing import Tested, interval
from lib.spec.study import Study
from lib.spec.words import capitalize, count, listed

PLANNED = "In a new study of"  # how a note on more seeds begins
AVERAGE = "This is an average, and the effect depends on"  # how a note on unlike variants begins
MOST_LISTED = 4  # simple effects in a note


def on_failures(grade: str, tested: Tested, study: Study) -> list[str]:
    """Return the notes on a contrast with failed runs: how many, and what holds without them."""
    if not tested.failures:
        return []
    notes, unit = [_failure_counts(tested, study)], study.declaration.unit
    if tested.trained is None and grade in SUPPORTED:
        notes.append(f"The claim is about failures: no {unit} without them is left to compare.")
    if tested.trained is None or tested.all_equal:
        return notes
    for p, side in ((tested.p_beyond, "beyond"), (tested.p_within, "within")):
        if grade != "practically_equivalent" and p is not None and p < study.alpha:
            amount = study.metric.show_exactly(study.smallest_effect)
            notes.append(
                f"Without failed runs, the difference lies {side} ±{amount} (Holm p = "
                f"{format_p(p)})."
            )
            break
    if grade == "inconclusive" and tested.interval.low * tested.interval.high > 0:
        notes.append(
            f"The interval excludes 0, but it is for {count(tested.n_trained, unit)} without "
            "failed runs; the test also ranks the failed runs."
        )
    if grade not in SUPPORTED or tested.same_without_failures(study.alpha):
        return notes
    if tested.interval.estimate * tested.direction < 0:
        notes.append(
            "The claim is about failures: without them, the difference has the other sign."
        )
    elif tested.least_trained >= study.alpha:
        least = format_p(tested.least_trained)
        notes.append(
            f"The claim rests on the failures too: {count(tested.n_trained, unit)} without them "
            f"could not show a difference (smallest possible Holm p {least})."
        )
    else:
        notes.append("The claim rests on the failures: without them, it is not established.")
    return notes


def _failure_counts(tested: Tested, study: Study) -> str:
    failures, contrast = tested.failures, tested.contrast
    unit = capitalize(study.declaration.unit)
    what = "Failed runs" if len(study.blocks) == 1 else f"{unit}s with a failed run in some block"
    if contrast.kind != "main":
        return f"{what}: {sum(failures.failed)} of {sum(failures.runs)}."
    ((factor, baseline, treatment),) = contrast.parts
    parts = [
        f"{failed} of {runs} with {study.level_label(factor, level)}"
        for failed, runs, level in zip(
            failures.failed, failures.runs, (baseline, treatment), strict=True
        )
    ]
    test = "McNemar" if tested.paired else "Fisher"
    seeds = " and ".join(map(str, failures.seeds))
    return (
        f"{what}: {', '.join(parts)} (in {seeds} of "
        f"{count(tested.n, study.declaration.unit)}, exact {test} p = "
        f"{format_p(failures.p)})."
    )


def not_corrected(tested: Tested, study: Study) -> str:
    """Return the note on a p that is below α only without the correction, or nothing."""
    if not tested.test.p < study.alpha <= tested.p_holm:
        return ""
    return f"Uncorrected p = {format_p(tested.test.p)}; not established after correction."


def wider_than_the_test(grade: str, tested: Tested, family: int) -> str:
    """Return the note on a claimed difference whose simultaneous interval includes 0, or nothing.

    Holm's correction over the ``family`` of contrasts is stepwise, the intervals' is not: each has
    the level 1 - α / family. And zeros enter the test of 0, but not that of a shift next to 0.
    """
    if grade not in SUPPORTED or tested.failures or tested.interval is None:
        return ""
    if not tested.interval.low <= 0 <= tested.interval.high:
        return ""
    zeros = tested.test.n_zero if tested.paired else 0
    if zeros:
        return (
            f"The interval includes 0: the test of 0 counts {count(zeros, 'zero difference')} half "
            "on each side, and a shift next to 0 is tested without zeros."
        )
    if family == 1:
        return ""
    return (
        "The interval includes 0: it holds for all contrasts at once and is wider than the test "
        "needs, since Holm's correction is less strict for all but the smallest p."
    )


def wider_than_equivalence(grade: str, tested: Tested, study: Study, family: int) -> str:
    """Return the note on a claim within ±δ whose simultaneous interval exceeds ±δ, or nothing.

    ``family``: the number of contrasts. The claim comes from two one-sided tests, each at its level
    α / family or, after Holm's first step, less strict.
    """
    delta, shown = study.smallest_effect, tested.interval
    if grade not in ("practically_equivalent", "support_small") or shown is None or not delta:
        return ""
    if -delta < shown.low and shown.high < delta:
        return ""
    level = 1 - 2 * study.alpha / family
    own = interval(*tested.values, tested.paired, tested.contrast.tolerance, level)
    signed = study.metric.show_signed
    words = (
        "The interval exceeds ±δ, because it is two-sided. The claim within ±δ rests on two "
        f"one-sided tests, which correspond to the {show_level(own.confidence)} interval "
        f"[{signed(own.low)}, {signed(own.high)}]"
    )
    inside = -delta < own.low and own.high < delta
    return f"{words}." if inside else f"{words}, and on Holm's correction, which is less strict."


def wider_than_beyond(grade: str, tested: Tested, study: Study, family: int) -> str:
    """Return the note on a claim beyond ±δ whose simultaneous interval reaches into ±δ, or nothing.

    ``family``: the number of contrasts; of one alone, test and interval have the same level.
    """
    delta, shown, alone = study.smallest_effect, tested.interval, tested.interval_alone
    if grade != "meaningful" or shown is None or family == 1:
        return ""
    if shown.low > delta or shown.high < -delta:
        return ""
    words = (
        f"The interval includes {'+' if shown.estimate > 0 else '−'}δ: it holds for all contrasts "
        "at once and is wider than the test needs, since Holm's correction is less strict for all "
        "but the smallest p."
    )
    if -delta <= alone.high and alone.low <= delta:
        return words
    signed = study.metric.show_signed
    return (
        f"{words} The {show_level(alone.confidence)} interval of this contrast only, "
        f"[{signed(alone.low)}, {signed(alone.high)}], does not."
    )


def demoted(before: str, grade: str, rules: dict[str, dict[str, Any]], study: Study) -> str:
    """Return the note on a claim that other score rules do not confirm.

    ``before``: its grade by the declared rule; ``rules``: what the others say, as in results.json.
    """
    others = "; ".join(
        f"{study.words_of(rule)}: {one['grade'].replace('_', ' ')}"
        + " of the opposite direction" * (not one["agrees"] and one["grade"] in SUPPORTED)
        + f", Holm p = {format_p(one['p_holm'])}"
        for rule, one in rules.items()
        if not one["agrees"] or one["grade"] != before
    )
    return (
        f"Demoted from {before.replace('_', ' ')} to {grade.replace('_', ' ')}, since another "
        f"score rule does not confirm it ({others})."
    )


def on_items(before: str, grade: str, both: tuple[float, float] | None, study: Study) -> str:
    """Return the note on a claim against a published score, over seeds and test items together.

    ``before``: the grade that the seeds alone would give.
    """
    units = f"{study.declaration.unit}s"
    if both is None:
        return (
            f"A claim against a published score must hold for {units} and test items together; no "
            "interval over both is known here, so no claim is made."
        )
    signed = study.metric.show_signed
    interval = f"{signed(both[0])}, {signed(both[1])}"
    weaker = ""
    if grade != before:
        weaker = f", which does not allow the grade from {units} alone: {before.replace('_', ' ')}"
    return f"Interval over {units} and test items together: [{interval}]{weaker}."


def fragile(
    grade: str, lost: list[Any], n: int, could_not: bool, study: Study, nearest: str
) -> str:
    """Return the note on a claim that rests on single seeds.

    ``lost``: the seeds without which it is not established, of ``n``; ``could_not``: whether one
    seed fewer could not have given it, whatever the scores; ``nearest``: how near the interval
    comes to the value that decides.
    """
    shown, seed = f"“{grade.replace('_', ' ')}”", study.declaration.replicate
    if could_not:
        unit = study.declaration.unit
        words = f"With {count(n - 1, unit)}, {shown} would be out of reach, whatever their scores"
    else:
        named = ", ".join(map(str, lost))
        which = f"{seed} {named}" if len(lost) == 1 else f"any one of the {seed}s {named}"
        words = f"Fragile: without {which}, {shown} is not established"
    return f"{words}.{nearest}"


def nearest_bound(
    distance: float, towards: float, confidence: float, items: int | None, study: Study, item: str
) -> str:
    """Say how far the nearest end of an interval is from what it must exclude, and in items."""
    metric = study.metric
    what = "0" if towards == 0 else f"{'+' if towards > 0 else '−'}δ"
    number = f"{distance * items:.{0 if distance * items >= 10 else 1}f}" if items else ""
    in_items = f" ({number} of {items:,} {item}s)" if items else ""
    return (
        f" The {show_level(confidence)} interval of this claim ends "
        f"{metric.show_amount(distance + 0.0)}{in_items} from {what}."
    )


def on_test(found: dict[str, Any], study: Study) -> str:
    """Return the note that shows the same contrast on the test metric.

    ``found``: difference, interval and p, as results.json has them.
    """
    metric = study.logged.on(found["metric"])
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    if found["difference"] is None:
        return ""
    signed, given = metric.show_signed, ""
    if found["confidence"]:
        ends = f"{signed(found['ci_low'])}, {signed(found['ci_high'])}"
        given = f" [{show_level(found['confidence'])} CI {ends}]"
    return (
        f"The same contrast on the {metric.title}, which decides nothing here: "
        f"{signed(found['difference'])}{unit}{given}, "
        f"{'exact ' * found['exact']}p = {format_p(found['p'])}, not corrected."
    )


def qualification(
    row: dict, rows: list[dict], secondary: list[dict], study: Study, failed: dict[str, tuple]
) -> list[str]:
    """Return warnings that a main effect is an average over unlike variants.

    ``row``: a primary contrast as results.json has it, one of ``rows``; ``secondary``: the simple
    effects; ``failed``: numbers of failed runs and of runs, by label of the contrast's variants.
    """
    if row["kind"] != "main":
        return []
    found = []
    ((factor, *_),) = row["parts"]
    if len(failed) > 2 and any(number for number, _ in failed.values()):
        counts = ", ".join(
            f"{words}: {number} of {n}" for words, (number, n) in failed.items() if number
        )
        found.append(f"This main effect averages over variants, some with failed runs ({counts}).")
    crossed = {}  # the other factors whose interaction with this one is a contrast, and its grade
    for other in rows:
        factors = [name for name, _, _ in other["parts"]]
        if other["kind"] == "interaction" and factor in factors:
            crossed |= {name: other["grade"] for name in factors if name != factor}
    baseline, treatment = row["parts"][0][1:]
    signs = {(baseline, treatment): 1, (treatment, baseline): -1}  # a control may be any level
    own = [
        simple | {"sign": signs[tuple(simple["levels"][1:])]}
        for simple in secondary
        if simple["levels"][0] == factor and tuple(simple["levels"][1:]) in signs
    ]
    if depends := [name for name, grade in crossed.items() if grade in SUPPORTED]:
        named = " and ".join(map(study.factor_label, depends))
        found.append(f"{AVERAGE} {named}{_listed(own, study)}.")
        return found
    sure = [simple for simple in own if simple["p_holm"] < study.alpha]
    if {simple["rank_biserial"] > 0 for simple in sure} == {True, False}:
        found.append("This is an average: the simple effects have opposite signs.")
        return found
    unknown = [
        name
        for name in study.factors
        if name != factor and crossed.get(name) != "practically_equivalent"
    ]
    differences = [
        simple["sign"] * simple["difference"] for simple in own if simple["difference"] is not None
    ]
    if unknown and len(differences) > 1:
        named = " or ".join(map(study.factor_label, unknown))
        signed, unit = study.metric.show_signed, study.metric.difference_unit
        found.append(
            f"This is an average, and it is not known whether the effect depends on {named}. The "
            f"simple effects lie between {signed(min(differences))} and "
            f"{signed(max(differences))}{f' {unit}' * bool(unit)}."
        )
    return found


def _listed(own: list[dict[str, Any]], study: Study) -> str:
    """Return the simple effects of a factor, each with its interval, or where to find them."""
    known = [one for one in own if one["difference"] is not None and one["confidence"]]
    if not known or len(known) < len(own) or len(own) > MOST_LISTED:
        return " (see the simple effects)"
    signed, unit = study.metric.show_signed, study.metric.difference_unit
    shown = []
    for one in known:
        ends = sorted([one["sign"] * one["ci_low"], one["sign"] * one["ci_high"]])
        where = ", ".join(study.level_label(name, level) for name, level in one["at"])
        difference = signed(one["sign"] * one["difference"]) + f" {unit}" * bool(unit)
        given = f"{show_level(one['confidence'])} CI {signed(ends[0])}, {signed(ends[1])}"
        shown.append(f"{difference} [{given}] with {where}")
    effects = " and ".join(shown) if len(shown) == 2 else "; ".join(shown)
    return f": {effects}. The claim is about their average, not about each of them"


def simple_effects(tested: Tested, study: Study) -> str:
    """Return the note on the two effects whose difference an interaction is, or nothing.

    They are estimated over the seeds of the interaction's own estimate.
    """
    if tested.contrast.kind != "interaction" or tested.trained is None:
        return ""
    (at, *levels), (factor, baseline, treatment) = tested.contrast.parts
    metric = study.metric
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    parts = [
        f"{metric.show_signed(hodges_lehmann(np.zeros(len(effect)), effect, True))}{unit} with "
        f"{study.level_label(at, level)}"
        for level, effect in zip(levels, tested.values, strict=True)
    ]
    return (
        f"The effects that it compares: {study.level_label(factor, treatment)} instead of "
        f"{study.level_label(factor, baseline)}, {' and '.join(parts)}."
    )


def other_scale(name: str) -> str:
    """Return the warning that an interaction's conclusion belongs to one scale only."""
    return f"Not scale-robust: on the {name} the conclusion is different."


def not_known(at_delta: Outcome, at_zero: Outcome, study: Study) -> str:
    """Return the note on what a new study would show, from the design analysis of one contrast."""
    equivalent = at_zero.grades["practically_equivalent"]
    return (
        f"{PLANNED} {count(at_delta.n, study.declaration.unit)} with the same spread and no failed "
        f"runs, a true effect of {study.metric.show_exactly(study.smallest_effect)} would be shown "
        f"as a difference with probability {at_delta.found:.2f}, and a true effect of 0 as "
        f"practically equivalent with probability {equivalent:.2f}."
    )


def second_look(looks: list[int], n: int, unit: str) -> str:
    """Return the note on an earlier, unplanned report with another number of seeds."""
    before = listed(looks)
    return (
        f"Exploratory: this study was reported before with {before} {unit}s and now has {n}. "
        "Changing the number after a look raises the rate of wrong claims above α; plan looks with "
        "`looks:`."
    )


def untestable(looks: list[int], unit: str) -> str:
    """Return the sentence on earlier reports that could show nothing, or nothing."""
    if not looks:
        return ""
    before = listed(looks)
    return (
        f"Earlier reports of this study had {before} {unit}s; no primary contrast was testable in "
        "them, so this is the first test."
    )


def look(study: Study) -> str:
    """Return which of the planned looks this is, and what α the others spend."""
    looks, n, unit = study.declaration.looks, len(study.seeds), study.declaration.unit
    number = sorted(looks).index(n) + 1
    others = ", ".join(
        f"{seeds} {unit}s: {looks[seeds]:g}" for seeds in sorted(looks) if seeds != n
    )
    return (
        f"Planned look {number} of {len(looks)}, at {n} {unit}s and α = {looks[n]:g} ({others}). "
        "For each kind of claim, all looks together make a wrong claim in at most "
        f"{100 * study.declaration.alpha:g} % of studies."
    )
