"""Would another choice have led elsewhere? Other score rules, scales, metrics and test items."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.runs import per_item
from analysis.runs.data import StudyData, test_scores
from analysis.runs.tables import SUMMARY, keys, numbers
from analysis.statistics import bootstrap, contrasts, testing
from analysis.statistics.testing import Tested
from lib.spec.metric import PARTS, metric, split_part
from lib.spec.study import RULES, SUFFIXES, Study

UNKNOWN = "How the difference would vary with other test items is not known here"
SEVERAL_OF_ONE_SIGN = (
    "Which test images show the same sign is not published: each counts as independent, and where "
    "several show one sign the interval is too narrow."
)
INDEPENDENT = "Test items count as independent of one another."
CLUSTERED = "Test items of one cluster (as the runs name them) are drawn together."
FEWEST_ITEMS = 20  # for a bootstrap over them


def conclusion(tested: Tested, study: Study) -> int:
    """Return -1 or 1, the direction of a difference with Holm p below alpha, or 0."""
    return tested.direction if tested.p_holm < study.alpha else 0


def contrasts_of(
    data: StudyData,
    scores: np.ndarray,
    delta: float | None = None,
    resolution: float | None = None,
) -> list[Tested]:
    """Test the study's primary contrasts on ``scores`` (variants, seeds): its own, or others.

    ``delta``: the smallest effect of interest in the unit of ``scores``, or None; ``resolution``:
    their smallest step, where it is known.
    """
    return testing.run_tests(
        contrasts.build(data.study, scores, resolution),
        data.study.alpha,
        data.paired,
        data.completeness.splitting,
        delta,
        data.failed,
    )


def other_rules(data: StudyData) -> dict[str, list[Tested]]:
    """Test the same contrasts under the rules not declared that apply and that all runs have."""
    delta = data.study.smallest_effect
    return {
        rule: contrasts_of(data, data.scored(rule), delta, data.resolution_of(rule))
        for rule in rules_at_hand(data)
    }


def rules_at_hand(data: StudyData) -> list[str]:
    """Return the score rules not declared that apply and that all runs have."""
    study = data.study
    return [
        rule
        for rule in RULES
        if rule != study.rule
        and data.applies(rule)
        and data.has(study.score_key(rule))
        and data.has_scale(rule)
    ]


def on_other_scale(data: StudyData) -> list[Tested] | None:
    """Test the same contrasts on the metric's second scale, or None where it has none.

    An interaction may exist on one scale only.
    """
    rescaled = data.study.metric.rescale(data.scores)
    return None if rescaled is None or not data.study.factors else contrasts_of(data, rescaled)


def on_test_metric(data: StudyData) -> list[dict[str, Any]] | None:
    """Return the contrasts on the test metric, where the study's own is of validation; else None.

    By the declared score rule; not corrected, as nothing is decided by them.
    """
    study = data.study
    first, rest = split_part(study.metric.key)
    key = f"test/{rest}" + SUFFIXES[study.rule]
    if PARTS.get(first) != "validation" or not data.has(key):
        return None
    values = data.with_worst(data.values(key), study.metric)
    return [_described(f"test/{rest}", tested) for tested in contrasts_of(data, values)]


def within_blocks(data: StudyData) -> list[dict[str, Any]]:
    """Return the contrasts within each block, in the logged metric's unit; not corrected.

    Empty where the study has no blocks. Nothing is decided by them.
    """
    study, rows = data.study, []
    logged = data.by_block(numbers(data.included, study.score_key()))
    failed = data.by_block([run in data.failures for run in data.run_ids])
    for block, scores, lost in zip(study.blocks, logged, failed, strict=True):
        if not block:
            continue
        known = study.logged.sign * scores[np.isfinite(scores)]
        worst = study.logged.sign * known.min() if known.size else 0.0
        built = contrasts.build(study, np.where(lost, worst, scores), study.logged.resolution)
        tested = testing.run_tests(
            built, study.alpha, data.paired, data.completeness.splitting, failed=lost
        )
        name = study.block_name(block)
        rows += [_described(study.logged.key, one) | {"block": name} for one in tested]
    return rows


def _described(key: str, tested: Tested) -> dict[str, Any]:
    """Return what a secondary table says of a contrast on another metric, not corrected."""
    bounds = tested.interval_alone
    return {
        "metric": key,
        "name": tested.contrast.name,
        "n": tested.n_trained,
        "difference": bounds and bounds.estimate,
        "ci_low": bounds and bounds.low,
        "ci_high": bounds and bounds.high,
        "confidence": bounds and bounds.confidence,
        "p": tested.test.p,
    }


def exploratory(data: StudyData) -> list[dict[str, Any]]:
    """Test the contrasts on every other metric that all runs have at the last epoch.

    Not corrected, not declared: p-values that may raise a question, never answer one. None where
    the contrasts are with published scores, which are of the study's own metric.
    """
    rows: list[dict[str, Any]] = []
    if not data.study.factors:
        return rows
    suffixes = tuple(suffix for suffix in SUFFIXES.values() if suffix)
    for key in sorted(keys(data.runs, SUMMARY)):
        part, _, name = key.partition("/")
        if part not in PARTS or not name or key.endswith(suffixes) or key == data.study.metric.key:
            continue
        values = data.values(key)
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        values = data.with_worst(values, metric(key, "minimize"))
        rows += [
            _described(key, tested) | {"runs": data.run_ids}
            for tested in contrasts_of(data, values)
        ]
    return rows


def items_at_hand(data: StudyData) -> tuple[np.ndarray | None, str]:
    """Return each item's scores (items, variants, seeds), or None, and a sentence about them.

    Runs save their outputs at the last epoch, so a study that scores another one has none.
    """
    study = data.study
    if data.per_item is None:
        return None, f"{UNKNOWN}: the runs kept no output per item."
    if study.rule != "last":
        return None, f"{UNKNOWN}: the outputs per item are of the last epoch, the score is not."
    scores = test_scores(data)
    if len(study.blocks) > 1:
        return None, f"{UNKNOWN}: each block has test items of its own."
    if scores is None or len(scores) < FEWEST_ITEMS:
        return None, f"{UNKNOWN}: the runs kept no output per item of this metric that all share."
    groups = per_item.clusters(data.per_item)
    if groups is not None and len(set(groups)) < FEWEST_ITEMS:
        return None, f"{UNKNOWN}: the test items are of fewer than {FEWEST_ITEMS} clusters."
    table = scores.to_numpy(dtype=float).reshape(len(scores), *data.scores.shape)
    about = INDEPENDENT
    if per_item.clusters(data.per_item) is not None:
        about = CLUSTERED
    elif study.declaration.class_names == "gtsrb":
        about = SEVERAL_OF_ONE_SIGN
    return table, about


def over_test_set(
    data: StudyData, table: np.ndarray, tested: Sequence[Tested]
) -> list[dict[str, tuple[float, float]]]:
    """Return each contrast's intervals over test items (``items``), and with seeds (``both``).

    ``table``: each item's scores (items, variants, seeds). Over the seeds without a failed run;
    an empty mapping where there is none. ``both`` is simultaneous over the family.
    """
    study, family = data.study, len(tested)
    means = bootstrap.means_over_items(table, per_item.clusters(data.per_item))
    resamples, variants, seeds = means.shape
    built = contrasts.build(study, means.transpose(1, 0, 2).reshape(variants, -1))
    found = []
    for contrast, one in zip(built, tested, strict=True):
        sides = [
            values.reshape(resamples, seeds)[:, kept]
            for values, kept in zip((contrast.baseline, contrast.treatment), one.kept, strict=True)
        ]
        if not min(side.shape[1] for side in sides):
            found.append({})
            continue
        items = bootstrap.over_items(*sides, one.paired, 1 - study.alpha)
        both = bootstrap.over_both(*sides, one.paired, 1 - study.alpha / family)
        found.append({"items": items, "both": both})
    return found


def spread(data: StudyData, table: np.ndarray) -> list[dict[str, float] | None]:
    """Return each variant's variance components over its trained runs; None with fewer than two.

    ``table``: each item's scores (items, variants, seeds).
    """
    groups = per_item.clusters(data.per_item)
    return [
        bootstrap.variance_components(table[:, i, ~failed], groups) if (~failed).sum() > 1 else None
        for i, failed in enumerate(data.failed)
    ]
