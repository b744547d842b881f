"""The report's paragraphs on scope and uncertainty: data, seeds, blocks, new studies."""

from typing import Any

from analysis.pages.methods_text import highest, levels
from analysis.runs.data import StudyData
from analysis.statistics.design import SIMULATED, spread_factors
from analysis.statistics.sentences import format_p, show_level
from lib.spec.words import capitalize, count


def lead(data: StudyData, results: dict[str, Any]) -> str:
    """Return the scope of all statements, shown once above them."""
    part = f"{data.study.metric.part} set" if data.study.metric.part else "evaluation"
    if data.study.metric.part == "validation" and data.splits_by_seed:
        part = "way to draw a validation set from it"
    return (
        f"All statements are for this data set and {part}, this recipe (learning rates included), "
        f"a budget of {results['budget']} and "
        f"{count(results['n_seeds'], results['unit'])} per variant."
    )


def uncertainty(results: dict[str, Any]) -> str:
    """Return the paragraph on the intervals over seeds and over test items."""
    if not results["test_items"]:
        return results["about_test_items"]
    alone, units = show_level(1 - results["alpha"]), f"{results['unit']}s"
    both = show_level(1 - results["alpha"] / len(results["contrasts"]))
    exact = "exact, " if all(row["exact"] for row in results["contrasts"]) else ""
    return (
        f"{capitalize(units)}: uncertainty from the {units}, with the test items fixed "
        f"({exact}{alone}, or {highest(results)}). Test items: uncertainty from the test items, "
        "with the trained networks fixed (percentile bootstrap over the "
        f"{count(results['test_items'], 'test item')}, {alone}). Both: resampled together (crossed "
        f"bootstrap, {both}); bootstrap intervals of few {units} are too narrow, and only claims "
        "against published scores use this one. "
        f"{results['about_test_items']}"
    )


def spread(results: dict[str, Any]) -> str:
    """Return the paragraph on the table of variance components."""
    without = ", without failed runs" * bool(results["failures"])
    return (
        f"SD over {results['unit']}s: standard deviation of the runs' scores{without}. Its "
        "variance is the sum of two parts: from the finite test set, since runs err on different "
        "items, and from training, which a larger test set would not reduce. SD over new test "
        "items: standard deviation of the mean over all runs if other "
        f"{results['item']}s were drawn. Negative estimates are shown as 0."
    )


def design(results: dict[str, Any]) -> str:
    """Return the paragraph on the design analysis."""
    k, units = results["trained_seeds"], f"{results['unit']}s"
    low, high = spread_factors(k)
    return (
        f"Probability of each grade in a new study with the given number of {units}, if the true "
        f"effect of one contrast is 0, δ, 2δ or (for the present number of {units}) the estimate, "
        "and those of all contrasts that are independent of it are 0. Each row rests on "
        f"{SIMULATED} simulated studies: their {units} are drawn from this study's residuals (with "
        "random signs, smoothed) and go through the same tests; no run fails. P(difference): any "
        "grade that claims a difference, P(meaningful) included. P(inconclusive) includes not "
        "testable. Wrong sign: share of the claimed differences that have the wrong sign. "
        "Exaggeration: mean ratio of their estimated to their true size. "
        "With the other effects at 0, Holm's correction is at its strictest; if other contrasts "
        "are shown too, the probabilities are higher. "
        f"{count(k, results['unit'])} without a failed run measure the spread roughly: the true SD "
        f"may be {low:.1f} to {high:.1f} times the observed SD (95 %, if normal), so these "
        "probabilities are rough too."
    )


SCALES = {
    "raw": "the raw scores",
    "rank": "the ranks of the runs within each block, scaled from 0 (lowest score) to 1 (highest)",
    "relative": "(score − b) / |b|, with b the median score of the baseline variant in the block",
}


def blocks(data: StudyData) -> str:
    """Return the paragraph on blocks: how they are averaged, and the table of each block."""
    study, unit = data.study, data.study.declaration.unit
    failed = f" p ranks failed runs as worst; the other columns exclude {unit}s with a failed run."
    return (
        f"Each {unit} gives one value per variant, the mean over the {len(study.blocks)} blocks "
        f"({', '.join(study.block_keys)}) of {SCALES[study.declaration.block_scale]}. The table "
        f"shows the same contrasts within each block, on the {study.logged.title}. It is "
        f"descriptive: no grade depends on it. {levels({'alpha': study.alpha, 'unit': unit})}"
        f"{failed * bool(data.failures)}"
    )


def scope(data: StudyData, results: dict[str, Any]) -> str:
    """Return the paragraph on what the results apply to, and on the assumptions of the tests."""
    metric, n = data.study.metric, results["n_seeds"]
    differ = "data" in results["allowed"]
    data_set = "different data (see the waived check)" if differ else "one data set"
    part = f", one {metric.part} set" if metric.part and not differ else ""
    if resplit := data.splits_by_seed:
        part = ", a validation set per seed" if metric.part == "validation" else part
    replicate = data.study.declaration.replicate
    units = {
        "seed": "Seeds are replicates of training on these data"
        + ", and each seed draws its own validation data from them" * resplit
        + f": the results do not extend to new {results['item']}s or other data.",
        "block": f"The replicates are the values of {replicate}, one run each. They represent "
        "other values of the same kind; the variation over seeds is unknown.",
        "fold": f"The replicates are folds of one data set ({replicate}). Their "
        "training sets overlap, so they are not independent, and the p-values are too small.",
    }
    unit = results["unit"]
    return (
        f"The results are for {data_set}{part}, {count(n, unit)}, a fixed recipe and a budget of "
        f"{results['budget']}. {units[unit]} A longer budget or other learning rates may change "
        f"every conclusion. With n = {n} the smallest possible p is {_smallest(results)}. "
        f"{_assumptions(results['contrasts'])}"
    )


def _smallest(results: dict[str, Any]) -> str:
    least = {kind: format_p(p) for kind, p in results["smallest_p"].items()}
    if len(least) == 1:
        return next(iter(least.values()))
    return f"{least['paired']} (signed-rank test) or {least['unpaired']} (Mann–Whitney test)"


def _assumptions(rows: list[dict[str, Any]]) -> str:
    """Return what the tests assume: of pairs, of unpaired seeds, or of both."""
    words = []
    if any(row["paired"] for row in rows):
        words.append(
            "The signed-rank test is about the pseudomedian of the differences (the median of the "
            "means of all pairs of differences). It is exact if the differences are symmetric "
            "about 0 under the null hypothesis."
        )
    if unpaired := [row for row in rows if not row["paired"]]:
        exact = all(row["exact"] for row in unpaired)
        words.append(
            "The Mann–Whitney test is about whether a run of one level tends to have the higher "
            f"value. {'It is exact' if exact else 'The normal approximation applies'} if both "
            "levels have the same distribution under the null hypothesis. The interval assumes "
            "that the two distributions differ only by a shift."
        )
    return " ".join(words)
