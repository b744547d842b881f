"""Would another choice have led elsewhere? Other score rules, scales, metrics and test items."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.runs import per_item
from analysis.runs.data import StudyData, test_scores
from analysis.runs.tables import SUMMARY, keys
from analysis.statistics import contrasts
from analysis.statistics.contrasts import Tested
from lib.spec.metric import PARTS
from lib.spec.study import RULES, SUFFIXES, Study

UNKNOWN = "How the difference would vary with other test items is not known here"
SEVERAL_OF_ONE_SIGN = (
    "Which test images show the same sign is not published: each counts as independent, and where "
    "several show one sign the interval is too narrow."
)
INDEPENDENT = "Test items count as independent of one another."
PUBLISHED_STAYS = (
    "The published score stays as it is in this interval, although on other items it would have "
    "been another."
)
FEWEST_ITEMS = 20  # for a bootstrap over them


def conclusion(tested: Tested, study: Study) -> int:
    """Return -1 or 1, the direction of a difference with Holm p below alpha, or 0."""
    return int(np.sign(tested.interval.estimate)) if tested.p_holm < study.alpha else 0


def contrasts_of(data: StudyData, scores: np.ndarray, delta: float | None = None) -> list[Tested]:
    """Test the study's primary contrasts on ``scores`` (variants, seeds): its own, or others.

    ``delta``: the smallest effect of interest in the unit of ``scores``, or None.
    """
    built = contrasts.build(data.study, scores)
    return contrasts.run_tests(
        built, data.study.alpha, data.paired, data.completeness.splitting, delta
    )


def other_rules(data: StudyData) -> dict[str, list[Tested]]:
    """Test the same contrasts under the rules not declared that apply and that all runs have."""
    study = data.study
    return {
        rule: contrasts_of(data, data.values(study.score_key(rule)))
        for rule in RULES
        if rule != study.rule and data.applies(rule) and data.has(study.score_key(rule))
    }


def on_other_scale(data: StudyData) -> list[Tested] | None:
    """Test the same contrasts on the metric's second scale, or None where it has none.

    An interaction may exist on one scale only.
    """
    rescaled = data.study.metric.rescale(data.scores)
    return None if rescaled is None or not data.study.factors else contrasts_of(data, rescaled)


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
        rows += [
            {
                "metric": key,
                "name": tested.contrast.name,
                "difference": tested.interval.estimate,
                "ci_low": tested.interval.low,
                "ci_high": tested.interval.high,
                "p": tested.test.p,
                "runs": data.run_ids,
            }
            for tested in contrasts_of(data, values)
        ]
    return rows


def over_test_set(
    data: StudyData, paired: Sequence[bool]
) -> tuple[list[tuple[float, float]] | None, str]:
    """Return each contrast's interval over test items, or None, and a sentence about them.

    Runs save their outputs at the last epoch, so a study that scores another one has none.
    ``paired``: whether the seeds are pairs, for each contrast.
    """
    study = data.study
    if data.per_item is None:
        return None, f"{UNKNOWN}: the runs kept no output per item."
    if study.rule != "last":
        return None, f"{UNKNOWN}: the outputs per item are of the last epoch, the score is not."
    scores = test_scores(data)
    if scores is None or len(scores) < FEWEST_ITEMS:
        return None, f"{UNKNOWN}: the runs kept no output per item of this metric that all share."
    table = scores.to_numpy(dtype=float).reshape(len(scores), *data.scores.shape)
    about = SEVERAL_OF_ONE_SIGN if study.declaration.class_names == "gtsrb" else INDEPENDENT
    about = f"{about} {PUBLISHED_STAYS}" if not study.factors else about
    return contrasts.over_items(study, table, paired), about


def collapsed(data: StudyData) -> list[str]:
    """Return the finished runs that predict a single class for every test item."""
    columns = [] if data.per_item is None else data.per_item.columns
    finished = [r for e in data.completeness.entries if e.state == "finished" for r in e.runs]
    known = [run for run in finished if f"predicted.{run}" in columns]
    predicted = per_item.of_runs(data.per_item, "predicted", known)
    return [] if predicted is None else [run for run in known if predicted[run].nunique() == 1]
