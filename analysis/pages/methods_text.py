"""The report's paragraphs on its methods: tests, intervals, pairing, sensitivity."""

from typing import Any

from analysis.runs.data import StudyData
from analysis.statistics.sentences import show_level
from lib.spec.words import capitalize, count


def highest(results: dict[str, Any]) -> str:
    """Return the words for the level of an interval if the declared one cannot be reached."""
    return f"the highest level that this number of {results['unit']}s allows"


def tests(results: dict[str, Any]) -> str:
    """Return the names of the tests of the primary contrasts."""
    rows, units = results["contrasts"], f"{results['unit']}s"
    unpaired = [row["label"] for row in rows if not row["paired"]]
    exact = all(row["exact"] for row in rows)
    head = "Exact two-sided" if exact else "Two-sided"
    rank_sum = "Mann–Whitney tests" + ("" if exact else " (normal approximation)")
    if len(unpaired) == len(rows):
        return f"{head} {rank_sum}"
    if unpaired:
        return (
            f"{head} Wilcoxon signed-rank tests over {units}; {rank_sum} for {', '.join(unpaired)}"
        )
    return f"{head} Wilcoxon signed-rank tests over {units}"


def secondary(results: dict[str, Any]) -> str:
    """Return the paragraph on the table of simple effects."""
    rows, units = results["secondary"], f"{results['unit']}s"
    kinds = {row["paired"] for row in rows}
    exact = all(row["exact"] for row in rows)
    names = {
        True: f"Wilcoxon signed-rank tests over {units}",
        False: "Mann–Whitney tests" + ("" if exact else " (normal approximation)"),
    }
    used = " or ".join(names[kind] for kind in names if kind in kinds)
    worst = (
        " p and r rank failed runs as worst; n, difference and CI exclude them"
        f"{', with their pairs' * (True in kinds)}."
    ) * bool(results["failures"])
    level = 1 - results["alpha"] / len(rows)
    return (
        f"{'Exact two-sided' if exact else 'Two-sided'} {used} between single variants, with "
        f"Holm's correction over {count(len(rows), 'comparison')}. No grade depends on them. CI: "
        f"Hodges–Lehmann difference, {show_level(level)} for each comparison, so that all hold at "
        f"once with {show_level(1 - results['alpha'])}, or the level in parentheses, the highest "
        f"that these runs allow.{_together(rows, level)} r: {_correlation(kinds, units)}.{worst}"
    )


def _together(rows: list[dict[str, Any]], level: float) -> str:
    """Say with what confidence intervals hold at once if some do not reach ``level``, or nothing.

    By Bonferroni's inequality it is at least 1 minus the sum of the single errors.
    """
    levels = [row["confidence"] for row in rows if row["confidence"]]
    if len(levels) < 2 or min(levels) >= level - 1e-9:
        return ""
    least = max(0.0, 1 - sum(1 - one for one in levels))
    return f" All of them hold at once with at least {show_level(least)}."


def claims(results: dict[str, Any]) -> str:
    """Return the paragraph on the tests in the table of p-values."""
    rows = results["contrasts"]
    worst = ", failed runs ranked as worst" * bool(results["failures"])
    paired = any(row["paired"] for row in rows)
    zeros = "Zeros keep their ranks and count half on each side" if paired else "Ties get midranks"
    rate = f"at most {100 * results['alpha']:g} %"
    several = (
        f"Holm's correction over the {len(rows)} contrasts is applied to each kind of claim "
        f"separately, so the family-wise error rate of each kind is {rate}."
    )
    one = f"One contrast needs no correction: the error rate of each kind of claim is {rate}."
    words = (
        f"{tests(results)}{worst}. {zeros}; p is twice the smaller tail. "
        f"{several if len(rows) > 1 else one}"
    )
    if results["smallest_effect"] is not None:
        words += (
            " Beyond ±δ: one-sided tests at +δ and −δ, the smaller p doubled. Within ±δ: two "
            "one-sided tests, the larger p."
        )
        words += f" Both exclude {results['unit']}s with a failed run." * bool(results["failures"])
    if rows[0]["kind"] == "published":
        words += (
            f" A claim against a published score must also hold in the interval over "
            f"{results['unit']}s and test items together."
        )
    return words


def contrasts(data: StudyData, results: dict[str, Any]) -> str:
    """Return the paragraph on the table of differences."""
    rows, metric = results["contrasts"], data.study.metric
    first, family, units = rows[0], len(results["contrasts"]), f"{results['unit']}s"
    minus = "ours minus the published" if first["kind"] == "published" else _MINUS
    unit = f", in {metric.difference_unit}" if metric.difference_unit else ""
    exact = "exact" if all(row["exact"] for row in rows) else "approximate"
    over = (
        f" {capitalize(units)} with a failed run are excluded, except from r, which ranks failed "
        "runs as worst."
    ) * bool(results["failures"])
    alone = show_level(1 - results["alpha"])
    several = (
        f"intervals over {units}: for all {family} contrasts at once "
        f"({show_level(1 - results['alpha'] / family)} each, which gives {alone} for all), and for "
        f"one contrast only ({alone})"
    )
    one = f"interval over {units} ({alone})"
    at_least = "; ranks are discrete, so the levels are at least these" * (exact == "exact")
    return (
        f"Hodges–Lehmann difference, {minus}{unit}, with {'an ' * (family == 1)}{exact} "
        f"{several if family > 1 else one}{at_least}. If a level cannot be reached, the interval "
        f"has {highest(results)}, shown in parentheses."
        f"{_together(rows, 1 - results['alpha'] / family)} r: {correlation(results)}. Below / "
        f"above 0: number of {units} whose difference has that sign.{over}"
    )


def correlation(results: dict[str, Any]) -> str:
    """Return the name of r in the tables: of pairs, of unpaired seeds, or of both."""
    return _correlation({row["paired"] for row in results["contrasts"]}, f"{results['unit']}s")


def _correlation(paired: set[bool], units: str) -> str:
    name = "rank-biserial correlation"
    if paired == {True}:
        return f"matched-pairs {name}"
    if paired == {False}:
        return name
    return f"{name} (matched-pairs where the {units} are pairs)"


def for_papers(data: StudyData, results: dict[str, Any]) -> tuple[str, str]:
    """Return the captions of the two tables of primary contrasts in tables.tex, as plain text."""
    rows, metric, units = results["contrasts"], data.study.metric, f"{results['unit']}s"
    level = 1 - results["alpha"] / len(rows)
    exact = "exact " * all(row["exact"] for row in rows)
    or_less = f"or {highest(results)}"
    several = f"interval for all contrasts at once ({show_level(level)} each, {or_less})"
    one = f"interval ({show_level(level)}, {or_less})"
    unit = f" in {metric.difference_unit}" if metric.difference_unit else ""
    first, delta = tests(results), results["smallest_effect"]
    claims = without = ranked = ""
    if results["failures"]:
        shown = ", ".join(f"{row['n_trained']} of {row['n']}" for row in rows)
        without = f" {capitalize(units)} with a failed run are excluded ({shown} are left), except "
        without += "from r, which ranks failed runs as worst."
        ranked = ", failed runs ranked as worst"
    if delta is not None:
        claims = f" Beyond, within ±δ: Holm p of these claims, δ = {metric.show_exactly(delta)}"
        claims += f", without {units} with a failed run." if results["failures"] else "."
    corrected = "the same" if len(rows) == 1 else f"corrected over {len(rows)} contrasts"
    return (
        f"Primary contrasts{unit}: Hodges–Lehmann difference and {exact}"
        f"{several if len(rows) > 1 else one}.{_together(rows, level)} −/+: number of {units} "
        f"whose difference has that sign. r: {correlation(results)}.{without}",
        f"Primary contrasts, p-values. p: {first[0].lower() + first[1:]}{ranked}, uncorrected; "
        f"Holm p: {corrected}.{claims}",
    )


def levels(results: dict[str, Any]) -> str:
    """Return the sentence on the level of intervals that are for one comparison only."""
    return (
        f"CI: {show_level(1 - results['alpha'])} for one comparison only, or the level in "
        f"parentheses, {highest(results)}."
    )


_MINUS = "treatment minus baseline"


def pairing(results: dict[str, Any]) -> str:
    """Return the paragraph on whether runs with the same seed are paired, and why."""
    unit = results["unit"]
    rows, hashes, splitting = results["contrasts"], results["pair_hashes"], results["splitting"]
    if rows[0]["kind"] == "published":
        return (
            "Each run's score is compared with a published score, which is a single number. How "
            "the published score varies with its own seeds, or over other test items, is unknown, "
            "and no test here accounts for it. A score that equals it in all digits shown here "
            "counts as equal."
        )
    if results["unpaired"]:
        return (
            f"The {unit}s are not paired, so Mann–Whitney tests are used: "
            f"{'; '.join(results['unpaired'])}. This is a fixed rule; the smaller of two p-values "
            "is never chosen."
        )
    known = [row for row in rows if row["paired"] and row["correlation"] is not None]
    numbers = [f"{row['correlation']:+.2f}".replace("-", "−") for row in known]
    each = "; ".join(f"{row['label']} {r}" for row, r in zip(known, numbers, strict=True))
    between = "baseline and treatment (of an interaction: the two simple effects)"
    shown = f" Correlation over {unit}s between {between}: {each}." * bool(known)
    if not hashes:
        return (
            "The runs logged no hashes of split and order: the pairing of runs with the same "
            f"{unit} rests on the {unit}s alone.{shown}"
        )
    within = f" with the same {' and '.join(splitting)}" if splitting else ""
    change = "changes" if len(splitting) == 1 else "change"
    by_rule = (
        f" {' and '.join(splitting)} {change} the split, so contrasts over "
        f"{'it' if len(splitting) == 1 else 'them'} use the unpaired Mann–Whitney test."
        if splitting
        else ""
    )
    return (
        f"Runs with the same {unit} are pairs: the hashes that they logged "
        f"({' and '.join(hashes)}) are the same in every variant{within}, {unit} by {unit}."
        f"{by_rule}{shown}"
    )


def sensitivity(results: dict[str, Any]) -> str:
    """Return the paragraph on the table of other tests."""
    words = (
        "The same differences under two other tests: the sign-flip test of the mean (exact) and "
        "the t test. No p here is corrected, and no grade depends on this table."
    )
    words += " Failed runs are excluded from all columns." * bool(results["failures"])
    words += f" –: undefined, as for {results['unit']}s that are not paired." * any(
        not row["paired"] for row in results["contrasts"]
    )
    if not any(row["paired"] for row in results["contrasts"]):
        return words
    if results["contrasts"][0]["kind"] == "published":
        return words
    return (
        f"{words} Correlation: Pearson's r over {results['unit']}s between baseline and treatment "
        "(for an interaction, between the two simple effects). The higher it is, the more variance "
        "is removed by pairing."
    )
