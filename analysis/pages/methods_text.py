"""What the report says of its tests: which they were, and whether the seeds are pairs."""

from analysis.grid import SPLITTING, Sweep


def tests(rows: list[dict]) -> str:
    """Name the tests of the primary contrasts."""
    unpaired = [row["label"] for row in rows if not row["paired"]]
    exact = "Exact two-sided" if all(row["exact"] for row in rows) else "Two-sided"
    rank_sum = "Mann–Whitney tests" + (" (normal approximation)" if exact[0] == "T" else "")
    if len(unpaired) == len(rows):
        return f"{exact} {rank_sum}"
    if unpaired:
        return (
            f"{exact} Wilcoxon signed-rank tests over seeds; {rank_sum} for {', '.join(unpaired)}"
        )
    return f"{exact} Wilcoxon signed-rank tests over seeds"


def pairing(sweep: Sweep, unpaired: list[str], hashes: list[str], rows: list[dict]) -> str:
    """Say what shows that runs of one seed are pairs, or that they are none.

    ``hashes``: names of the hashes that all runs logged and that were compared within each seed;
    ``rows``: the primary contrasts as results.json has them.
    """
    if not sweep.factors:
        return (
            "Each run's score is compared with a published one, which is a single number: how it "
            "would vary with its own seeds, or on other images, is not known, and no test here "
            "allows for that. A score that agrees with it to the published digit counts as equal."
        )
    if unpaired:
        return (
            f"By rule the tests do not use pairs, since these are none: {'; '.join(unpaired)}. "
            "Never is the smaller of two p-values taken."
        )
    known = [row["correlation"] for row in rows if row["paired"] and row["correlation"] is not None]
    shown = ", ".join(f"{value:+.2f}" for value in known).replace("-", "−")
    shown = f" Correlation over seeds between the levels of each contrast: {shown}." * bool(known)
    if not hashes:
        return (
            "The runs logged no hashes of split and order: that runs of one seed are pairs rests "
            f"on the sweep alone.{shown}"
        )
    splitting = [factor for factor in sweep.factors if factor in SPLITTING]
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
