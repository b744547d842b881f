"""What the report says of its methods: tests, pairing, sensitivity, scope."""

from typing import Any

from analysis.runs.data import StudyData
from analysis.statistics.design import SIMULATED, spread_factors
from analysis.statistics.sentences import format_p
from lib.spec.metric import count


def tests(rows: list[dict[str, Any]]) -> str:
    """Name the tests of the primary contrasts."""
    unpaired = [row["label"] for row in rows if not row["paired"]]
    exact = all(row["exact"] for row in rows)
    head = "Exact two-sided" if exact else "Two-sided"
    rank_sum = "Mann–Whitney tests" + ("" if exact else " (normal approximation)")
    if len(unpaired) == len(rows):
        return f"{head} {rank_sum}"
    if unpaired:
        return f"{head} Wilcoxon signed-rank tests over seeds; {rank_sum} for {', '.join(unpaired)}"
    return f"{head} Wilcoxon signed-rank tests over seeds"


def lead(data: StudyData, results: dict[str, Any]) -> str:
    """Say once, above the sentences, what all of them are about."""
    part = f"{data.study.metric.part} set" if data.study.metric.part else "evaluation"
    return (
        f"Scope of every sentence: this data set and {part}, this recipe with a budget of "
        f"{results['budget']} and these learning rates, {count(results['n_seeds'], 'seed')} per "
        "variant."
    )


def claims(results: dict[str, Any]) -> str:
    """Say which tests the table of claims holds."""
    rows = results["contrasts"]
    worst = ", failed runs counted as worst" * bool(results["failures"])
    several = (
        f"each kind of claim has Holm's correction over {len(rows)} contrasts of its own, so that "
        "each kind is wrong somewhere in"
    )
    one = "one contrast, so that each kind of claim is wrong in"
    words = (
        f"{tests(rows)}{worst} (zeros keep their ranks and count half for each side; twice the "
        f"smaller tail); {several if len(rows) > 1 else one} at most "
        f"{100 * results['alpha']:g} % of studies."
    )
    if results["smallest_effect"] is not None:
        over = ", over the seeds without a failed run" * bool(results["failures"])
        words += (
            f" The claims about ±δ shift the differences by δ{over}: beyond, one-sided on either "
            "side and doubled; within, two one-sided tests."
        )
    if rows[0]["kind"] == "published":
        words += (
            " A claim against a published score must hold for seeds and test items together, too."
        )
    return words


def contrasts(data: StudyData, results: dict[str, Any]) -> str:
    """Say how the table of differences was made."""
    rows, metric = results["contrasts"], data.study.metric
    first, family = rows[0], len(results["contrasts"])
    minus = "ours minus the published" if first["kind"] == "published" else _MINUS
    unit = f", in {metric.difference_unit}" if metric.difference_unit else ""
    exact = "exact" if first["exact"] else "approximate"
    matched = "matched-pairs " if first["paired"] else ""
    over = " Over the seeds without a failed run; r is over all." * bool(results["failures"])
    alone = 100 * (1 - results["alpha"])
    return (
        f"Hodges–Lehmann difference, {minus}{unit}, with {exact} intervals over seeds: "
        f"simultaneous over the {count(family, 'contrast')} "
        f"({100 * (1 - results['alpha'] / family):.3g} % each, or as much as so few seeds can "
        f"give), and of one contrast alone ({alone:.3g} %). r: {matched}rank-biserial "
        f"correlation.{over}"
    )


_MINUS = "treatment minus baseline"


def uncertainty(results: dict[str, Any]) -> str:
    """Say what the intervals over seeds and over test items are."""
    if not results["test_items"]:
        return results["about_test_items"]
    alone, family = 100 * (1 - results["alpha"]), len(results["contrasts"])
    both = 100 * (1 - results["alpha"] / family)
    return (
        f"Seeds: what other seeds would give on these test items (exact, {alone:.3g} % or as much "
        "as so few seeds can give). Test "
        "items: what other items of the same kind would give with these trained networks (the "
        "same Hodges–Lehmann difference, percentile bootstrap over the "
        f"{count(results['test_items'], 'test item')}, {alone:.3g} %). Both: seeds and items drawn "
        f"at once (crossed bootstrap, {both:.3g} %). Only claims against published scores use "
        f"it. {results['about_test_items']}"
    )


def spread(results: dict[str, Any]) -> str:
    """Say what the table of variance components is."""
    return (
        "Standard deviations. Over seeds: of the runs' scores, as seen. Part of that is there "
        "because runs err on different items and the test set is finite; the rest is training, "
        "which a larger test set would not remove. Other test items: of the mean over all runs, "
        f"if other {results['item']}s were tested."
    )


def design(results: dict[str, Any]) -> str:
    """Say how the design analysis was made."""
    k = results["trained_seeds"]
    low, high = spread_factors(k)
    return (
        "How often a new study of so many seeds would end in each grade, for a true effect of 0, δ "
        "and 2δ (and of the estimate) in one contrast and 0 in the others, as far as they are "
        f"independent: {SIMULATED} simulated studies per row, whose seeds are drawn from this "
        "study's residuals (with random signs, smoothed) and go through the same tests. "
        f"{count(k, 'seed')} without a failed run say little of the spread: it may truly be "
        f"{low:.1f} to {high:.1f} times what they show (95 %, if normal), so these probabilities "
        "are rough. They are of studies in which no run fails. Wrong sign, exaggeration: of the "
        "differences that would be claimed, the share with the wrong sign and how many times too "
        "large their estimates are on average."
    )


SCALES = {
    "raw": "the scores as they are",
    "rank": "the ranks of the runs within each block, from 0, the lowest score, to 1",
    "relative": "(score − b) / |b|, with b the block's median score of the first variant",
}


def blocks(data: StudyData) -> str:
    """Say how blocks were averaged over, and what the table of each block is."""
    study = data.study
    return (
        f"Each seed gives one value per variant, the mean over the {len(study.blocks)} blocks "
        f"({', '.join(study.block_keys)}) of {SCALES[study.declaration.block_scale]}; blocks are "
        "never compared. Below, the same contrasts within each block, on the "
        f"{study.logged.title}: a description, nothing is decided by it."
    )


def pairing(data: StudyData, results: dict[str, Any]) -> str:
    """Say what shows that runs of one seed are pairs, or that they are none."""
    rows, hashes, splitting = results["contrasts"], results["pair_hashes"], results["splitting"]
    if rows[0]["kind"] == "published":
        return (
            "Each run's score is compared with a published one, which is a single number: how it "
            "would vary with its own seeds, or on other images, is not known, and no test here "
            "allows for that. A score that agrees with it to the published digit counts as equal."
        )
    if results["unpaired"]:
        return (
            f"By rule the tests do not use pairs, since these are none: "
            f"{'; '.join(results['unpaired'])}. The smaller of two p-values is never taken."
        )
    known = [row["correlation"] for row in rows if row["paired"] and row["correlation"] is not None]
    shown = ", ".join(f"{value:+.2f}" for value in known).replace("-", "−")
    shown = f" Correlation over seeds between the levels of each contrast: {shown}." * bool(known)
    if not hashes:
        return (
            "The runs logged no hashes of split and order: that runs of one seed are pairs rests "
            f"on the sweep alone.{shown}"
        )
    within = f" with the same {' and '.join(splitting)}" if splitting else ""
    by_rule = (
        f" {' and '.join(splitting)} changes the split, so contrasts over it are tested without "
        "pairs, by Mann–Whitney."
        if splitting
        else ""
    )
    return (
        f"Runs of one seed are pairs: the hashes that they logged ({' and '.join(hashes)}) are the "
        f"same in every variant{within}, seed by seed.{by_rule}{shown}"
    )


def sensitivity(results: dict[str, Any]) -> str:
    """Say what the table of other tests is."""
    words = (
        "The same differences under two other tests, the sign-flip test of the mean (exact) and "
        "the t test, neither corrected; no statement uses them."
    )
    if results["contrasts"][0]["kind"] == "published":
        return words
    return (
        f"{words} Correlation: Pearson's over seeds between the two levels (for an interaction, "
        "between the two simple effects); the higher it is, the more pairing by seed removes."
    )


def scope(data: StudyData, results: dict[str, Any]) -> str:
    """Say what the sentences are about, and what they are not."""
    metric, n = data.study.metric, results["n_seeds"]
    differ = "data" in results["allowed"]
    data_set = "Different data, as allowed above" if differ else "One data set"
    part = f", one {metric.part} set" if metric.part and not differ else ""
    replicate = data.study.declaration.replicate
    units = {
        "seed": f"Seeds are replicates of training on these data: they say nothing about new "
        f"{results['item']}s or other data.",
        "block": f"The replicates are the values of {replicate}, one run each: they "
        "stand for others of their kind, and nothing is known of the spread over seeds.",
        "fold": f"The replicates are folds of one data set ({replicate}). Their "
        "training sets overlap, so they are not independent, and the p-values are too small.",
    }
    unit = data.study.declaration.unit
    return (
        f"{data_set}{part}, {count(n, unit)}, a fixed recipe, a budget of {results['budget']}. "
        f"{units[unit]} A longer budget or other learning rates could overturn every sentence "
        f"above. With n = {n} the smallest p that the tests can give is "
        f"{format_p(results['smallest_p'])}. Each test is about the "
        "pseudomedian of the differences, the median of the mean of two of them, and is exact if "
        "their distribution is symmetric about it where nothing differs."
    )
