"""Compute everything that a report contains, as one mapping: results.json."""

import json
from collections import Counter
from typing import Any

import numpy as np

from analysis.runs import declared, provenance
from analysis.runs.data import StudyData
from analysis.runs.pairing import PAIR_HASHES
from analysis.runs.tables import SUMMARY, is_missing, numbers
from analysis.statistics import (
    contrast_rows,
    design,
    failures,
    intervals,
    jsrt_benchmark,
    notes,
    published,
    robustness,
    testing,
)
from analysis.statistics.secondary import simple_effects
from analysis.statistics.testing import Tested
from lib.spec.study import RULES, Variant


def analyze(data: StudyData) -> dict[str, Any]:
    """Return the contents of results.json except the captions of the figures."""
    study, checked = data.study, data.completeness
    tested = robustness.contrasts_of(data, data.scores, study.smallest_effect, data.resolution)
    by_item, about_items = robustness.items_at_hand(data)
    over = [{}] * len(tested)
    if by_item is not None:
        over = robustness.over_test_set(data, by_item, tested)
    secondary = simple_effects(
        study, data.scores, data.failed, data.resolution, data.paired, checked.splitting
    )
    for effect in secondary:
        variants = (tuple(variant) for variant in effect["variants"])
        effect["runs"] = [run for variant in variants for run in data.runs_of(variant)]
    planned = _design(data, tested)
    rows = contrast_rows.contrasts(data, tested, over)
    for row, one in zip(rows, tested, strict=True):
        row["notes"] += contrast_rows.notes_on_all(data, row, one, rows, secondary, planned)
    before, about_declaration = declared.verdict(study, data.folder, data.included)
    looks, untestable = _earlier_looks(data)
    if looks and before:
        before = False
        about_declaration = notes.second_look(looks, len(study.seeds), study.declaration.unit)
    table = data.per_item
    duplicates = table is not None and "in_training" in table
    return {
        "study": study.name,
        "question": study.declaration.question,
        "declared": before,
        "declaration": about_declaration,
        "earlier_looks": looks,
        "untestable_looks": untestable,
        "look": _about_looks(data, rows, looks, untestable),
        "metric": study.metric.key,
        "goal": study.metric.goal,
        "score_rule": study.rule,
        "too_short_for": [rule for rule in RULES if not data.applies(rule)],
        "alpha": study.alpha,
        "smallest_effect": study.smallest_effect,
        "unit": study.declaration.unit,
        "n_seeds": len(study.seeds),
        "seeds": study.seeds,
        "epochs": checked.epochs,
        "budget": data.budget,
        "factors": study.factors,
        "recipe": data.recipe,
        "smallest_p": {
            kind: testing.smallest_p(one.n, one.n, one.paired)
            for one in tested
            for kind in ["paired" if one.paired else "unpaired"]
        },
        "unpaired": checked.unpaired if study.factors else [],
        "splitting": checked.splitting,
        "pair_hashes": [h for h in PAIR_HASHES if _all_have(data, h)],
        "allowed": checked.waivable,
        "repeated": checked.repeated,
        "failures": data.failures,
        "item": data.item,
        "test_items": None if by_item is None else len(by_item),
        "about_test_items": about_items,
        "spread": None if by_item is None else robustness.spread(data, by_item),
        "variants": [_variant(data, i, variant) for i, variant in enumerate(study.variants)],
        "contrasts": rows,
        "secondary": secondary,
        "other_scale": study.metric.scale_name,
        "within_blocks": robustness.within_blocks(data),
        "exploratory": robustness.exploratory(data),
        "published_scores": _published(data, by_item),
        "design": [_outcome(one) for one in planned],
        "trained_seeds": int((~data.failed.any(axis=0)).sum()),
        "by_seed": published.by_seed(data),
        "steps": published.steps(data),
        "duplicates": int(table["in_training"].sum()) if duplicates else None,
        "cross_validation": jsrt_benchmark.load(study),
        "runs": provenance.of_runs(data),
        "provenance": provenance.of_study(data),
    }


def _about_looks(
    data: StudyData, rows: list[dict[str, Any]], looks: list[int], untestable: list[int]
) -> str:
    """Return the sentences on planned looks, or on earlier reports that could show nothing."""
    study = data.study
    if study.level:
        return f"{notes.look(study)} {data.later}".strip()
    if looks or all(row["grade"] == "not_testable" for row in rows):
        return ""
    return notes.untestable(untestable, study.declaration.unit)


def _earlier_looks(data: StudyData) -> tuple[list[int], list[int]]:
    """Return the numbers of seeds of earlier, unplanned reports of this study in the folder.

    First those that could make a claim, then those with so few seeds that nothing was testable,
    which therefore do not count as looks.
    """
    try:
        earlier = json.loads((data.folder / "results.json").read_text(encoding="utf-8"))
        looks, n = earlier.get("earlier_looks", []), earlier["n_seeds"]
        untestable = earlier.get("untestable_looks", [])
        same = earlier["study"] == data.study.name
        could_claim = _could_claim(earlier["contrasts"], earlier["alpha"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [], []
    if not same:
        return [], []
    current, planned = len(data.study.seeds), data.study.declaration.looks or {}
    looks, untestable = {*looks}, {*untestable}
    (looks if could_claim else untestable).add(n)
    return sorted(looks - {current, *planned}), sorted(untestable - {current, *planned})


def _could_claim(rows: list[dict[str, Any]], alpha: float) -> bool:
    """Return whether contrasts of a report have enough seeds for a claim, whatever the scores."""
    least = min(testing.smallest_p(row["n"], row["n"], row["paired"]) for row in rows)
    return least * len(rows) < alpha or any(row["grade"] != "not_testable" for row in rows)


def _all_have(data: StudyData, key: str) -> bool:
    runs = data.included
    return SUMMARY + key in runs and not runs[SUMMARY + key].map(is_missing).any()


def _design(data: StudyData, tested: list[Tested]) -> list[design.Outcome]:
    """Simulate studies like this one, also with more seeds, for true effects of 0, δ and 2δ.

    With the present number of seeds also for the estimated effect. Empty for a comparison with
    published scores, without δ, with too few seeds without a failed run, or with more contrasts or
    seeds than ``design`` allows.
    """
    study, delta, n = data.study, data.study.smallest_effect, len(data.study.seeds)
    many = len(tested) > design.MOST_CONTRASTS or n > design.MOST_SEEDS
    if not study.factors or delta is None or many:
        return []
    estimates = [one.interval.estimate if one.interval else 0.0 for one in tested]
    scores = [data.scores, *(data.scored(rule) for rule in robustness.rules_at_hand(data))]
    rules = [design.residuals(values, data.failed) for values in scores]
    if rules[0] is None:
        return []
    splitting = data.completeness.splitting
    return [
        design.outcome(study, rules, i, seeds, effect, data.paired, splitting)
        for i in range(len(tested))
        for seeds in (n, n + 3, 2 * n)
        for effect in (0.0, delta, 2 * delta, *([estimates[i]] if seeds == n else []))
    ]


def _outcome(one: design.Outcome) -> dict[str, Any]:
    return vars(one) | {"found": one.found}


def _published(data: StudyData, by_item: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """Return the published scores, with a binomial interval if the score is a share of items."""
    study, found = data.study, {}
    counts = study.metric.item_score in ("wrong", "right") and by_item is not None
    for words, value in study.declaration.published_scores.items():
        low = high = None
        if counts:
            items = len(by_item)
            low, high = failures.clopper_pearson(round(value * items), items)
        found[words] = {"score": value, "low": low, "high": high}
    return found


def _variant(data: StudyData, i: int, variant: Variant) -> dict[str, Any]:
    """Return the entry of a variant in results.json: scores by seed, failures, parameters.

    Median and range exclude failed runs; None if all runs failed. ``difference``: Hodges–Lehmann
    difference from the first variant, without failed runs and, if paired, without their pairs; None
    for the first variant itself, and if nothing is left.
    """
    runs, failed = data.runs_of(variant), data.failed[i]
    values = data.scores[i][~failed]
    kept = [~data.failed[0], ~failed]
    kept = [kept[0] & kept[1]] * 2 if data.paired else kept
    sides = data.scores[0][kept[0]], data.scores[i][kept[1]]
    difference = None
    if i and min(map(len, sides)):
        difference = float(intervals.hodges_lehmann(*sides, data.paired))
    sizes = numbers(data.included.loc[runs], "parameters").dropna()
    rate = failures.clopper_pearson(int(failed.sum()), len(failed))
    return {
        "name": data.study.variant_name(variant),
        "label": data.study.variant_label(variant),
        "median": float(np.median(values)) if len(values) else None,
        "min": float(values.min()) if len(values) else None,
        "max": float(values.max()) if len(values) else None,
        "difference": difference,
        "failed": int(failed.sum()),
        "failure_low": rate[0],
        "failure_high": rate[1],
        "scores": [None if f else float(s) for s, f in zip(data.scores[i], failed, strict=True)],
        "runs": runs,
        "parameters": sorted(Counter(int(n) for n in sizes if np.isfinite(n))),  # normally one
    }
