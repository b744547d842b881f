"""The primary contrasts as results.json has them: numbers, grade, sentence and notes of each."""

from typing import Any

import numpy as np

from analysis.runs.data import StudyData
from analysis.statistics import (
    design,
    fragility,
    grades,
    intervals,
    notes,
    robustness,
    sentences,
)
from analysis.statistics.secondary import sensitivity
from analysis.statistics.testing import Tested


def contrasts(
    data: StudyData, tested: list[Tested], over: list[dict[str, tuple[float, float]]]
) -> list[dict[str, Any]]:
    """Return the primary contrasts as in results.json; ``over``: intervals over test items."""
    other_rules = robustness.other_rules(data)
    rescaled = robustness.on_other_scale(data)
    on_test = robustness.on_test_metric(data)
    without = fragility.leave_one_out(
        data.study,
        data.scores,
        data.failed,
        data.paired,
        data.completeness.splitting,
        data.resolution,
    )
    rows = []
    for i, one in enumerate(tested):
        declared_rule = robustness.conclusion(one, data.study)
        rules = {
            rule: {
                "difference": under[i].interval and under[i].interval.estimate,
                "p_holm": under[i].p_holm,
                "agrees": robustness.conclusion(under[i], data.study) == declared_rule,
                "grade": grades.grade(under[i], data.study),
            }
            for rule, under in other_rules.items()
        }
        row = _row(data, one, rules, over[i], len(tested))
        judged = fragility.judge(tested, i, row["grade"], without, data.study)
        row["fragile"] = [data.study.seeds[k] for k in judged.lost] if judged else []
        if judged:
            row["notes"].append(_fragile(data, row["grade"], one, judged))
        row["on_test"] = on_test and on_test[i]
        if on_test and (note := notes.on_test(on_test[i], data.study)):
            row["notes"].append(note)
        scale = rescaled[i] if rescaled and one.contrast.kind == "interaction" else None
        row["p_holm_other_scale"] = scale and scale.p_holm
        row["scale_robust"] = scale and robustness.conclusion(scale, data.study) == declared_rule
        if row["scale_robust"] is False:
            row["notes"].append(notes.other_scale(data.study.metric.scale_name))
        rows.append(row)
    return rows


def _row(
    data: StudyData,
    tested: Tested,
    rules: dict[str, dict[str, Any]],
    over: dict[str, tuple[float, float]],
    family: int,
) -> dict[str, Any]:
    """Return the entry of a contrast in results.json: numbers, grade, sentence, first notes.

    ``rules``: results under other score rules; ``over``: its intervals over test items, and over
    seeds and items; ``family``: the number of contrasts.
    """
    study, trained = data.study, tested.trained
    bounds, alone = tested.interval, tested.interval_alone  # None if a run failed on every seed
    grade, found = grades.grade(tested, study), []
    if tested.contrast.kind == "published":
        seeds_alone, both = grade, over.get("both")
        grade = grades.on_other_items(grade, tested.direction, both, study.smallest_effect)
        if both or seeds_alone in grades.CLAIMS:
            found.append(notes.on_items(seeds_alone, grade, both, study))
    before = grade
    grade = grades.under_other_rules(grade, [(r["grade"], r["agrees"]) for r in rules.values()])
    disagree = [r for r in rules.values() if not r["agrees"]]
    if grade != before:
        found.append(notes.demoted(before, grade, rules, data.study))
    elif note := notes.not_corrected(tested, study):
        found.append(note)
    if note := notes.wider_than_the_test(grade, tested, family):
        found.append(note)
    if note := notes.wider_than_equivalence(grade, tested, study, family):
        found.append(note)
    if note := notes.wider_than_beyond(grade, tested, study, family):
        found.append(note)
    differences = tested.per_seed[np.isfinite(tested.per_seed)]
    return {
        "name": tested.contrast.name,
        "kind": tested.contrast.kind,
        "label": sentences.subject(tested.contrast, study),
        "n": tested.n,
        "n_trained": tested.n_trained,
        "failures": tested.failures and vars(tested.failures),
        "paired": tested.paired,
        "exact": tested.exact,
        "n_zero": tested.test.n_zero if tested.paired else None,
        "statistic": tested.test.statistic,
        "p": tested.test.p,
        "p_holm": tested.p_holm,
        "p_trained": trained and trained.p,
        "p_beyond": tested.p_beyond,
        "p_within": tested.p_within,
        "difference": bounds and bounds.estimate,
        **intervals.ends(bounds),
        **intervals.ends(alone, "alone_low", "alone_high", "alone_confidence"),
        "items_low": over["items"][0] if over else None,
        "items_high": over["items"][1] if over else None,
        "both_low": over["both"][0] if over else None,
        "both_high": over["both"][1] if over else None,
        "rank_biserial": tested.rank_biserial,
        "positive": int((differences > 0).sum()) if tested.paired else None,
        "negative": int((differences < 0).sum()) if tested.paired else None,
        **sensitivity(tested),
        "grade": grade,
        "sentence": sentences.sentence(grade, tested, study),
        "claim": sentences.claim(grade, tested, study),
        "numbers": sentences.numbers(grade, tested, study),
        "notes": [*notes.on_failures(grade, tested, study), *found],
        "per_seed": [float(d) if np.isfinite(d) else None for d in tested.per_seed]
        if tested.paired
        else None,
        "other_rules": rules,
        "survives_all_rules": not disagree if rules else None,
        "parts": [list(part) for part in tested.contrast.parts],
        "runs": data.run_ids,
    }


def _fragile(data: StudyData, grade: str, tested: Tested, judged: fragility.Fragility) -> str:
    study = data.study
    items = data.counted_items
    nearest = ""
    if judged.distance >= 0:
        nearest = notes.nearest_bound(
            judged.distance, judged.towards, judged.confidence, items, study, data.item
        )
    lost = [study.seeds[k] for k in judged.lost]
    return notes.fragile(grade, lost, tested.n, judged.could_not, study, nearest)


def notes_on_all(
    data: StudyData,
    row: dict[str, Any],
    tested: Tested,
    rows: list[dict[str, Any]],
    secondary: list[dict[str, Any]],
    planned: list[design.Outcome],
) -> list[str]:
    """Return the notes on a contrast that depend on the other contrasts."""
    study, sides = data.study, tested.contrast.sides
    failed = {
        study.variant_label(study.variants[i]): (int(data.failed[i].sum()), len(study.seeds))
        for i in [*sides[0], *sides[1]]
    }
    found = notes.qualification(row, rows, secondary, study, failed)
    if note := notes.simple_effects(tested, study):
        found.append(note)
    if row["grade"] == "inconclusive" and study.smallest_effect:
        twice = [o for o in planned if o.contrast == row["name"] and o.n == 2 * len(study.seeds)]
        at = {o.effect: o for o in twice}
        if {0.0, study.smallest_effect} <= set(at):
            found.append(notes.not_known(at[study.smallest_effect], at[0.0], study))
    return found
