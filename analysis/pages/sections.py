"""The sections of a report in order, for any format: paragraphs, lists and tables."""

import re
from dataclasses import dataclass, field
from typing import Any

from analysis.figures import networks
from analysis.pages import methods_text, run_tables, scope_text, tables
from analysis.pages.formats import Table
from analysis.runs.data import StudyData
from analysis.statistics import grades
from analysis.statistics.sentences import format_p
from lib.spec.metric import Metric
from lib.spec.words import capitalize, count

MOST_OPEN = 24  # a secondary table with more rows is collapsed


@dataclass(frozen=True)
class Section:
    """A heading and its content; ``folded``: the label if list and table are collapsed."""

    title: str
    level: int = 2
    paragraphs: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    table: Table | None = None
    folded: str = ""

    @property
    def anchor(self) -> str:
        """The HTML id of the section, for links."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def chapters(found: list[Section]) -> list[tuple[Section, list[Section]]]:
    """Return each section of level 2 with the sections of level 3 that follow it."""
    grouped: list[tuple[Section, list[Section]]] = []
    for section in found:
        if section.level == 2:
            grouped.append((section, []))
        else:
            grouped[-1][1].append(section)
    return grouped


def sections(data: StudyData, results: dict[str, Any]) -> list[Section]:
    """Return the sections before the figures."""
    metric, study = data.study.metric, data.study
    some_failed = bool(results["failures"])
    found = [Section("Variants", table=tables.variants(results, metric))]
    found += _runs_and_steps(data, results)
    found.append(
        Section(
            "Primary contrasts",
            paragraphs=[methods_text.claims(results)],
            table=tables.claims(results),
        )
    )
    found.append(
        Section(
            "Differences",
            3,
            [methods_text.contrasts(data, results)],
            table=tables.contrasts(results, metric),
        )
    )
    found += _items(results, metric)
    if blocks := tables.within_blocks(results, study.logged):
        words = [scope_text.blocks(data)]
        found.append(Section("Within each block", 3, words, table=blocks))
    found.append(Section("Pairing", 3, [methods_text.pairing(results)]))
    found += _score_rules(data, results)
    found.append(
        Section(
            "Sensitivity",
            3,
            [methods_text.sensitivity(results)],
            table=tables.sensitivity(results),
        )
    )
    if effects := tables.simple_effects(results, study):
        rows = len(effects.frame)
        found.append(
            Section(
                "Simple effects (secondary)",
                paragraphs=[methods_text.secondary(results)],
                table=effects,
                folded=count(rows, "comparison") if rows > MOST_OPEN else "",
            )
        )
    if other := tables.exploratory(results):
        found.append(
            Section(
                "Other metrics (exploratory)",
                paragraphs=[
                    "Not declared and not corrected: a small p here suggests a hypothesis for "
                    "another study and establishes none. Differences are at the last epoch, in the "
                    "unit that the runs logged (errors as fractions, not in %). "
                    + methods_text.levels(results)
                    + " p ranks failed runs as worst where it is known whether higher values are "
                    f"better; all other numbers exclude {results['unit']}s with a failed run."
                    * some_failed
                ],
                table=other,
                folded=f"Show {count(len(other.frame), 'comparison')}",
            )
        )
    found += _design(results, metric)
    found += _cross_validation(results)
    if study.notes:
        found.append(Section("Notes", paragraphs=study.notes))
    return found


def _items(results: dict[str, Any], metric: Metric) -> list[Section]:
    """Return the sections on uncertainty from seeds and test items, and on published scores."""
    words, units = scope_text.uncertainty(results), f"{results['unit']}s"
    table = tables.uncertainty(results, metric)
    found = [Section(f"{capitalize(units)} and test items", 3, [words], table=table)]
    if parts := tables.spread(results, metric):
        found.append(
            Section(
                f"Sources of variance over {units}",
                3,
                [scope_text.spread(results)],
                table=parts,
            )
        )
    if others := tables.published(results, metric):
        words = (
            "A published score was measured on the same finite test set with other seeds. The "
            "binomial interval shows its uncertainty if the test items are independent."
        )
        found.append(Section("Published scores", 3, [words], table=others))
    return found


def _design(results: dict[str, Any], metric: Metric) -> list[Section]:
    table = tables.design(results, metric)
    if table is None:
        return []
    folded = f"Show {count(len(table.frame), 'row')}"
    words = [scope_text.design(results)]
    title = f"Design analysis: more {results['unit']}s"
    return [Section(title, paragraphs=words, table=table, folded=folded)]


def _runs_and_steps(data: StudyData, results: dict[str, Any]) -> list[Section]:
    by_seed, steps = (
        run_tables.by_seed(results, data.study),
        tables.steps(results, data.study.metric),
    )
    if by_seed is None:
        return []
    published = "; ".join(results["published_scores"])
    words = [f"Published: {published}. {data.study.declaration.data_source}".strip()]
    if (twins := results["duplicates"]) is not None:
        words.append(
            f"{count(twins, 'test item')} {'is' if twins == 1 else 'are'} identical to training "
            f"items; the column “Without duplicates” excludes {'it' if twins == 1 else 'them'}."
        )
    found = [Section("Results by run", paragraphs=words, table=by_seed)]
    if steps:
        found.append(
            Section(
                "Effect of each step of the recipe",
                3,
                [
                    "Scores of the same runs before and after each step. Exact signed-rank tests "
                    f"over {results['unit']}s, neither declared as contrasts nor corrected. "
                    + methods_text.levels(results)
                ],
                table=steps,
            )
        )
    return found


def _score_rules(data: StudyData, results: dict[str, Any]) -> list[Section]:
    declared = data.study.rule_words
    table = tables.score_rules(results, data.study)
    if table:
        words = (
            f"Declared rule: {declared}. “Same under all rules”: every other rule leads to the "
            "same conclusion (a difference in the same direction at Holm p < α, or none shown)."
        )
    else:
        words = f"The runs have no score by another rule than the declared one: {declared}."
    for rule in results["too_short_for"]:
        name = data.study.words_of(rule)
        words += f" The {name} does not apply to runs of {results['budget']} and is skipped."
    scales = [
        f"{c['label']}, tested on the {results['other_scale']}: Holm p = "
        f"{format_p(c['p_holm_other_scale'])}; scale-robust (same conclusion on both scales): "
        f"{'yes' if c['scale_robust'] else 'no'}."
        for c in results["contrasts"]
        if c["scale_robust"] is not None
    ]
    return [Section("Score rules", 3, [words], scales, table)]


def _cross_validation(results: dict[str, Any]) -> list[Section]:
    folds, title = results["cross_validation"], "Comparison with published results"
    if not folds:
        return []
    if "missing" in folds:
        return [Section(title, paragraphs=[f"{folds['sweep']} is skipped: {folds['missing']}."])]
    fixed = folds["fixed"]
    worst = ", ".join(f"{w['image']} {w['median']:.3f}" for w in folds["worst"])
    return [
        Section(
            title,
            paragraphs=[
                f"Lung fields, Jaccard index over the {folds['n_images']} JSRT radiographs at "
                f"{fixed['image_size']}×{fixed['image_size']} pixels, mean ± standard deviation "
                "over images. Each image is scored by the model that was not trained on its fold "
                "(odd or even numbers). Published: van Ginneken, Stegmann, Loog, Medical Image "
                f"Analysis 10, 2006. Ours: sweep {folds['sweep']}, U-Net with {fixed['width']} "
                f"first features, {count(fixed['epochs'], 'epoch')}.",
                f"The ten images with the lowest median over seeds: {worst}. Without them the mean "
                f"is {folds['without_worst']:.4f}.",
            ],
            table=run_tables.cross_validation(results),
        )
    ]


def sections_after_figures(data: StudyData, results: dict[str, Any]) -> list[Section]:
    """Return the sections after the figures: networks, recipe, grades, scope, runs."""
    found = []
    for one in networks.described(data.folder):
        runs = f"run{'' if len(one['runs']) == 1 else 's'} {', '.join(one['runs'])}"
        found.append(
            Section(
                f"Network of {runs}",
                bullets=one["notes"],
                table=run_tables.layers(one),
                folded=f"{count(len(one['rows']), 'layer')}",
            )
        )
    metric, delta = data.study.metric, data.study.smallest_effect
    limits = f"α = {results['alpha']}; " + (
        f"δ = {metric.show_exactly(delta)}." if delta else "no δ was declared."
    )
    found.append(
        Section(
            "Recipe",
            paragraphs=["Config values shared by all runs:"],
            table=run_tables.recipe(results),
        )
    )
    found.append(
        Section(
            "Grades",
            paragraphs=[limits],
            bullets=[f"{n.replace('_', ' ')}: {text}" for n, text in grades.GRADES.items()],
        )
    )
    found.append(Section("Scope", paragraphs=[scope_text.scope(data, results)]))
    origin = [
        f"{name}: `{values if isinstance(values, str) else ', '.join(values)}`"
        for name, values in results["provenance"].items()
    ]
    return [*found, Section("Runs", bullets=origin, table=run_tables.runs(results, data.study))]
