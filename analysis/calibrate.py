"""Show how often the analysis makes wrong claims, on studies of which the truth is known.

    python -m analysis.calibrate gtsrb_short                    (10,000 studies a line)
    python -m analysis.calibrate gtsrb_short --studies 200000   (longer, twenty times as many)
    python -m analysis.calibrate gtsrb_short --into docs/methods.md
    python -m analysis.calibrate gtsrb_short --permute analysis/results/gtsrb_short

Made-up studies of this design go through the same contrasts, tests and grades as real ones. Each
line of the table is one kind of truth: nothing differs, all effects are exactly δ, skewed noise of
unequal spread, discrete scores, failing runs, several score rules, blocks, seeds that are no pairs,
planned looks. For each kind of claim it counts the studies in which that kind is wrong somewhere,
with a 95 % Monte-Carlo interval. The command exits with 1 when a rate is beyond α. With --into the
table goes into a file, too, between its lines <!-- calibrate --> and <!-- /calibrate -->.

With --permute the scores of a real study are permuted among the variants of each seed: every
difference that is then claimed is wrong.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from analysis.readme import insert
from analysis.runs import blocks
from analysis.runs import data as study_data
from analysis.statistics import contrasts, grades, many, rank_tests, testing
from lib.spec.declaration import StudyError
from lib.spec.errors import UserError, command
from lib.spec.files import write_atomically
from lib.spec.study import Study, load_study

KINDS = ("difference", "beyond ±δ", "within ±δ", "interval")
DELTA = 1.0  # the smallest effect of interest in made-up studies: a run's standard deviation
LOOKS = {10: 0.01, 14: 0.02, 18: 0.02}  # α spent at each number of seeds; together α
PROOF = 0.999  # confidence with which a rate must lie beyond α for the command to fail
Generator = np.random.Generator
Noise = Callable[[Generator, tuple[int, ...]], np.ndarray]

NOISES: dict[str, Noise] = {  # of a run, mean 0 and standard deviation 1
    "normal": lambda rng, size: rng.normal(0, 1, size),
    "skewed": lambda rng, size: rng.exponential(1, size) - 1,
    "heavy tails": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "discrete": lambda rng, size: np.round(2 * rng.normal(0, 1, size)) / 2,
}


@dataclass(frozen=True)
class Studies:
    """Made-up studies with their truth.

    ``tables`` (variants, studies, seeds); ``failed``: which runs failed, same shape, or None;
    ``truth`` (contrasts,): the true differences, among runs that do not fail; ``same`` (contrasts,)
    bool: that the variants do not differ, failures included; ``rules``: tables under other score
    rules; ``paired``: whether seeds are pairs.
    """

    tables: np.ndarray
    truth: np.ndarray
    same: np.ndarray
    failed: np.ndarray | None = None
    rules: Sequence[np.ndarray] = ()
    paired: bool = True


@dataclass(frozen=True)
class Rates:
    """In how many of ``studies`` each kind of claim is wrong somewhere, by ``KINDS``."""

    studies: int
    wrong: dict[str, int]

    def beyond(self, alpha: float) -> list[str]:
        """Return the kinds of claim that are wrong more often than ``alpha``, past all chance."""
        test = {
            kind: binomtest(number, self.studies, alpha, alternative="greater").pvalue
            for kind, number in self.wrong.items()
        }
        return [kind for kind, p in test.items() if p < 1 - PROOF]


def count_wrong(study: Study, made: Studies, alpha: float | None = None) -> Rates:
    """Analyze made-up studies and count wrong claims; ``alpha``: at one of several looks."""
    return Rates(made.tables.shape[1], _total(wrong_claims(study, made, alpha)))


def _total(wrong: dict[str, np.ndarray]) -> dict[str, int]:
    return {kind: int(any_.sum()) for kind, any_ in wrong.items()}


def wrong_claims(study: Study, made: Studies, alpha: float | None = None) -> dict[str, np.ndarray]:
    """Return in which studies (bool, (studies,)) each kind of claim is wrong somewhere."""
    alpha = study.alpha if alpha is None else alpha
    failed = made.failed is not None
    claims = many.claims_of_many(study, made.tables, made.paired, (), DELTA, made.failed)
    graded, truth, same = many.grades_of(claims, alpha, failed), made.truth, made.same
    sign = np.where(claims.difference < alpha, claims.direction, 0)
    others = []
    for rule in made.rules:
        other = many.claims_of_many(study, rule, made.paired, (), DELTA)
        agree = np.where(other.difference < alpha, other.direction, 0) == sign
        others.append((many.grades_of(other, alpha, failed=False), agree))
    if others:
        for at in np.ndindex(graded.shape):
            rules = [(verdict[at], bool(agree[at])) for verdict, agree in others]
            graded[at] = grades.under_other_rules(graded[at], rules)
    found = np.isin(graded, grades.SUPPORTED)
    opposite = (claims.direction != np.sign(truth)) & ~same
    about_delta = np.isin(graded, ("meaningful", "support_small"))
    within = np.isin(graded, ("support_small", "practically_equivalent"))
    wrong = {
        # Where runs fail, a difference over all runs may go either way; one about ±δ may not.
        "difference": found & (same | (opposite & (about_delta | (not failed)))),
        "beyond ±δ": (graded == "meaningful") & (np.abs(truth) <= DELTA),
        "within ±δ": within & (np.abs(truth) >= DELTA),
        "interval": _missed(study, made, alpha),
    }
    return {kind: errors.any(axis=1) for kind, errors in wrong.items()}


def _missed(study: Study, made: Studies, alpha: float) -> np.ndarray:
    """Return whether each simultaneous interval misses the truth (bool, (studies, contrasts)).

    The interval holds the shifts that the exact test does not reject, so the truth is asked for.
    """
    variants, studies, n = made.tables.shape
    missed = np.zeros((studies, len(made.truth)), dtype=bool)
    flat = None if made.failed is None else made.failed.reshape(variants, -1)
    built = contrasts.build(study, made.tables.reshape(variants, -1))
    for i, (contrast, shift) in enumerate(zip(built, made.truth, strict=True)):
        kept = [k.reshape(studies, n) for k in testing.kept_of(contrast, flat, made.paired)]
        x, y = (v.reshape(studies, n) for v in (contrast.baseline, contrast.treatment))
        for rows, own in many.equally_many(x, y, kept):
            both = testing.tails(*own, made.paired, contrast.tolerance, float(shift))
            missed[rows, i] = rank_tests.two_sided(*both) < alpha / len(built)
    return missed


# ---------------------------------------------------------------------------------------------
# Truths


def scenarios(study: Study) -> dict[str, Callable[[Generator, int, int], Studies]]:
    """Return, by its name, how studies of each kind of truth are made: (rng, studies, seeds)."""
    weights = contrasts.weights(study)
    worst = -1e3 * study.metric.sign

    def plain(
        noise: str, effect: float, paired: bool = True, rules: int = 0, spread: float = 1.0
    ) -> Callable[[Generator, int, int], Studies]:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            means = _means(weights, effect)
            size = (len(means), studies, n)
            tables = means[:, None, None] + spread * NOISES[noise](rng, size)
            if paired:  # a seed effect common to the variants cancels
                tables = tables + rng.normal(0, 1, (1, studies, n)).round(1)
            other = [tables + rng.normal(0, 0.33, size) for _ in range(rules)]
            truth = weights @ means
            return Studies(tables, truth, np.isclose(truth, 0), None, other, paired)

        return make

    def unequal(effect: float) -> Callable[[Generator, int, int], Studies]:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            scales = np.geomspace(0.5, 1.5, weights.shape[1])[:, None, None]

            def draw(number: int, seeds: int) -> np.ndarray:
                return scales * NOISES["skewed"](rng, (len(scales), number, seeds))

            sample = np.einsum("cv,vkn->ckn", weights, draw(400_000, 2))
            own = np.median(sample.mean(axis=2), axis=1)  # pseudomedians without any effect
            means = np.linalg.lstsq(weights, effect * DELTA - own, rcond=None)[0]
            tables = means[:, None, None] + draw(studies, n)
            truth = np.full(len(weights), effect * DELTA)
            return Studies(tables, truth, truth == 0)

        return make

    def failing(rate: float, effect: float, everywhere: bool = False) -> Callable:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            made = plain("normal", effect)(rng, studies, n)
            failed = rng.random(made.tables.shape) < rate
            if not everywhere:
                failed[:-1] = False
            tables = np.where(failed, worst, made.tables)
            same = made.same & (everywhere | (weights[:, -1] == 0))
            return Studies(tables, made.truth, same, failed)

        return make

    def blocked(effect: float) -> Callable[[Generator, int, int], Studies]:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            made = [plain("skewed", effect)(rng, studies, n) for _ in range(3)]
            spread = rng.normal(0, 5, (3, 1, 1, 1))  # blocks are of unlike difficulty
            tables = np.array([one.tables for one in made]) + spread
            means = blocks.average(tables.reshape(3, tables.shape[1], -1))
            return Studies(means.reshape(tables.shape[1:]), made[0].truth, made[0].same)

        return make

    return {
        "nothing differs": plain("normal", 0),
        "nothing differs, skewed": plain("skewed", 0),
        "nothing differs, heavy tails": plain("heavy tails", 0),
        "nothing differs, discrete": plain("discrete", 0),
        "nothing differs, no pairs": plain("normal", 0, paired=False),
        "nothing differs, five score rules": plain("normal", 0, rules=4),
        "nothing differs, 10 % fail everywhere": failing(0.1, 0, everywhere=True),
        "all effects δ": plain("normal", 1),
        "all effects δ, little noise": plain("normal", 1, spread=0.1),
        "all effects δ, skewed": plain("skewed", 1),
        "all effects δ, discrete": plain("discrete", 1),
        "all effects δ, no pairs": plain("normal", 1, paired=False),
        "all effects δ, five score rules": plain("normal", 1, rules=4),
        "pseudomedians 0, skewed, unequal spread": unequal(0),
        "pseudomedians δ, skewed, unequal spread": unequal(1),
        "10 % of one variant fail, else nothing differs": failing(0.1, 0),
        "30 % of one variant fail, else nothing differs": failing(0.3, 0),
        "10 % of one variant fail, else all effects δ": failing(0.1, 1),
        "30 % of one variant fail, else all effects δ": failing(0.3, 1),
        "half of one variant fail, which is better by 3 δ": failing(0.5, -3 * study.metric.sign),
        "three blocks, nothing differs": blocked(0),
        "three blocks, all effects δ": blocked(1),
    }


def _means(weights: np.ndarray, effect: float) -> np.ndarray:
    """Return the variants' means (variants,) that give every contrast ``effect`` times δ."""
    wanted = np.full(len(weights), effect * DELTA)
    return np.linalg.lstsq(weights, wanted, rcond=None)[0]


def over_looks(study: Study, effect: float, studies: int, rng: Generator) -> Rates:
    """Count the studies with a wrong claim at any of the planned looks, at each its own α."""
    made = scenarios(study)["all effects δ" if effect else "nothing differs"]
    longest = made(rng, studies, max(LOOKS))
    wrong = {kind: np.zeros(studies, dtype=bool) for kind in KINDS}
    for n, alpha in LOOKS.items():
        at = dataclasses.replace(longest, tables=longest.tables[:, :, :n])
        for kind, errors in wrong_claims(study, at, alpha).items():
            wrong[kind] |= errors
    return Rates(studies, _total(wrong))


def permuted(
    study: Study, scores: np.ndarray, studies: int, rng: Generator, paired: bool = True
) -> Rates:
    """Count claims of a difference on scores (variants, seeds), permuted within each seed."""
    tables = np.stack([rng.permuted(scores, axis=0) for _ in range(studies)], axis=1)
    count = len(contrasts.weights(study))
    made = Studies(tables, np.zeros(count), np.ones(count, dtype=bool), paired=paired)
    wrong = wrong_claims(study, made)
    return Rates(studies, {"difference": int(wrong["difference"].sum())})


# ---------------------------------------------------------------------------------------------
# The table


def line(seeds: str, name: str, rates: Rates) -> str:
    """Return a row of the table, in Markdown."""
    cells = [
        _rate(rates.wrong[kind], rates.studies) if kind in rates.wrong else "–" for kind in KINDS
    ]
    return f"| {seeds} | {name} | {' | '.join(cells)} |"


def _rate(number: int, studies: int) -> str:
    interval = binomtest(number, studies).proportion_ci()
    return f"{number / studies:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def heading() -> str:
    """Return the table's heading, in Markdown."""
    return f"| seeds | truth | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}"


@command
def main() -> None:
    """Show how often the analysis makes wrong claims, on studies of which the truth is known."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the path of its sweep's YAML")
    parser.add_argument("--study", dest="declaration", type=Path, help="the declaration's YAML")
    parser.add_argument("--studies", type=int, default=10_000, help="made-up studies per line")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 10], help="seeds per variant")
    parser.add_argument("--permute", type=Path, help="folder of a study's tables to permute")
    parser.add_argument("--into", type=Path, help="Markdown file with the table's two markers")
    arguments = parser.parse_args()
    if arguments.studies < 1 or min(arguments.seeds) < 1:
        parser.error("--studies and --seeds must be 1 or more")
    rng = np.random.default_rng(0)
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    study = load_study(name, sweep=sweep, declaration=arguments.declaration)
    if not study.factors:
        raise StudyError(
            f"{name} has one variant next to published scores: there is nothing to permute among "
            "variants; calibrate takes a study with factors"
        )
    rows, failed = [heading()], []

    def add(seeds: str, truth: str, rates: Rates) -> None:
        rows.append(line(seeds, truth, rates))
        tqdm.write(rows[-1])
        failed.extend(f"{kind} ({truth}, {seeds} seeds)" for kind in rates.beyond(study.alpha))

    tqdm.write(heading())
    if arguments.permute:
        data = study_data.load(study, arguments.permute)
        if data.completeness.problems:
            problem = data.completeness.problems[0]
            raise UserError(f"{arguments.permute} is incomplete: {problem}")
        rates = permuted(study, data.scores, arguments.studies, rng, data.paired)
        add(str(len(study.seeds)), f"{arguments.permute}, permuted", rates)
    else:
        todo = [(n, truth) for n in arguments.seeds for truth in scenarios(study)]
        for n, truth in tqdm(todo, unit="line", disable=None):
            made = scenarios(study)[truth](rng, arguments.studies, n)
            add(str(n), truth, count_wrong(study, made))
        looks = ", ".join(f"{n} at {alpha:g}" for n, alpha in LOOKS.items())
        for effect, truth in ((0, "nothing differs"), (1, "all effects δ")):
            rates = over_looks(study, effect, arguments.studies, rng)
            add(" / ".join(map(str, LOOKS)), f"three looks ({looks}), {truth}", rates)
    if arguments.into:
        text = insert(arguments.into.read_text(encoding="utf-8"), "calibrate", "\n".join(rows))
        write_atomically(arguments.into, text.encode())
    if failed:
        raise UserError(f"wrong more often than α = {study.alpha}: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
