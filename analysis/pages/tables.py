"""The report's tables of variants and contrasts, made from results.json."""

from typing import Any

import pandas as pd

from analysis.pages.formats import RUNS_PER_SIDE, Table, or_dash
from analysis.statistics.sentences import format_p, show_level
from lib.spec.metric import Metric
from lib.spec.study import Study
from lib.spec.words import capitalize

AGAINST_FIRST = "Difference from first"
BELOW_ABOVE = "Below / above 0"  # numbers of seeds


def variants(results: dict[str, Any], metric: Metric) -> Table:
    """Return the table of variants: runs, failures, parameters, scores without failed runs.

    The difference from the first variant is the Hodges–Lehmann estimate.
    """
    unit, fails = f" ({metric.unit})" if metric.unit else "", bool(results["failures"])
    rows = []
    for v in results["variants"]:
        row, number = {"Variant": v["label"]}, len(v["scores"])
        if fails:
            low, high = (f"{100 * v[end]:.0f}" for end in ("failure_low", "failure_high"))
            row["Failed (95 % CI)"] = f"{v['failed']} of {number} ({low} to {high} %)"
        else:
            row["Runs"] = number
        row["Parameters"] = " ".join(f"{count:,}" for count in v["parameters"]) or "–"
        row[f"Median{unit}"] = or_dash(v["median"], metric.show)
        row["Minimum"] = or_dash(v["min"], metric.show)
        row["Maximum"] = or_dash(v["max"], metric.show)
        if len(results["variants"]) > 1:
            row[AGAINST_FIRST] = or_dash(v["difference"], metric.show_signed)
        rows.append(row)
    runs = [v["runs"] for v in results["variants"]]
    widths = {"Variant": 0.19 if fails else 0.31}
    return Table("variants", pd.DataFrame(rows), runs, widths=widths, list_runs=True)


def contrasts(results: dict[str, Any], metric: Metric) -> Table:
    """Return the table of primary contrasts: difference, intervals, effect size, counts."""
    rows, alpha, family = [], results["alpha"], len(results["contrasts"])
    units = _units(results)
    for c in results["contrasts"]:
        row = {"Contrast": c["label"], units: c["n_trained"]}
        if c["n_trained"] < c["n"]:
            row[units] = f"{c['n_trained']} of {c['n']}"
        row["Difference"] = or_dash(c["difference"], metric.show_signed)
        interval = _range(c, metric) + _lower_level(c["confidence"], alpha / family)
        if family == 1:
            row["CI"] = interval
        else:
            row["CI, all contrasts"] = interval
            row["CI, this contrast only"] = _alone(c, metric, alpha)
        row["r"] = _signed_number(c["rank_biserial"])
        row[BELOW_ABOVE] = f"{c['negative']} / {c['positive']}" if c["paired"] else "–"
        rows.append(row)
    return Table("contrasts", pd.DataFrame(rows), [c["runs"] for c in results["contrasts"]])


def _alone(contrast: dict[str, Any], metric: Metric, alpha: float) -> str:
    interval = _range(contrast, metric, "alone_low", "alone_high")
    return interval + _lower_level(contrast["alone_confidence"], alpha)


def _lower_level(confidence: float | None, alpha: float) -> str:
    """Return the level of an interval in parentheses if too few seeds keep it below 1 - alpha."""
    if not confidence or confidence >= 1 - alpha - 1e-9:
        return ""
    return f" ({show_level(confidence)})"


def claims(results: dict[str, Any]) -> Table:
    """Return the table of p-values of each kind of claim."""
    rows = []
    for c in results["contrasts"]:
        row = {"Contrast": c["label"], "p, uncorrected": format_p(c["p"])}
        row["Holm p: difference"] = format_p(c["p_holm"])
        if results["smallest_effect"] is not None:
            row["Holm p: beyond ±δ"] = format_p(c["p_beyond"])
            row["Holm p: within ±δ"] = format_p(c["p_within"])
        if results["failures"]:
            row["p without failed runs, uncorrected"] = or_dash(c["p_trained"], format_p)
        rows.append(row | {"Grade": c["grade"].replace("_", " ")})
    return Table("claims", pd.DataFrame(rows), text=["Grade"])


def uncertainty(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of intervals over seeds, test items, and both; None without test items."""
    if not results["test_items"]:
        return None
    units, alone = _units(results), show_level(1 - results["alpha"])
    both = show_level(1 - results["alpha"] / len(results["contrasts"]))
    rows = [
        {
            "Contrast": c["label"],
            "Difference": or_dash(c["difference"], metric.show_signed),
            f"{units} ({alone})": _alone(c, metric, results["alpha"]),
            f"Test items ({alone})": _range(c, metric, "items_low", "items_high"),
            f"Both ({both})": _range(c, metric, "both_low", "both_high"),
        }
        for c in results["contrasts"]
    ]
    return Table("uncertainty", pd.DataFrame(rows))


def spread(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of variance components, or None without outputs per test item."""
    rows = []
    for v, one in zip(results["variants"], results["spread"] or [], strict=False):
        if one is None:
            continue
        share = (one["finite_test_set"] / one["seeds"]) ** 2 if one["seeds"] else 0.0
        row = {"Variant": v["label"], f"SD over {results['unit']}s": metric.show(one["seeds"])}
        row["SD from test set"] = metric.show(one["finite_test_set"])
        row["SD from training"] = metric.show(one["training"])
        row["Variance from test set"] = f"{100 * share:.0f} %"
        row["SD over new test items"] = metric.show(one["test_items"])
        rows.append(row)
    return Table("spread", pd.DataFrame(rows)) if rows else None


def published(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of published scores with binomial intervals, or None without any."""
    rows = [
        {
            "Published": words,
            metric.axis: metric.show(one["score"]),
            "Binomial 95 % CI": "–"
            if one["low"] is None
            else f"{metric.show(one['low'])} to {metric.show(one['high'])}",
        }
        for words, one in results["published_scores"].items()
    ]
    return Table("published", pd.DataFrame(rows)) if rows else None


def design(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of the design analysis, or None without one."""
    labels = {c["name"]: c["label"] for c in results["contrasts"]}
    rows = []
    for one in results["design"]:
        p = one["grades"]
        row = {"Contrast": labels[one["contrast"]], _units(results): one["n"]}
        row["True effect"] = metric.show(one["effect"])
        row["P(difference)"] = f"{one['found']:.2f}"
        row["P(meaningful)"] = f"{p['meaningful']:.2f}"
        row["P(equivalent)"] = f"{p['practically_equivalent']:.2f}"
        row["P(inconclusive)"] = f"{p['inconclusive'] + p['not_testable']:.2f}"
        row["Wrong sign (type S)"] = or_dash(one["wrong_sign"], lambda v: f"{v:.2f}")
        row["Exaggeration (type M)"] = or_dash(one["exaggeration"], lambda v: f"{v:.1f}")
        rows.append(row)
    return Table("design", pd.DataFrame(rows)) if rows else None


def grades(results: dict[str, Any], metric: Metric) -> Table:
    """Return the short table of contrasts with their grades, for papers and the docs.

    Beyond and within ±δ: Holm's p of these claims.
    """
    levels = {_level(c) for c in results["contrasts"]} - {""}
    same = levels.pop() if len(levels) == 1 else ""
    rows = [
        {
            "Contrast": c["label"],
            "Difference": or_dash(c["difference"], metric.show_signed),
            f"{same} CI".strip(): _range(c, metric)
            + ("" if same or not _level(c) else f" ({_level(c)})"),
            BELOW_ABOVE: f"{c['negative']} / {c['positive']}" if c["paired"] else "–",
            "p": format_p(c["p"]),
            "Holm p": format_p(c["p_holm"]),
        }
        | (
            {}
            if results["smallest_effect"] is None
            else {
                "Beyond ±δ": format_p(c["p_beyond"]),
                "Within ±δ": format_p(c["p_within"]),
            }
        )
        | {"r": _signed_number(c["rank_biserial"]), "Grade": c["grade"].replace("_", " ")}
        for c in results["contrasts"]
    ]
    return Table("grades", pd.DataFrame(rows), text=["Grade"])


def for_papers(results: dict[str, Any], metric: Metric) -> tuple[Table, Table]:
    """Return the table ``grades`` as two that fit a page: estimates, and p-values."""
    frame = grades(results, metric).frame
    p_values = [name for name in ("p", "Holm p", "Beyond ±δ", "Within ±δ") if name in frame]
    widths = {"Contrast": 0.2, "Grade": 0.16}
    estimates = Table("estimates", frame.drop(columns=p_values), text=["Grade"], widths=widths)
    columns, widths = ["Contrast", *p_values, "Grade"], {"Contrast": 0.27, "Grade": 0.16}
    return estimates, Table("p-values", frame[columns], text=["Grade"], widths=widths)


def score_rules(results: dict[str, Any], study: Study) -> Table | None:
    """Return the table of contrasts under all score rules, or None if there is only one."""
    others = list(results["contrasts"][0]["other_rules"])
    if not others:
        return None
    rows = []
    for c in results["contrasts"]:
        row = {
            "Contrast": c["label"],
            f"Holm p, {study.rule_words}": format_p(c["p_holm"]),
        }
        for rule in others:
            other = c["other_rules"][rule]
            row[f"Difference, {study.words_of(rule)}"] = or_dash(
                other["difference"], study.metric.show_signed
            )
            row[f"Holm p, {study.words_of(rule)}"] = format_p(other["p_holm"])
        row["Same under all rules"] = "yes" if c["survives_all_rules"] else "no"
        rows.append(row)
    return Table("score-rules", pd.DataFrame(rows), [c["runs"] for c in results["contrasts"]])


def paired_kinds(results: dict[str, Any]) -> set[bool]:
    """Return whether primary contrasts are paired: {True}, {False}, or both."""
    return {c["paired"] for c in results["contrasts"]}


def sensitivity(results: dict[str, Any]) -> Table:
    """Return the table of contrasts under other tests."""
    tests = {True: "signed-rank", False: "Mann–Whitney"}
    used = " or ".join(tests[kind] for kind in tests if kind in paired_kinds(results))
    rows = [
        {
            "Contrast": c["label"],
            f"p, {used}": or_dash(c["p_trained"], format_p),
            "p, sign-flip": or_dash(c["p_sign_flip"], format_p),
            "p, t": or_dash(c["p_t"], format_p),
            "Correlation": or_dash(c["correlation"], _signed_number),
        }
        for c in results["contrasts"]
    ]
    return Table("sensitivity", pd.DataFrame(rows), [c["runs"] for c in results["contrasts"]])


def simple_effects(results: dict[str, Any], study: Study) -> Table | None:
    """Return the table of simple effects, or None if there are none."""
    level = results["alpha"] / max(1, len(results["secondary"]))
    pairs = all(s["paired"] for s in results["secondary"])
    runs_per_side = _units(results) if pairs else RUNS_PER_SIDE
    levels = {_lower_level(s["confidence"], level) for s in results["secondary"]}
    shared = levels.pop() if len(levels) == 1 else ""  # shown once, in the heading
    rows = [
        {
            "Comparison": _comparison(s, study),
            runs_per_side: str(s["n"][0]) if s["paired"] else " vs. ".join(map(str, s["n"])),
            "Difference": or_dash(s["difference"], study.metric.show_signed),
            f"CI, all comparisons{shared}": _range(s, study.metric)
            + ("" if shared else _lower_level(s["confidence"], level)),
            "p": format_p(s["p"]),
            "Holm p": format_p(s["p_holm"]),
            "r": _signed_number(s["rank_biserial"]),
        }
        for s in results["secondary"]
    ]
    runs = [s["runs"] for s in results["secondary"]]
    if not rows:
        return None
    return Table("simple-effects", pd.DataFrame(rows), runs, widths={"Comparison": 0.16})


def _comparison(effect: dict[str, Any], study: Study) -> str:
    factor, baseline, treatment = effect["levels"]
    at = "".join(f", with {study.level_label(name, level)}" for name, level in effect["at"])
    words = study.level_label(factor, treatment), study.level_label(factor, baseline)
    return f"{words[0]} instead of {words[1]}{at}"


def exploratory(results: dict[str, Any]) -> Table | None:
    """Return the table of other metrics, or None if there are none."""
    labels = {c["name"]: c["label"] for c in results["contrasts"]}
    alpha = results["alpha"]
    rows = [
        {
            "Metric": e["metric"],
            "Contrast": labels[e["name"]],
            "Difference": or_dash(e["difference"], _logged_unit),
            "CI": "–"
            if e["ci_low"] is None
            else f"{_logged_unit(e['ci_low'])} to {_logged_unit(e['ci_high'])}"
            + _lower_level(e["confidence"], alpha),
            "p, uncorrected": or_dash(e["p"], format_p),
        }
        for e in results["exploratory"]
    ]
    return Table("exploratory", pd.DataFrame(rows), text=["Contrast"]) if rows else None


def within_blocks(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of contrasts within each block, or None without blocks.

    ``metric``: as logged by the runs.
    """
    labels = {c["name"]: c["label"] for c in results["contrasts"]}
    rows = [
        {
            "Block": one["block"],
            "Contrast": labels[one["name"]],
            _units(results): one["n"],
            "Difference": or_dash(one["difference"], metric.show_signed),
            "CI": _range(one, metric) + _lower_level(one["confidence"], results["alpha"]),
            "p, uncorrected": format_p(one["p"]),
        }
        for one in results["within_blocks"]
    ]
    return Table("within-blocks", pd.DataFrame(rows), text=["Contrast"]) if rows else None


def steps(results: dict[str, Any], metric: Metric) -> Table | None:
    """Return the table of the effect of each step of the recipe, or None without steps."""
    rows = [
        {
            "After": w["step"],
            "Before": w["before"],
            "Medians, after vs. before": " vs. ".join(map(metric.show, w["medians"])),
            "Difference": metric.show_signed(w["difference"]),
            "CI": _range(w, metric) + _lower_level(w["confidence"], results["alpha"]),
            "p": format_p(w["p"]),
            f"{_units(results)} lower / higher": f"{w['lower']} / {w['higher']}",
        }
        for w in results["steps"]
    ]
    return Table("steps", pd.DataFrame(rows), text=["Before"]) if rows else None


def _units(results: dict[str, Any]) -> str:
    """Return the heading of a column of numbers of seeds, or of what else the replicates are."""
    return capitalize(f"{results['unit']}s")


def _range(row: dict[str, Any], metric: Metric, low: str = "ci_low", high: str = "ci_high") -> str:
    if row.get(low) is None:
        return "–"
    return f"{metric.show_signed(row[low])} to {metric.show_signed(row[high])}"


def _level(row: dict[str, Any]) -> str:
    """Return the level of an interval, or nothing without one."""
    return show_level(row["confidence"]) if row["confidence"] else ""


def _signed_number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _logged_unit(value: float) -> str:
    return f"{value:+.4g}".replace("-", "−")
