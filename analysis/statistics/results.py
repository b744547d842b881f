"""Everything that a report says in numbers: one mapping, which results.json holds."""

from collections import Counter
from typing import Any

import numpy as np

from analysis.runs import provenance
from analysis.runs.completeness import PAIR_HASHES
from analysis.runs.data import StudyData
from analysis.runs.tables import SUMMARY, is_missing, numbers
from analysis.statistics import contrasts, grades, jsrt_benchmark, published, rank_tests, robustness
from analysis.statistics.contrasts import Tested
from lib.spec.study import RULES, Variant


def analyze(data: StudyData) -> dict[str, Any]:
    """Return what results.json holds but for the figures' captions."""
    study, found = data.study, data.completeness
    tested = robustness.contrasts_of(data, data.scores, study.smallest_effect)
    rows = _rows(data, tested)
    secondary = contrasts.simple_effects(study, data.scores)
    for effect in secondary:
        variants = (tuple(variant) for variant in effect["variants"])
        effect["runs"] = [run for variant in variants for run in data.runs_of(variant)]
    for row in rows:
        row["sentence"] += grades.qualification(row, rows, secondary, study)
        if row["scale_robust"] is False:
            row["sentence"] += grades.other_scale(study.metric.scale_name)
    intervals, about_items = robustness.over_test_set(data, [row["paired"] for row in rows])
    for row, interval in zip(rows, intervals or [None] * len(rows), strict=True):
        row["test_set_low"], row["test_set_high"] = interval or (None, None)
    table = data.per_item
    duplicates = table is not None and "in_training" in table
    return {
        "study": study.name,
        "question": study.declaration.question,
        "declared": study.declared,
        "metric": study.metric.key,
        "goal": study.metric.goal,
        "score_rule": study.rule,
        "too_short_for": [rule for rule in RULES if not data.applies(rule)],
        "alpha": study.alpha,
        "smallest_effect": study.smallest_effect,
        "n_seeds": len(study.seeds),
        "seeds": study.seeds,
        "epochs": found.epochs,
        "budget": data.budget,
        "factors": study.factors,
        "recipe": data.recipe,
        "smallest_p": min(
            rank_tests.smallest_p(one.n, None if one.paired else one.n) for one in tested
        ),
        "unpaired": found.unpaired,
        "splitting": found.splitting,
        "pair_hashes": [h for h in PAIR_HASHES if _all_have(data, h)],
        "allowed": found.doubts,
        "repeated": found.repeated,
        "diverged": [e.runs[0] for e in found.entries if e.state == "diverged"],
        "collapsed": robustness.collapsed(data),
        "item": data.item,
        "test_items": len(table) if intervals else None,
        "about_test_items": about_items,
        "variants": [_variant(data, i, variant) for i, variant in enumerate(study.variants)],
        "contrasts": rows,
        "secondary": secondary,
        "other_scale": study.metric.scale_name,
        "exploratory": robustness.exploratory(data),
        "published_scores": study.declaration.published_scores,
        "by_seed": published.by_seed(data),
        "steps": published.steps(data),
        "duplicates": int(table["in_training"].sum()) if duplicates else None,
        "cross_validation": jsrt_benchmark.load(study),
        "runs": provenance.of_runs(data),
        "provenance": provenance.of_study(data),
    }


def _all_have(data: StudyData, key: str) -> bool:
    own = data.included
    return SUMMARY + key in own and not own[SUMMARY + key].map(is_missing).any()


def _rows(data: StudyData, tested: list[Tested]) -> list[dict[str, Any]]:
    """Return the primary contrasts as results.json has them."""
    other_rules = robustness.other_rules(data)
    rescaled = robustness.on_other_scale(data)
    rows = []
    for i, one in enumerate(tested):
        under = {rule: of_rule[i] for rule, of_rule in other_rules.items()}
        on_scale = rescaled[i] if rescaled and one.contrast.kind == "interaction" else None
        rows.append(_row(data, one, under, on_scale, len(tested)))
    return rows


def _row(
    data: StudyData,
    tested: Tested,
    other: dict[str, Tested],
    on_scale: Tested | None,
    family: int,
) -> dict[str, Any]:
    """Return what results.json says of a contrast; ``other``: the same under other score rules.

    ``on_scale``: an interaction on the metric's second scale; ``family``: how many are tested.
    """
    study, test, interval = data.study, tested.test, tested.interval
    differences = tested.contrast.differences
    own = robustness.conclusion(tested, study)
    rules = {
        rule: {
            "difference": t.interval.estimate,
            "p_holm": t.p_holm,
            "agrees": robustness.conclusion(t, study) == own,
        }
        for rule, t in other.items()
    }
    agree = all(found["agrees"] for found in rules.values())
    grade = grades.grade(tested, family, study, agree)
    return {
        "name": tested.contrast.name,
        "kind": tested.contrast.kind,
        "label": grades.subject(tested.contrast, study),
        "n": tested.n,
        "paired": tested.paired,
        "exact": tested.exact,
        "n_zero": test.n_zero if tested.paired else None,
        "statistic": test.statistic,
        "p": test.p,
        "p_holm": tested.p_holm,
        "p_beyond": tested.p_beyond,
        "p_within": tested.p_within,
        "difference": interval.estimate,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "confidence": interval.confidence,
        "rank_biserial": tested.rank_biserial,
        "positive": int((differences > 0).sum()),
        "negative": int((differences < 0).sum()),
        **contrasts.sensitivity(tested.contrast),
        "grade": grade,
        "sentence": grades.sentence(grade, tested, family, study, data.budget, agree),
        "per_seed": [float(d) for d in differences],
        "other_rules": rules,
        "survives_all_rules": agree if rules else None,
        "p_holm_other_scale": on_scale.p_holm if on_scale else None,
        "scale_robust": robustness.conclusion(on_scale, study) == own if on_scale else None,
        "parts": [list(part) for part in tested.contrast.parts],
        "runs": data.run_ids,
    }


def _variant(data: StudyData, i: int, variant: Variant) -> dict[str, Any]:
    """Return what results.json says of a variant: its scores by seed, and its networks' size."""
    values, runs = data.scores[i], data.runs_of(variant)
    sizes = numbers(data.included.loc[runs], "parameters").dropna()
    return {
        "name": data.study.variant_name(variant),
        "label": data.study.variant_label(variant),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "scores": values.tolist(),
        "runs": runs,
        "parameters": sorted(Counter(int(n) for n in sizes if np.isfinite(n))),  # one, if all well
    }
