"""Measure how often the analysis makes false claims, on simulated studies with a known truth.

    python -m analysis.calibrate gtsrb_short                    (10,000 studies per row)
    python -m analysis.calibrate gtsrb_short --studies 200000   (slower, narrower intervals)
    python -m analysis.calibrate gtsrb_short --into docs/methods.md
    python -m analysis.calibrate gtsrb_short --permute analysis/results/gtsrb_short

Simulated studies of this design are analyzed with the same contrasts, tests and grades as real
ones. Each row of the table is one scenario: no effect, all effects exactly δ, skewed noise of
unequal spread, discrete scores, failing runs, several score rules, blocks, unpaired seeds, planned
looks. For each type of claim, the row shows the family-wise error rate, the share of studies with
at least one false claim of this type, and its 95 % Monte Carlo interval. The command exits with 1
if a rate is significantly above α. --into also writes the table to a file, between its lines
<!-- calibrate --> and <!-- /calibrate -->.

--permute permutes the scores of a real study among the variants within each seed. There is then no
effect, so every claimed difference is false.
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
from analysis.runs.load import load_data
from analysis.statistics import contrasts, grades, many, rank_tests, testing
from analysis.statistics.failures import clopper_pearson
from lib.spec.declaration import StudyError
from lib.spec.errors import UserError, command
from lib.spec.files import write_atomically
from lib.spec.load import load_study
from lib.spec.study import Study

KINDS = ("difference", "beyond ±δ", "within ±δ", "interval")
DELTA = 1.0  # smallest effect of interest in simulated studies: a run's standard deviation
LOOKS = {10: 0.2, 14: 0.4, 18: 0.4}  # number of seeds: share of α that this look spends
CONFIDENCE = 0.999  # the command fails if a rate is above α with this one-sided confidence
Generator = np.random.Generator
Noise = Callable[[Generator, tuple[int, ...]], np.ndarray]

NOISES: dict[str, Noise] = {  # noise of a run: mean 0, standard deviation about 1
    "normal": lambda rng, size: rng.normal(0, 1, size),
    "skewed": lambda rng, size: rng.exponential(1, size) - 1,
    "heavy tails": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "discrete": lambda rng, size: np.round(2 * rng.normal(0, 1, size)) / 2,
}


@dataclass(frozen=True)
class Studies:
    """Simulated studies with their truth.

    ``tables``: scores (variants, studies, seeds). ``truth``: the true differences among runs that
    do not fail, (contrasts,). ``same``: whether there is no difference, failures included, bool
    (contrasts,). ``failed``: which runs failed, bool in the shape of ``tables``, or None.
    ``rules``: tables under other score rules. ``paired``: whether runs of one seed are pairs.
    """

    tables: np.ndarray
    truth: np.ndarray
    same: np.ndarray
    failed: np.ndarray | None = None
    rules: Sequence[np.ndarray] = ()
    paired: bool = True


@dataclass(frozen=True)
class Rates:
    """Number of ``studies`` with at least one false claim, by type of claim (``KINDS``)."""

    studies: int
    wrong: dict[str, int]

    def above(self, alpha: float) -> list[str]:
        """Return the types of claim whose error rate is significantly above ``alpha``."""
        p_values = {
            kind: binomtest(number, self.studies, alpha, alternative="greater").pvalue
            for kind, number in self.wrong.items()
        }
        return [kind for kind, p in p_values.items() if p < 1 - CONFIDENCE]


def count_wrong(study: Study, simulated: Studies, alpha: float | None = None) -> Rates:
    """Analyze simulated studies and count those with false claims.

    ``alpha``: of one of several looks; by default the study's.
    """
    return Rates(simulated.tables.shape[1], _total(wrong_claims(study, simulated, alpha)))


def _total(wrong: dict[str, np.ndarray]) -> dict[str, int]:
    return {kind: int(studies.sum()) for kind, studies in wrong.items()}


def wrong_claims(
    study: Study, simulated: Studies, alpha: float | None = None
) -> dict[str, np.ndarray]:
    """Return, by type of claim, which studies make at least one false claim (bool, (studies,))."""
    alpha = study.alpha if alpha is None else alpha
    failed, paired = simulated.failed is not None, simulated.paired
    claims = many.claims_of_many(study, simulated.tables, paired, (), DELTA, simulated.failed)
    graded, truth, same = many.grades_of(claims, alpha, failed), simulated.truth, simulated.same
    sign = np.where(claims.difference < alpha, claims.direction, 0)
    others = []
    for rule in simulated.rules:
        other = many.claims_of_many(study, rule, paired, (), DELTA)
        agree = np.where(other.difference < alpha, other.direction, 0) == sign
        others.append((many.grades_of(other, alpha, failed=False), agree))
    if others:
        for at in np.ndindex(graded.shape):
            rules = [(verdict[at], bool(agree[at])) for verdict, agree in others]
            graded[at] = grades.under_other_rules(graded[at], rules)
    difference = np.isin(graded, grades.SUPPORTED)
    opposite = (claims.direction != np.sign(truth)) & ~same
    about_delta = np.isin(graded, ("meaningful", "support_small"))
    size = np.abs(truth)
    at_delta = np.isclose(size, DELTA)  # claims beyond and within ±δ are both false there
    within = np.isin(graded, ("support_small", "practically_equivalent"))
    wrong = {
        # If runs fail, a difference over all runs may truly have the opposite sign to ``truth``,
        # which is of the other runs; a claim about ±δ is about these, so its sign must agree.
        "difference": difference & (same | (opposite & (about_delta | (not failed)))),
        "beyond ±δ": (graded == "meaningful") & ((size < DELTA) | at_delta),
        "within ±δ": within & ((size > DELTA) | at_delta),
        "interval": _missed(study, simulated, alpha),
    }
    return {kind: errors.any(axis=1) for kind, errors in wrong.items()}


def _missed(study: Study, simulated: Studies, alpha: float) -> np.ndarray:
    """Return whether each simultaneous interval misses the truth (bool, (studies, contrasts)).

    An interval contains the shifts that the exact test does not reject, so testing the true shift
    is enough.
    """
    variants, studies, n = simulated.tables.shape
    paired, failed = simulated.paired, simulated.failed
    missed = np.zeros((studies, len(simulated.truth)), dtype=bool)
    flat = None if failed is None else failed.reshape(variants, -1)
    built = contrasts.build(study, simulated.tables.reshape(variants, -1))
    for i, (contrast, shift) in enumerate(zip(built, simulated.truth, strict=True)):
        kept = [k.reshape(studies, n) for k in testing.kept_of(contrast, flat, paired)]
        x, y = (v.reshape(studies, n) for v in (contrast.baseline, contrast.treatment))
        for rows, values in many.equally_many(x, y, kept):
            tails = testing.tails(*values, paired, contrast.tolerance, float(shift))
            missed[rows, i] = rank_tests.two_sided(*tails) < alpha / len(built)
    return missed


# ---------------------------------------------------------------------------------------------
# Scenarios


def scenarios(study: Study) -> dict[str, Callable[[Generator, int, int], Studies]]:
    """Return by name the functions (rng, studies, seeds) that simulate each scenario's studies."""
    weights = contrasts.weights(study)
    worst = -1e3 * study.metric.sign

    def plain(
        noise: str, effect: float, paired: bool = True, rules: int = 0, spread: float = 1.0
    ) -> Callable[[Generator, int, int], Studies]:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            means = _means(weights, effect)
            size = (len(means), studies, n)
            tables = means[:, None, None] + spread * NOISES[noise](rng, size)
            if paired:  # a seed effect that all variants share cancels in the differences
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
            noise = np.median(sample.mean(axis=2), axis=1)  # pseudomedians of the noise alone
            means = np.linalg.lstsq(weights, effect * DELTA - noise, rcond=None)[0]
            tables = means[:, None, None] + draw(studies, n)
            truth = weights @ means + noise
            return Studies(tables, truth, np.isclose(truth, 0))

        return make

    def failing(rate: float, effect: float, everywhere: bool = False) -> Callable:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            intact = plain("normal", effect)(rng, studies, n)
            failed = rng.random(intact.tables.shape) < rate
            if not everywhere:  # only runs of the last variant fail
                failed[:-1] = False
            tables = np.where(failed, worst, intact.tables)
            same = intact.same & (everywhere | (weights[:, -1] == 0))
            return Studies(tables, intact.truth, same, failed)

        return make

    def blocked(effect: float) -> Callable[[Generator, int, int], Studies]:
        def make(rng: Generator, studies: int, n: int) -> Studies:
            parts = [plain("skewed", effect)(rng, studies, n) for _ in range(3)]
            offsets = rng.normal(0, 5, (3, 1, 1, 1))  # blocks differ in difficulty
            tables = np.array([part.tables for part in parts]) + offsets
            means = blocks.average(tables.reshape(3, tables.shape[1], -1))
            return Studies(means.reshape(tables.shape[1:]), parts[0].truth, parts[0].same)

        return make

    return {
        "no effect": plain("normal", 0),
        "no effect, skewed noise": plain("skewed", 0),
        "no effect, heavy-tailed noise": plain("heavy tails", 0),
        "no effect, discrete scores": plain("discrete", 0),
        "no effect, unpaired seeds": plain("normal", 0, paired=False),
        "no effect, five score rules": plain("normal", 0, rules=4),
        "no effect, 10 % of all runs fail": failing(0.1, 0, everywhere=True),
        "all effects δ": plain("normal", 1),
        "all effects δ, low noise": plain("normal", 1, spread=0.1),
        "all effects δ, skewed noise": plain("skewed", 1),
        "all effects δ, discrete scores": plain("discrete", 1),
        "all effects δ, unpaired seeds": plain("normal", 1, paired=False),
        "all effects δ, five score rules": plain("normal", 1, rules=4),
        "pseudomedians 0, skewed noise of unequal spread": unequal(0),
        "pseudomedians δ, skewed noise of unequal spread": unequal(1),
        "10 % of one variant's runs fail, otherwise no effect": failing(0.1, 0),
        "30 % of one variant's runs fail, otherwise no effect": failing(0.3, 0),
        "10 % of one variant's runs fail, otherwise all effects δ": failing(0.1, 1),
        "30 % of one variant's runs fail, otherwise all effects δ": failing(0.3, 1),
        "50 % of one variant's runs fail, otherwise all effects 3 δ for the better": failing(
            0.5, 3 * study.metric.sign
        ),
        "three blocks, no effect": blocked(0),
        "three blocks, all effects δ": blocked(1),
    }


def _means(weights: np.ndarray, effect: float) -> np.ndarray:
    """Return variant means (variants,) for which every contrast is ``effect`` times δ.

    If the contrasts are linearly dependent, such as all pairs of three levels, as near as possible.
    """
    wanted = np.full(len(weights), effect * DELTA)
    return np.linalg.lstsq(weights, wanted, rcond=None)[0]


def over_looks(study: Study, effect: float, studies: int, rng: Generator) -> Rates:
    """Count the studies with a false claim at any of the looks in ``LOOKS``."""
    simulate = scenarios(study)["all effects δ" if effect else "no effect"]
    longest = simulate(rng, studies, max(LOOKS))
    wrong = {kind: np.zeros(studies, dtype=bool) for kind in KINDS}
    for n, share in LOOKS.items():
        look = dataclasses.replace(longest, tables=longest.tables[:, :, :n])
        for kind, errors in wrong_claims(study, look, share * study.alpha).items():
            wrong[kind] |= errors
    return Rates(studies, _total(wrong))


def permuted(
    study: Study, scores: np.ndarray, studies: int, rng: Generator, paired: bool = True
) -> Rates:
    """Count false claims of a difference after permuting scores (variants, seeds) in each seed."""
    tables = np.stack([rng.permuted(scores, axis=0) for _ in range(studies)], axis=1)
    count = len(contrasts.weights(study))
    simulated = Studies(tables, np.zeros(count), np.ones(count, dtype=bool), paired=paired)
    wrong = wrong_claims(study, simulated)
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
    low, high = clopper_pearson(number, studies)
    return f"{number / studies:.3f} ({low:.3f} to {high:.3f})"


def heading() -> str:
    """Return the table's header, in Markdown."""
    return f"| seeds | scenario | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}"


@command
def main() -> None:
    """Measure how often the analysis makes false claims, on simulated studies."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the path of its sweep's YAML")
    parser.add_argument("--study", dest="declaration", type=Path, help="the declaration's YAML")
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies per row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 10], help="seeds per variant")
    parser.add_argument(
        "--permute",
        type=Path,
        help="permute the scores of the study in this folder of tables",
    )
    parser.add_argument(
        "--into",
        type=Path,
        help="Markdown file whose calibrate block the table replaces",
    )
    arguments = parser.parse_args()
    if arguments.studies < 1 or min(arguments.seeds) < 1:
        parser.error("--studies and --seeds must be 1 or more")
    rng = np.random.default_rng(0)
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    study = load_study(name, sweep=sweep, declaration=arguments.declaration)
    if not study.factors:
        raise StudyError(
            f"{name} has a single variant and no factors; calibrate requires a study with at least "
            "one factor"
        )
    if arguments.into:  # before hours of simulations
        insert(arguments.into.read_text(encoding="utf-8"), "calibrate", "")
    rows, failed = [heading()], []

    def add(seeds: str, scenario: str, rates: Rates) -> None:
        rows.append(line(seeds, scenario, rates))
        tqdm.write(rows[-1])
        failed.extend(f"{kind} ({scenario}, {seeds} seeds)" for kind in rates.above(study.alpha))

    tqdm.write(heading())
    if arguments.permute:
        data = load_data(study, arguments.permute)
        if data.completeness.problems:
            problem = data.completeness.problems[0]
            raise UserError(f"{arguments.permute} is incomplete: {problem}")
        study = data.study
        rates = permuted(study, data.scores, arguments.studies, rng, data.paired)
        add(str(len(study.seeds)), f"{arguments.permute}, permuted", rates)
    else:
        todo = [(n, scenario) for n in arguments.seeds for scenario in scenarios(study)]
        for n, scenario in tqdm(todo, unit="row", disable=None):
            simulated = scenarios(study)[scenario](rng, arguments.studies, n)
            add(str(n), scenario, count_wrong(study, simulated))
        looks = ", ".join(f"{n} at {share * study.alpha:g}" for n, share in LOOKS.items())
        for effect, scenario in ((0, "no effect"), (1, "all effects δ")):
            rates = over_looks(study, effect, arguments.studies, rng)
            add(" / ".join(map(str, LOOKS)), f"three looks ({looks}), {scenario}", rates)
    if arguments.into:
        text = insert(arguments.into.read_text(encoding="utf-8"), "calibrate", "\n".join(rows))
        write_atomically(arguments.into, text.encode())
    if failed:
        raise UserError(f"error rate significantly above α = {study.alpha}: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
