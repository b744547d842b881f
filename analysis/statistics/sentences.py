"""The report's words: one sentence per contrast, no stronger than its grade, and notes below it."""

import re
from typing import Any

from analysis.statistics.contrasts import Contrast
from analysis.statistics.design import Outcome
from analysis.statistics.grades import SUPPORTED
from analysis.statistics.intervals import Interval
from analysis.statistics.testing import Tested
from lib.spec.metric import capitalize, count
from lib.spec.study import Study

PLANNED = "In a new study of"  # how a note on more seeds begins


def sentence(grade: str, tested: Tested, family: int, study: Study) -> str:
    """Return the sentence for a contrast of this ``grade``, claim first, then the numbers.

    ``family``: number of contrasts that are tested together. The scope is said once, above.
    """
    if grade == "not_testable":
        return _not_testable(tested, family, study)
    if tested.failures:
        return _with_failures(grade, tested, family, study)
    if grade == "practically_equivalent":
        none = f"Holm p of a difference = {format_p(tested.p_holm)}"
        return f"{_equivalent(tested, study)}: {_estimate(tested, study)}; {none}."
    if grade == "inconclusive":
        return f"{subject(tested.contrast, study)}: inconclusive; {_numbers(tested, study)}."
    return f"{begin(_claim(tested, study))}{_size(grade, study)}: {_numbers(tested, study)}."


def claim(grade: str, tested: Tested, study: Study) -> str:
    """Return what the grade claims of a contrast, in one line without numbers."""
    if grade in SUPPORTED:
        worst = ", failed runs counted as worst" if tested.failures else ""
        return f"{begin(_claim(tested, study))}{_size(grade, study)}{worst}"
    if grade == "practically_equivalent":
        without = ", among seeds without failed runs" if tested.failures else ""
        return _equivalent(tested, study).partition(" (two one-sided")[0] + without
    return subject(tested.contrast, study)


def numbers(grade: str, tested: Tested, study: Study) -> str:
    """Return a contrast's estimate with its interval, and Holm's p of its claim, in one line."""
    p = f"Holm p = {format_p(tested.p_holm)}"
    if grade == "practically_equivalent":
        p = f"Holm p of equivalence = {format_p(tested.p_within)}"
    elif tested.failures:
        p += " over all seeds"
    if tested.trained is None:
        return f"no seed without a failed run; {p}"
    without = f" (seeds without failed runs: {tested.n_trained} of {tested.n})"
    return f"{_estimate(tested, study)}{without if tested.failures else ''}; {p}"


def begin(text: str) -> str:
    """Begin a sentence with a capital letter, but leave the name of a setting as it is."""
    return text if re.match(r"[\w.]+ = ", text) else capitalize(text)


def _not_testable(tested: Tested, family: int, study: Study) -> str:
    what = subject(tested.contrast, study)
    failed = f" {_failure_counts(tested, study)}" if tested.failures else ""
    if tested.all_equal and tested.failures:
        return f"{what}: nothing to compare, failed runs counted as worst.{failed}"
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
        f"Holm's correction): description only.{failed} {begin(_numbers(tested, study))}."
    )


def _with_failures(grade: str, tested: Tested, family: int, study: Study) -> str:
    """Say the claim with failed runs as worst, how many failed, and the effect without them."""
    p = f"Holm p = {format_p(tested.p_holm)}, exact p = {format_p(tested.test.p)}"
    over = f"over all {count(tested.n, 'seed')}, failed runs counted as worst"
    if grade in SUPPORTED:
        said = f"{begin(_claim(tested, study))} ({over}; {p})."
    elif grade == "practically_equivalent":
        said = f"{_equivalent(tested, study)}, among seeds without failed runs."
    else:
        said = f"{subject(tested.contrast, study)}: inconclusive ({over}; {p})."
    said += f" {_failure_counts(tested, study)}"
    if tested.trained is None:
        return f"{said} No seed is without a failed run, so there is no estimate."
    known = count(tested.n_trained, "seed")
    said += f" Among the {known} without a failed run: {_estimate(tested, study)}, exact p = "
    said += f"{format_p(tested.trained.p)}{_about_delta(tested, study)}."
    if grade in SUPPORTED and not tested.same_without_failures(study.alpha):
        least = min(1.0, tested.trained.least_p * family)
        if tested.interval.estimate * tested.direction < 0:
            said += " So the claim is about failures: without them the sign is the opposite one."
        elif least >= study.alpha:
            said += " These are too few to show a difference alone (smallest Holm p "
            said += f"{format_p(least)}): the claim rests on the failures too."
        else:
            said += " The failures alone carry this claim: without them it is not established."
    return said


def _about_delta(tested: Tested, study: Study) -> str:
    """Say what the seeds without a failed run show about ±δ, if anything."""
    for p, words in ((tested.p_beyond, "beyond"), (tested.p_within, "within")):
        if p is not None and p < study.alpha:
            amount = study.metric.show_amount(study.smallest_effect)
            return f"; {words} ±{amount} (Holm p = {format_p(p)})"
    return ""


def _failure_counts(tested: Tested, study: Study) -> str:
    failures, contrast = tested.failures, tested.contrast
    what = "Failed runs" if len(study.blocks) == 1 else "Seeds with a failed run in some block"
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
        f"{what}: {', '.join(parts)} (on {seeds} of {count(tested.n, 'seed')}, exact {test} p = "
        f"{format_p(failures.p)})."
    )


def _size(grade: str, study: Study) -> str:
    if grade == "meaningful":
        return f", by more than {study.metric.show_amount(study.smallest_effect)}"
    if grade == "support_small":
        return f", by less than {study.metric.show_amount(study.smallest_effect)}"
    return ""


def _equivalent(tested: Tested, study: Study) -> str:
    contrast, metric = tested.contrast, study.metric
    within = f"within ±{metric.show_amount(study.smallest_effect)}"
    p = f"(two one-sided tests, Holm p = {format_p(tested.p_within)})"
    if contrast.kind == "published":
        ours = study.variant_label(())
        return f"{begin(ours)} and {contrast.name} are practically equivalent, {within} {p}"
    if contrast.kind == "interaction":
        return f"{subject(contrast, study)}: practically equivalent effects, {within} {p}"
    ((factor, baseline, treatment),) = contrast.parts
    return (
        f"{begin(study.level_label(factor, treatment))} and "
        f"{study.level_label(factor, baseline)} are practically equivalent in {metric.title}, "
        f"{within} {p}"
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


def _claim(tested: Tested, study: Study) -> str:
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


def _numbers(tested: Tested, study: Study) -> str:
    """Return estimate, interval, seeds and p-values of a contrast."""
    p = f"{'exact ' * tested.exact}p = {format_p(tested.test.p)}"
    if tested.trained is None:
        return f"no estimate, {p}"
    return f"{_estimate(tested, study)}, Holm p = {format_p(tested.p_holm)}, {p}"


def _estimate(tested: Tested, study: Study) -> str:
    test, interval = tested.trained, tested.interval
    if tested.paired:
        below = interval.estimate <= 0
        number = test.negative if below else test.positive
        seeds = f"{'below' if below else 'above'} 0 in {number} of {count(test.n, 'seed')}"
    else:
        seeds = f"n = {test.n_x} and {test.n_y}; the seeds are no pairs (Mann–Whitney, A12 = "
        seeds += f"{test.a12:.2f})"
    unit = f" {study.metric.difference_unit}" if study.metric.difference_unit else ""
    given = f" [{show_interval(interval, study)}]" if interval.confidence > 0 else ""
    return f"{study.metric.show_signed(interval.estimate)}{unit}{given}, {seeds}"


def show_interval(interval: Interval, study: Study) -> str:
    """Show an interval with its confidence: "98.3 % CI −0.30, +0.12"."""
    signed = study.metric.show_signed
    return f"{100 * interval.confidence:.3g} % CI {signed(interval.low)}, {signed(interval.high)}"


def format_p(p: float) -> str:
    """Show p to two significant digits, without the zero before the point."""
    return f"{p:.2g}".lstrip("0") if p >= 1e-4 else f"{p:.1e}"


# ---------------------------------------------------------------------------------------------
# Notes: what a reader must know next to a sentence


def not_corrected(tested: Tested, study: Study) -> str:
    """Return the note on a p that is below α only without the correction, or nothing."""
    if not tested.test.p < study.alpha <= tested.p_holm:
        return ""
    return f"Uncorrected p = {format_p(tested.test.p)}; not established after correction."


def demoted(before: str, grade: str, rules: dict[str, dict[str, Any]], study: Study) -> str:
    """Return the note on a claim that other score rules do not confirm.

    ``before``: its grade by the declared rule; ``rules``: what the others say, as in results.json.
    """
    others = "; ".join(
        f"{study.words_of(rule)}: {one['grade'].replace('_', ' ')}, "
        f"Holm p = {format_p(one['p_holm'])}"
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
    if both is None:
        return (
            "A claim against a published score must hold for seeds and test items together; no "
            "interval over both is known here, so none is made."
        )
    signed = study.metric.show_signed
    interval = f"{signed(both[0])}, {signed(both[1])}"
    weaker = ""
    if grade != before:
        weaker = f", which does not allow what seeds alone would: {before.replace('_', ' ')}"
    return f"Interval over seeds and test items together: [{interval}]{weaker}."


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
        words = f"No seed can be spared: {n - 1} seeds could not have given {shown}"
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
        f" The {100 * confidence:.3g} % interval behind it ends {metric.show_amount(distance)}"
        f"{in_items} from {what}."
    )


def on_test(found: dict[str, Any], study: Study) -> str:
    """Return the note that shows the same contrast on the test metric.

    ``found``: difference, interval and p, as results.json has them.
    """
    metric = study.metric.on(found["metric"])
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    if found["difference"] is None:
        return ""
    signed = metric.show_signed
    return (
        f"The same contrast on the {metric.title}, which decides nothing here: "
        f"{signed(found['difference'])}{unit} [{100 * found['confidence']:.3g} % CI "
        f"{signed(found['ci_low'])}, {signed(found['ci_high'])}], exact p = "
        f"{format_p(found['p'])}, not corrected."
    )


def qualification(
    row: dict, rows: list[dict], secondary: list[dict], study: Study, failed: dict[str, tuple]
) -> list[str]:
    """Return warnings that a main effect is an average over unlike variants.

    ``row``: a primary contrast as results.json has it, one of ``rows``; ``secondary``: the simple
    effects; ``failed``: failed runs of all runs, by the label of each of the contrast's variants.
    """
    if row["kind"] != "main":
        return []
    found = []
    ((factor, *_),) = row["parts"]
    if len(failed) > 2 and any(number for number, _ in failed.values()):
        counts = ", ".join(
            f"{words}: {number} of {n}" for words, (number, n) in failed.items() if number
        )
        found.append(f"This main effect averages over a variant whose runs fail ({counts}).")
    for other in rows:
        factors = [name for name, _, _ in other["parts"]]
        if other["kind"] == "interaction" and factor in factors and other["grade"] in SUPPORTED:
            (b,) = set(factors) - {factor}
            found.append(
                f"This is an average: the effect depends on {study.factor_label(b)} (see the "
                "interaction and the simple effects)."
            )
            return found
    own = [simple for simple in secondary if simple["levels"] == row["parts"][0]]
    sure = [simple for simple in own if simple["p_holm"] < study.alpha]
    if {simple["a12"] > 0.5 for simple in sure} == {True, False}:
        found.append("This is an average: the simple effects have opposite signs.")
    return found


def other_scale(name: str) -> str:
    """Return the warning that an interaction's conclusion belongs to one scale only."""
    return f"Not scale-robust: on the {name} the conclusion is another."


def not_known(at_delta: Outcome, at_zero: Outcome, study: Study) -> str:
    """Return the note on what a new study would show, from the design analysis of one contrast."""
    equivalent = at_zero.grades["practically_equivalent"]
    return (
        f"{PLANNED} {at_delta.n} seeds that spread like these and all train, a true effect "
        f"of {study.metric.show_amount(study.smallest_effect)} would be shown as a difference with "
        f"probability {at_delta.found:.2f}, and a true effect of 0 as practically equivalent "
        f"with probability {equivalent:.2f}."
    )


def second_look(looks: list[int], n: int) -> str:
    """Say that a study was looked at before with other seeds, and that this was not planned."""
    before = " and ".join(map(str, looks))
    return (
        f"Exploratory: this study was reported before with {before} seeds and now has {n}. "
        "Changing the number after a look makes more wrong claims than α; plan looks with `looks:`."
    )


def look(study: Study) -> str:
    """Say which of the planned looks this is, and what α the others spend."""
    looks, n = study.declaration.looks, len(study.seeds)
    number = sorted(looks).index(n) + 1
    others = ", ".join(f"{seeds} seeds: {looks[seeds]:g}" for seeds in sorted(looks) if seeds != n)
    return (
        f"Planned look {number} of {len(looks)}, at {n} seeds and α = {looks[n]:g} ({others}). All "
        f"looks together make a wrong claim of a kind in at most {100 * study.declaration.alpha:g} "
        "% of studies."
    )
