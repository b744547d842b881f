"""What a report says, in order, whatever the format: sections of paragraphs, tables and lists."""

import re
from dataclasses import dataclass, field
from typing import Any

from analysis.figures import networks
from analysis.pages import methods_text, tables
from analysis.pages.tables import Table
from analysis.runs.data import StudyData
from analysis.statistics import grades
from analysis.statistics.sentences import format_p
from lib.spec.metric import Metric, count

MOST_OPEN = 24  # rows of a secondary table that is not folded


@dataclass(frozen=True)
class Section:
    """A heading with what is below it; ``folded``: the words behind which the rest is hidden."""

    title: str
    level: int = 2
    paragraphs: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    table: Table | None = None
    folded: str = ""

    @property
    def anchor(self) -> str:
        """The id of the section, to link to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def chapters(found: list[Section]) -> list[tuple[Section, list[Section]]]:
    """Group sections: each of level 2 with those of level 3 that follow it."""
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
        words = [methods_text.blocks(data)]
        found.append(Section("Within each block", 3, words, table=blocks))
    found.append(Section("Pairing", 3, [methods_text.pairing(data, results)]))
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
        exact = all(s["exact"] for s in results["secondary"])
        rows = len(effects.frame)
        found.append(
            Section(
                "Simple effects (secondary)",
                paragraphs=[
                    f"{'Exact two-sided' if exact else 'Two-sided'} Mann–Whitney tests between "
                    f"single variants{'' if exact else ' (normal approximation)'}, Holm's "
                    f"correction over {rows}; A12: how often a run of the treatment has the higher "
                    "value."
                ],
                table=effects,
                folded=count(rows, "comparison") if rows > MOST_OPEN else "",
            )
        )
    if other := tables.exploratory(results):
        found.append(
            Section(
                "Other metrics (exploratory)",
                paragraphs=[
                    "Not declared and not corrected: a small p here may raise a question for "
                    "another study; it answers none. Differences at the last epoch, in the "
                    "metric's own unit."
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
    """Return the sections on seeds and test items together, and on published scores."""
    words = methods_text.uncertainty(results)
    found = [Section("Seeds and test items", 3, [words], table=tables.uncertainty(results, metric))]
    if parts := tables.spread(results, metric):
        found.append(
            Section(
                "Where the spread over seeds is from",
                3,
                [methods_text.spread(results)],
                table=parts,
            )
        )
    if others := tables.published(results, metric):
        words = (
            "A published score was measured on the same finite test set, by other seeds: its "
            "binomial error is that of as many independent items."
        )
        found.append(Section("Published scores", 3, [words], table=others))
    return found


def _design(results: dict[str, Any], metric: Metric) -> list[Section]:
    table = tables.design(results, metric)
    if table is None:
        return []
    folded = f"Show {count(len(table.frame), 'row')}"
    words = [methods_text.design(results)]
    return [Section("What more seeds would show", paragraphs=words, table=table, folded=folded)]


def _runs_and_steps(data: StudyData, results: dict[str, Any]) -> list[Section]:
    by_seed, steps = (
        tables.by_seed(results, data.study),
        tables.steps(results, data.study.metric),
    )
    if by_seed is None:
        return []
    published = "; ".join(results["published_scores"])
    words = [f"Published: {published}. {data.study.declaration.data_source}".strip()]
    if (twins := results["duplicates"]) is not None:
        words.append(
            f"{count(twins, 'test item')} {'is' if twins == 1 else 'are'} pixel by pixel also "
            f"among the training items; one column leaves {'it' if twins == 1 else 'them'} out."
        )
    found = [Section("Run by run", paragraphs=words, table=by_seed)]
    if steps:
        found.append(
            Section(
                "What the recipe's last steps bring",
                3,
                [
                    "Scores of the same runs before and after each step (exact signed-rank tests "
                    "over seeds, not declared as contrasts and not corrected)."
                ],
                table=steps,
            )
        )
    return found


def _score_rules(data: StudyData, results: dict[str, Any]) -> list[Section]:
    own = data.study.rule_words
    table = tables.score_rules(results, data.study)
    if table:
        words = (
            f"Declared: {own}. A contrast survives when every other rule leads to the same "
            "conclusion (a difference in the same direction at Holm p < α, or none)."
        )
    else:
        words = f"The runs have no score by another rule than the declared one, the {own}."
    for rule in results["too_short_for"]:
        name = data.study.words_of(rule)
        words += f" The {name} is no rule for runs of {results['budget']} and is left out."
    scales = [
        f"{c['label']}, tested again on the {results['other_scale']}: Holm p "
        f"{format_p(c['p_holm_other_scale'])}; scale-robust: "
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
        return [Section(title, paragraphs=[f"No table of {folds['sweep']}: {folds['missing']}."])]
    fixed = folds["fixed"]
    worst = ", ".join(f"{w['image']} {w['median']:.3f}" for w in folds["worst"])
    return [
        Section(
            title,
            paragraphs=[
                f"Lung fields, Jaccard index over the {folds['n_images']} JSRT radiographs at "
                f"{fixed['image_size']}×{fixed['image_size']} pixels, mean ± standard deviation "
                "over images; each image is scored by the model that was not trained on its fold "
                "(odd and even numbers). Published: van Ginneken, Stegmann, Loog, Medical Image "
                f"Analysis 10, 2006. Ours: sweep {folds['sweep']}, U-Net with {fixed['width']} "
                f"first features, {count(fixed['epochs'], 'epoch')}.",
                f"The ten images with the lowest median over seeds: {worst}. Without them the mean "
                f"would be {folds['without_worst']:.4f}.",
            ],
            table=tables.cross_validation(results),
        )
    ]


def sections_after_figures(data: StudyData, results: dict[str, Any]) -> list[Section]:
    """Return the sections after the figures: networks, recipe, grades, scope, runs."""
    found = []
    for one in networks.described(data.folder):
        runs = f"run{'' if len(one['runs']) == 1 else 's'} {', '.join(one['runs'])}"
        found.append(
            Section(
                f"Network, as in {runs}",
                bullets=one["notes"],
                table=tables.layers(one),
                folded=f"{count(len(one['rows']), 'layer')}",
            )
        )
    metric, delta = data.study.metric, data.study.smallest_effect
    limits = f"α = {results['alpha']}; " + (
        f"δ = {metric.show_amount(delta)}." if delta else "no δ was declared."
    )
    found.append(
        Section(
            "Recipe",
            paragraphs=["Config values that are the same in all runs:"],
            table=tables.recipe(results),
        )
    )
    found.append(
        Section(
            "Grades",
            paragraphs=[limits],
            bullets=[f"{n.replace('_', ' ')}: {text}" for n, text in grades.GRADES.items()],
        )
    )
    found.append(Section("Scope", paragraphs=[methods_text.scope(data, results)]))
    origin = [
        f"{name}: `{values if isinstance(values, str) else ', '.join(values)}`"
        for name, values in results["provenance"].items()
    ]
    return [*found, Section("Runs", bullets=origin, table=tables.runs(results, data.study))]
