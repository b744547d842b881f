"""What the report says of its methods: tests, pairing, sensitivity, scope."""

from typing import Any

from analysis.runs.data import StudyData
from analysis.statistics.grades import format_p
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


def contrasts(data: StudyData, results: dict[str, Any]) -> str:
    """Say how the table of primary contrasts was made."""
    rows, metric = results["contrasts"], data.study.metric
    first = rows[0]
    published = first["kind"] == "published"
    minus = "ours minus the published" if published else "treatment minus baseline"
    unit = f", in {metric.difference_unit}" if metric.difference_unit else ""
    exact = "exact, " if first["exact"] else ""
    matched = "matched-pairs " if first["paired"] else ""
    words = (
        f"{tests(rows)}, Holm's correction over {len(rows)}. Difference: Hodges–Lehmann, {minus}"
        f"{unit}; interval: {exact}{100 * first['confidence']:.3g} %, not corrected; r: {matched}"
        "rank-biserial correlation."
    )
    if results["test_items"]:
        words += (
            " Interval over seeds: what other seeds would give on these test items. Interval over "
            "items: what other items of the same kind would give with these trained networks (the "
            "same Hodges–Lehmann difference, percentile bootstrap over the "
            f"{count(results['test_items'], 'test item')}, {100 * (1 - results['alpha']):.3g} %); "
            "no test uses it."
        )
    return f"{words} {results['about_test_items']}"


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
    diverged = ""
    if number := len(results["diverged"]):
        has = "diverged and has" if number == 1 else "diverged and have"
        diverged = f" {count(number, 'run')} {has} the worst score."
    return (
        f"{data_set}{part}, {count(n, 'seed')}, a fixed recipe, a budget of "
        f"{results['budget']}. Seeds are replicates of training on these data: "
        f"they say nothing about new {results['item']}s or other data. A longer budget or other "
        f"learning rates could overturn every sentence above.{diverged} With n = {n} the smallest "
        f"p that the tests can give is {format_p(results['smallest_p'])}."
    )
