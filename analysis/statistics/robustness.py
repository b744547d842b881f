"""Repeat the contrasts under other score rules, scales and metrics, and over test items."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.runs import per_item
from analysis.runs.data import StudyData, test_scores, with_worst
from analysis.runs.tables import SUMMARY, keys, numbers
from analysis.runs.waivable import is_clock
from analysis.statistics import bootstrap, contrasts, testing
from analysis.statistics.intervals import ends
from analysis.statistics.testing import Tested
from lib.spec.metric import PARTS, last_word, split_part, with_part
from lib.spec.metric_declaration import PRESETS, metric
from lib.spec.study import RULES, SUFFIXES, Study

UNKNOWN = "The uncertainty from the test items is unknown"
SEVERAL_OF_ONE_SIGN = (
    "It is not published which test images show the same physical sign. Each image counts as "
    "independent, so the intervals are too narrow if several images show one physical sign."
)
INDEPENDENT = "Test items count as independent."
CLUSTERED = "Test items of one cluster, as logged by the runs, are drawn together."
FEWEST_ITEMS = 20  # items or clusters needed for a bootstrap


def conclusion(tested: Tested, study: Study) -> int:
    """Return the direction (-1 or 1) of a difference with Holm p below alpha, otherwise 0."""
    return tested.direction if tested.p_holm < study.alpha else 0


def contrasts_of(
    data: StudyData,
    scores: np.ndarray,
    delta: float | None = None,
    resolution: float | None = None,
) -> list[Tested]:
    """Test the study's primary contrasts on ``scores`` (variants, seeds) of any metric or rule.

    ``delta``: the smallest effect of interest in the unit of ``scores``, or None; ``resolution``:
    their smallest step, or None if unknown.
    """
    return testing.run_tests(
        contrasts.build(data.study, scores, resolution, data.completeness.splitting),
        data.study.alpha,
        data.paired,
        data.completeness.splitting,
        delta,
        data.failed,
    )


def other_rules(data: StudyData) -> dict[str, list[Tested]]:
    """Test the same contrasts under each of the other score rules that all runs have."""
    delta = data.study.smallest_effect
    return {
        rule: contrasts_of(data, data.scored(rule), delta, data.resolution_of(rule))
        for rule in rules_at_hand(data)
    }


def rules_at_hand(data: StudyData) -> list[str]:
    """Return the other score rules that apply and that all runs have."""
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
    """Test the same contrasts on the metric's second scale; None if it has none.

    An interaction may exist on one scale only.
    """
    metric = data.study.metric
    rescaled = metric.rescale(data.trained)
    if rescaled is None or not data.study.factors:
        return None
    unbounded = replace(metric, worst=None, bounds=(-math.inf, math.inf))
    return contrasts_of(data, with_worst(rescaled, data.failed, unbounded))


def on_test_metric(data: StudyData) -> list[dict[str, Any]] | None:
    """Return the contrasts on the test metric if the study's metric is a validation metric.

    Otherwise None. By the declared score rule, averaged over blocks as logged; not corrected, since
    no grade depends on them.
    """
    study = data.study
    test = with_part(study.metric.key, "test")
    key = test + SUFFIXES[study.rule]
    if study.metric.part != "validation" or not data.has(key):
        return None
    values = data.with_worst(data.values(key), study.logged)
    return [_described(test, tested) for tested in contrasts_of(data, values)]


def within_blocks(data: StudyData) -> list[dict[str, Any]]:
    """Return the contrasts within each block, in the unit of the logged metric.

    Not corrected, since no grade depends on them. Empty if the study has no blocks.
    """
    study, rows = data.study, []
    logged = data.by_block(numbers(data.included, study.score_key()))
    failed = data.by_block([run in data.failures for run in data.run_ids])
    for block, scores, failures in zip(study.blocks, logged, failed, strict=True):
        if not block:
            continue
        splitting = data.completeness.splitting
        values = with_worst(scores, failures, study.logged)
        built = contrasts.build(study, values, study.logged.resolution, splitting)
        tested = testing.run_tests(built, study.alpha, data.paired, splitting, failed=failures)
        name = study.block_name(block)
        rows += [_described(study.logged.key, one) | {"block": name} for one in tested]
    return rows


def _described(key: str, tested: Tested) -> dict[str, Any]:
    """Return the row of a secondary table: a contrast on another metric, not corrected."""
    bounds = tested.interval_alone
    return {
        "metric": key,
        "name": tested.contrast.name,
        "n": tested.n_trained,
        "difference": bounds and bounds.estimate,
        **ends(bounds),
        "p": tested.test.p,
        "exact": tested.exact,
    }


def exploratory(data: StudyData) -> list[dict[str, Any]]:
    """Test the contrasts on every other metric that all runs have at the last epoch.

    Metrics are the summary's entries that name a part of the data, such as train/loss or test_acc.

    Neither declared nor corrected: these p-values can suggest a hypothesis, not confirm one. If it
    is not known whether higher values of a metric are better, failed runs have no rank, and p is
    for the seeds without a failed run. Empty for a comparison with published scores, which exist
    for the study's own metric only.
    """
    rows: list[dict[str, Any]] = []
    if not data.study.factors:
        return rows
    suffixes = tuple(suffix for suffix in SUFFIXES.values() if suffix)
    for key in sorted(keys(data.runs, SUMMARY)):
        named = split_part(key)[0] in PARTS
        if not named or is_clock(key) or key.endswith(suffixes) or key == data.study.metric.key:
            continue
        values = data.values(key)
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        values = data.with_worst(values, metric(key, "minimize"))
        for tested in contrasts_of(data, values):
            row = _described(key, tested) | {"runs": data.run_ids}
            if last_word(key) not in PRESETS and tested.failures:
                row["p"] = tested.trained and tested.trained.p
            rows.append(row)
    return rows


def items_at_hand(data: StudyData) -> tuple[np.ndarray | None, str]:
    """Return each item's scores (items, variants, seeds) or None, and a sentence about the items.

    Runs save their outputs at the last epoch only, so None if another epoch is scored.
    """
    study = data.study
    if data.per_item is None:
        return None, f"{UNKNOWN}: the runs saved no outputs per item."
    if study.rule != "last":
        return None, f"{UNKNOWN}: outputs per item are of the last epoch, but the score is not."
    scores = test_scores(data)
    if len(study.blocks) > 1:
        return None, f"{UNKNOWN}: each block has its own test items."
    if scores is None or len(scores) < FEWEST_ITEMS:
        return None, (
            f"{UNKNOWN}: the runs share no outputs per item for this metric, or fewer than "
            f"{FEWEST_ITEMS}."
        )
    groups = per_item.clusters(data.per_item)
    if groups is not None and len(set(groups)) < FEWEST_ITEMS:
        return None, f"{UNKNOWN}: the test items form fewer than {FEWEST_ITEMS} clusters."
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
    """Return each contrast's intervals over test items (``items``) and over seeds too (``both``).

    ``table``: each item's scores (items, variants, seeds). Seeds with a failed run are excluded; an
    empty mapping if none is left. ``both`` is simultaneous over the family.
    """
    study, family = data.study, len(tested)
    means = bootstrap.means_over_items(table, per_item.clusters(data.per_item))
    resamples, variants, seeds = means.shape
    flat = means.transpose(1, 0, 2).reshape(variants, -1)
    built = contrasts.build(study, flat, splitting=data.completeness.splitting)
    intervals = []
    for contrast, one in zip(built, tested, strict=True):
        sides = [
            values.reshape(resamples, seeds)[:, kept]
            for values, kept in zip((contrast.baseline, contrast.treatment), one.kept, strict=True)
        ]
        if not min(side.shape[1] for side in sides):
            intervals.append({})
            continue
        items = bootstrap.over_items(*sides, one.paired, 1 - study.alpha)
        both = bootstrap.over_both(*sides, one.paired, 1 - study.alpha / family)
        intervals.append({"items": items, "both": both})
    return intervals


def spread(data: StudyData, table: np.ndarray) -> list[dict[str, float] | None]:
    """Return each variant's variance components, without failed runs; None for fewer than two runs.

    ``table``: each item's scores (items, variants, seeds).
    """
    groups = per_item.clusters(data.per_item)
    return [
        bootstrap.variance_components(table[:, i, ~failed], groups) if (~failed).sum() > 1 else None
        for i, failed in enumerate(data.failed)
    ]
