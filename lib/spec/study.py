"""A study: sweeps, what was declared about them before the runs, and the variants to compare.

The declaration is analysis/studies/<name>.yaml; without one, the sweep's own metric is used and
the report calls its contrasts exploratory.
"""

import difflib
import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.spec.declaration import (
    SEED,
    Declaration,
    StudyError,
    read_declaration,
    study_hash,
)
from lib.spec.errors import UserError
from lib.spec.metric import PARTS, Metric, last_word, metric, split_part
from lib.spec.sweep import Sweep, read_sweep, same_value, show_value

ROOT = Path(__file__).parents[2]
CHANGED = " then "  # between values of a run that was continued under another commit, version, …
LONG = 40  # letters of a level that a figure has room for
ARM = "arm"  # the factor of a study that compares named combinations

# Which of a run's epochs gives its score; none of them looks at the test set.
RULES = {
    "last": "last epoch",
    "at_best_val": "epoch best on validation",
    "mean_last_5": "mean of the last five epochs",
}
LEAST_EPOCHS = {"last": 1, "at_best_val": 1, "mean_last_5": 5}  # else the rule does not apply
SUFFIXES = {"last": "", "at_best_val": "_at_best_val", "mean_last_5": "_mean_last_5"}

# Settings that change no number, in our scripts or by custom: runs may differ in them, and a
# checkpoint resumes without them.
NUISANCE_FIELDS = ("checkpoint_every", "save_overlays", "media", "num_workers")

Variant = tuple  # one level per factor, in the order of the factors


@dataclass(frozen=True)
class Places:
    """Where the parts of a study are found by its name, and those of the studies that it names."""

    sweeps: Path = ROOT / "sweeps"
    studies: Path = ROOT / "analysis" / "studies"
    results: Path = ROOT / "analysis" / "results"

    def sweep(self, name: str) -> Path:
        """Return the path of a sweep's YAML."""
        return self.sweeps / f"{name}.yaml"

    def declaration(self, name: str) -> Path:
        """Return the path of a study's declaration."""
        return self.studies / f"{name}.yaml"

    def tables(self, name: str) -> Path:
        """Return the folder with a study's tables and report."""
        return self.results / name


@dataclass(frozen=True)
class Study:
    """What is compared, and how: the one value that all of the analysis takes.

    ``factors``: levels by name, baseline first. ``seeds``: the replicates; none until the runs are
    read where these are numbered by their creation. ``fixed``: config values
    that the sweep gives to all runs. ``configs``: the config values of each variant. ``metric``: of
    the scores that are compared; ``logged``: of the runs' own, which is another where scores are
    averaged over blocks on a scale of ranks, or relative to a baseline. ``blocks``: the config
    values of each block; one without any where there are none. ``level``: α at one of several
    planned looks; ``later``: seeds of looks that are still to come. ``by_step``: whether the runs
    log over steps and not epochs, known once they are read.
    """

    name: str
    sweeps: list[Sweep]
    declaration: Declaration
    metric: Metric
    rule: str
    factors: dict[str, list[Any]]
    seeds: list[Any]
    fixed: dict[str, Any]
    configs: dict[Variant, dict[str, Any]]
    declared: bool = False
    places: Places = field(default_factory=Places)
    labels: dict[str, str] = field(default_factory=dict)  # words by factor, or by factor=level
    logged: Metric | None = None
    blocks: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    level: float | None = None
    by_step: bool = False
    later: list[Any] = field(default_factory=list)

    @property
    def variants(self) -> list[Variant]:
        """All variants: the factors' levels combined, in the order of ``factors``."""
        return list(self.configs)

    @property
    def expected(self) -> list[tuple[dict[str, Any], Variant, Any]]:
        """Every block, variant and seed that must have one run; the block by its config values."""
        return list(itertools.product(self.blocks, self.variants, self.seeds))

    def at_look(self, n: int) -> "Study":
        """Return the study as it is at the planned look of ``n`` seeds, the first ones."""
        level = self.declaration.looks[n]
        return replace(self, seeds=self.seeds[:n], later=self.seeds[n:], level=level)

    @property
    def block_keys(self) -> list[str]:
        """The config keys in which blocks differ."""
        return list(self.blocks[0])

    def block_name(self, block: dict[str, Any]) -> str:
        """Name a block by its config: "dataset=cifar"; nothing where there are none."""
        return ", ".join(f"{key}={show_value(value)}" for key, value in block.items())

    @property
    def factor_keys(self) -> list[str]:
        """The config keys in which the variants differ."""
        return list(dict.fromkeys(key for config in self.configs.values() for key in config))

    @property
    def control(self) -> Any:
        """The level that each other level of its factor is compared with; None: all pairs."""
        compare = self.declaration.compare
        return None if compare == "pairs" else _hashable(compare.control)

    @property
    def notes(self) -> list[str]:
        """The declaration's notes, one paragraph each."""
        notes = self.declaration.notes
        return [notes] if isinstance(notes, str) else notes

    @property
    def alpha(self) -> float:
        """The family-wise error rate; at a planned look, what is spent at that look."""
        return self.declaration.alpha if self.level is None else self.level

    @property
    def smallest_effect(self) -> float | None:
        """The smallest effect of interest, in the metric's own unit."""
        return self.declaration.smallest_effect

    @property
    def rule_words(self) -> str:
        """The score rule in words: "last epoch"."""
        return self.words_of(self.rule)

    def words_of(self, rule: str) -> str:
        """Return a score rule in words; what is logged over steps has evaluations, not epochs."""
        return RULES[rule].replace("epoch", "evaluation") if self.by_step else RULES[rule]

    def score_key(self, rule: str | None = None) -> str:
        """Return the summary key that holds the score by ``rule`` (default: the declared one)."""
        return self.metric.key + SUFFIXES[rule or self.rule]

    def variant_name(self, variant: Variant) -> str:
        """Name a variant by its config: "batch_norm=True, optimizer=sgd"; else by the study."""
        pairs = zip(self.factors, variant, strict=True)
        return ", ".join(f"{n}={show_value(v)}" for n, v in pairs) or self.name

    def level_label(self, factor: str, level: Any) -> str:
        """Return words for a level."""
        default = show_value(level) if factor == ARM else f"{factor} = {show_value(level)}"
        return self.labels.get(f"{factor}={show_value(level)}", default)

    def factor_label(self, factor: str) -> str:
        """Return words for a factor."""
        return self.labels.get(factor, factor)

    def variant_label(self, variant: Variant, skip: str | None = None) -> str:
        """Return words for a variant, without the factor ``skip``; without factors, the study's."""
        words = [
            self.level_label(name, level)
            for name, level in zip(self.factors, variant, strict=True)
            if name != skip
        ]
        return ", ".join(words) or self.labels.get(self.name, self.name)

    def plan(self) -> dict[str, Any]:
        """Return what was planned, as JSON has it; equal plans give equal values."""
        values = {"factors": self.factors, "seeds": self.seeds, "fixed": self.fixed}
        if self.declaration.arms:
            values["arms"] = self.declaration.arms
        return values


def load_study(
    name: str,
    places: Places | None = None,
    sweep: Path | None = None,
    declaration: Path | None = None,
) -> Study:
    """Return the study ``name``: its sweeps and its declaration, found in ``places`` or as given.

    Raises:
        StudyError: when a file is missing, has an unknown key or wrong value, or they contradict.
        SweepError: when a sweep cannot be used.
    """
    places = places or Places()
    path = declaration or places.declaration(name)
    if declaration is not None and not path.exists():
        raise StudyError(f"{path} not found; --study takes the YAML file of a declaration")
    declared = read_declaration(path) if path.exists() else None
    if sweep is not None and declared and len(declared.sweeps or []) > 1:
        raise StudyError(
            f"{path} pools the sweeps {', '.join(declared.sweeps)}, so --sweep {sweep} cannot "
            "stand for them; leave --sweep out"
        )
    paths = [sweep or places.sweep(n) for n in (declared and declared.sweeps) or [name]]
    if lacking := [str(p) for p in paths if not p.exists()]:
        near = [p.stem for p in places.sweeps.glob("*.yaml")]
        close = difflib.get_close_matches(name, near, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise StudyError(
            f"no sweep at {', '.join(lacking)}.{hint} Give a study's name from "
            f"{places.sweeps}/ or the sweep's YAML with --sweep."
        )
    return build_study(name, [read_sweep(p) for p in paths], declared, places, path)


def varied(sweeps: Sequence[Sweep]) -> dict[str, list[Any]]:
    """Return the parameters with more than one value over all sweeps: levels, seeds, blocks."""
    found: dict[str, list[Any]] = {}
    for sweep in sweeps:
        for name, values in sweep.parameters.items():
            known = found.setdefault(name, [])
            known += [v for v in values if not any(same_value(v, k) for k in known)]
    return {name: values for name, values in found.items() if len(values) > 1}


def hashes_of(program: str, config: dict[str, Any], places: Places | None = None) -> str:
    """Return the hashes of the declared studies that a run belongs to: "name:hash name:hash".

    A run belongs to a study if one of its sweeps has this program and all its parameters have
    values of the sweep. Declarations and sweeps that cannot be read are passed over: they are no
    reason to stop a run.
    """
    places, found = places or Places(), []
    for path in sorted(places.studies.glob("*.yaml")):
        try:
            declared = read_declaration(path)
            sweeps = [read_sweep(places.sweep(n)) for n in declared.sweeps or [path.stem]]
        except UserError:
            continue
        if any(_belongs(program, config, sweep) for sweep in sweeps):
            found.append(f"{path.stem}:{study_hash(declared, varied(sweeps))}")
    return " ".join(found)


def _belongs(program: str, config: dict[str, Any], sweep: Sweep) -> bool:
    return Path(sweep.program).name == Path(program).name and all(
        name in config and any(same_value(config[name], value) for value in values)
        for name, values in sweep.parameters.items()
    )


def build_study(
    name: str,
    sweeps: Sequence[Sweep],
    declared: Declaration | None = None,
    places: Places | None = None,
    path: Path | None = None,
) -> Study:
    """Return the study of ``sweeps`` as ``declared``; ``path`` is the declaration's, for messages.

    Raises:
        StudyError, SweepError: see load_study.
    """
    where = str(path) if declared else sweeps[0].where
    parameters = _pooled(sweeps)
    seed = declared.replicate if declared else SEED
    repeats = declared is not None and declared.repeats
    for sweep in sweeps:
        _check_method(sweep, declared)
    if seed not in parameters and not repeats:
        near = [n for n in parameters if "seed" in n.lower() or "replicate" in n.lower()]
        hint = f" Candidates: {', '.join(near)} (write `seed: {near[0]}`)." if near else ""
        raise StudyError(
            f"{where}: no `{seed}` among the sweep's parameters ({', '.join(parameters)}): there "
            f"are no replicates, and nothing can be tested.{hint} Add `seed: {{values: [0, 1, 2, "
            "3, 4, 5, 6]}` to the sweep, or name the replicate's parameter with `seed:` in a "
            "declaration, which --study takes (`seed: {repeat: true}` where variants were run "
            "several times without one)."
        )
    goal = next((s.metric.get("goal") for s in sweeps if s.metric.get("goal")), None)
    declaration = declared or Declaration(metric=_default_metric(sweeps[0]))
    try:
        found = metric(declaration.metric, goal)
    except UserError as error:
        raise StudyError(f"{where}: {error}") from error
    _check_goal(where, sweeps, found, goal)
    blocks = _blocks(where, declaration, parameters, seed)
    compared = {n: v for n, v in parameters.items() if n not in blocks[0]}
    factors, configs = _variants(where, declaration, compared, seed)
    varied = [n for n, v in parameters.items() if len(v) > 1 and n != seed]
    keys = {key for config in [*configs.values(), *blocks] for key in config}
    if loose := [n for n in varied if n not in keys and n not in declaration.free]:
        raise StudyError(
            f"{where}: the sweep varies {', '.join(loose)}, which is neither a factor nor free. "
            "Name it under `factors:`, or under `free:` if it cannot change a score."
        )
    sampled = {n for sweep in sweeps for n in sweep.sampled}
    fixed = {
        n: v[0] for n, v in parameters.items() if len(v) == 1 and n not in {seed, *keys, *sampled}
    }
    study = Study(
        name=name,
        sweeps=list(sweeps),
        declaration=declaration,
        metric=_on_scale(found, declaration),
        logged=found,
        blocks=blocks,
        rule=_rule(where, declaration.score, found),
        factors=factors,
        seeds=[] if repeats else parameters[seed],
        fixed=fixed,
        configs=configs,
        declared=declared is not None,
        places=places or Places(),
        labels=_labels(where, name, declaration, parameters | factors),
    )
    _check_sizes(where, study)
    return study


def _check_method(sweep: Sweep, declared: Declaration | None) -> None:
    """Raise a StudyError on a search, unless it is random and the declaration fits it.

    The runs of a random search are independent draws, so levels that it lists can be compared over
    them, without pairs; what Bayesian search runs depends on the scores before.
    """
    if sweep.method == "grid":
        return
    listed = {n: v for n, v in sweep.parameters.items() if len(v) > 1 and "seed" not in n.lower()}
    if sweep.method != "random" or not listed:
        raise StudyError(
            f"{sweep.where}: the runs of `method: {sweep.method}` cannot be compared: "
            + (
                "it lists no levels to compare, but draws what it varies again for each run"
                if sweep.method == "random"
                else "what it runs depends on the scores before"
            )
            + ". Compare what it found in a sweep of its own: `method: grid`, the settings as "
            "levels, and seeds."
        )
    fits = declared and declared.repeats and (declared.factors or declared.arms)
    if not fits or not set(sweep.sampled) <= set(declared.free):
        factor = next(iter(listed))
        free = [n for n in [*sweep.sampled, *sweep.varied] if n != factor]
        raise StudyError(
            f"{sweep.where}: the runs of `method: random` have no common seeds. What can be "
            f"compared, without pairs, is the levels that it lists ({', '.join(listed)}), also as "
            f"arms, by a declaration with `factors: {{{factor}: {json.dumps(listed[factor])}}}`, "
            f"`seed: {{repeat: true}}` and `free: {json.dumps(free)}`. What cannot: a value that "
            "was chosen because its run scored best."
        )


def _blocks(
    where: str, declaration: Declaration, parameters: dict[str, list[Any]], seed: str
) -> list[dict[str, Any]]:
    """Return the config values of each block; one without any where no block is declared."""
    for key in declaration.block:
        if key not in parameters or key == seed:
            raise StudyError(
                f"{where}: block names {key}, which is no parameter of the sweep, or is the seed; "
                f"it has {', '.join(name for name in parameters if name != seed)}"
            )
        if key in (declaration.factors or {}):
            raise StudyError(f"{where}: {key} is both a block and a factor; it can be one of them")
    levels = [parameters[key] for key in declaration.block]
    return [
        dict(zip(declaration.block, values, strict=True)) for values in itertools.product(*levels)
    ]


def _on_scale(found: Metric, declaration: Declaration) -> Metric:
    """Return the metric of scores that are averaged over blocks, on the declared scale."""
    if not declaration.block or declaration.block_scale == "raw":
        return found
    plain = {"scale": "identity", "complement": "", "resolution": None, "worst": None}
    plain |= {"item_score": "score", "whole_label": True}
    name = found.title
    if declaration.block_scale == "rank":
        words = {"label": f"mean rank of the {name}", "unit": "", "display_factor": 1.0}
        return replace(found, **plain, **words, decimals=3, bounds=(0.0, 1.0))
    words = {"label": f"{name} relative to the baseline", "unit": "%", "display_factor": 100.0}
    return replace(found, **plain, **words, decimals=2, bounds=(-math.inf, math.inf))


def _pooled(sweeps: Sequence[Sweep]) -> dict[str, list[Any]]:
    """Return the values of each parameter over all sweeps, in the order in which they come."""
    pooled: dict[str, list[Any]] = {}
    for sweep in sweeps:
        for name, values in sweep.parameters.items():
            known = pooled.setdefault(name, [])
            known += [v for v in values if not any(same_value(v, k) for k in known)]
    for sweep in sweeps:
        if lacking := [name for name in pooled if name not in sweep.parameters]:
            raise StudyError(
                f"{sweep.where} does not set {', '.join(lacking)}, which another of the pooled "
                "sweeps sets; write the same parameters into all of them"
            )
    return pooled


def _default_metric(sweep: Sweep) -> str:
    if not {"name", "goal"} <= set(sweep.metric):
        raise StudyError(
            f"{sweep.where}: metric must have a name and a goal, got {sweep.metric or 'none'}. "
            "Write, for example, `metric: {name: val/error, goal: minimize}` into it, or `metric:` "
            "into a declaration, which --study takes."
        )
    name = str(sweep.metric["name"])
    first, _, rest = name.partition("/")
    return f"test/{rest}" if rest and PARTS.get(first) == "validation" else name


def _check_goal(where: str, sweeps: Sequence[Sweep], found: Metric, goal: str | None) -> None:
    for sweep in sweeps:
        own = sweep.metric
        same = last_word(str(own.get("name", ""))) == found.name
        if own.get("goal") and same and own["goal"] != found.goal:
            raise StudyError(
                f"{where}: {found.key} is to {found.goal}, but {sweep.where} says `goal: "
                f"{own['goal']}` for {own['name']}. One of them is wrong."
            )


def _variants(
    where: str, declaration: Declaration, parameters: dict[str, list[Any]], seed: str
) -> tuple[dict[str, list[Any]], dict[Variant, dict[str, Any]]]:
    """Return factors and, by variant, its config values."""
    if declaration.arms and declaration.factors:
        raise StudyError(f"{where}: both `arms:` and `factors:`; a study has one of them")
    if declaration.arms:
        return {ARM: list(declaration.arms)}, _arms(where, declaration.arms, parameters)
    factors = declaration.factors
    if factors is None:
        factors = {n: v for n, v in parameters.items() if len(v) > 1 and n != seed}
    _check_levels(where, "factors", factors, parameters)
    factors = {name: [_hashable(level) for level in levels] for name, levels in factors.items()}
    for name, levels in factors.items():
        if len(set(levels)) < len(levels):
            raise StudyError(
                f"{where}: factor {name} has levels that cannot be distinguished: {levels}. Name "
                "each level once; as levels of one factor, 0 and false or 1 and true are the same."
            )
    variants = itertools.product(*factors.values())
    return factors, {v: dict(zip(factors, v, strict=True)) for v in variants}


def _arms(
    where: str, arms: dict[str, dict[str, Any]], parameters: dict[str, list[Any]]
) -> dict[Variant, dict[str, Any]]:
    """Return the config values of each arm; all arms must set the same keys, no two alike."""
    configs = {}
    for arm, config in arms.items():
        _check_levels(where, f"arms.{arm}", {k: [v] for k, v in config.items()}, parameters)
        configs[(arm,)] = {key: _hashable(level) for key, level in config.items()}
    first, *others = configs.values()
    for (arm,), config in configs.items():
        if lacking := [key for key in {**first, **config} if key not in first or key not in config]:
            raise StudyError(
                f"{where}: arms.{arm} and arms.{next(iter(arms))} do not set the same keys "
                f"({', '.join(lacking)}); each arm must set every key in which arms differ"
            )
    alike = [config for config in configs.values() if list(configs.values()).count(config) > 1]
    if not others or alike:
        raise StudyError(f"{where}: arms must be two or more, no two of them alike, got {arms}")
    return configs


def _hashable(level: Any) -> Any:
    return tuple(map(_hashable, level)) if isinstance(level, list | tuple) else level


def _check_levels(
    where: str, key: str, wanted: dict[str, list[Any]], parameters: dict[str, list[Any]]
) -> None:
    for name, levels in wanted.items():
        if name not in parameters:
            raise StudyError(
                f"{where}: {key}.{name} is no parameter of the sweep, which has "
                f"{', '.join(parameters)}"
            )
        for level in levels:
            if not any(same_value(level, value) for value in parameters[name]):
                raise StudyError(
                    f"{where}: {key}.{name} = {level!r} is no level of the sweep, which has "
                    f"{parameters[name]}"
                )


def _rule(where: str, score: str | dict[str, Any], found: Metric) -> str:
    """Return the score rule's name; refuse one that selects on the test set."""
    if isinstance(score, dict) and len(score) == 1:
        ((kind, value),) = score.items()
        if kind == "at_best" and isinstance(value, str):
            part = PARTS.get(split_part(value)[0], "")
            if part == "test" or value == found.key:
                raise StudyError(
                    f"{where}: score {score} selects the epoch on the score itself, which makes it "
                    "optimistic; use {at_best: val/error}, last or {mean_last: 5}"
                )
            if part in ("validation", "evaluation") and last_word(value) == found.name:
                return "at_best_val"
            raise StudyError(
                f"{where}: score {score}: the epoch is the one best on the same metric on "
                f"validation, such as val/{split_part(found.key)[1]}"
            )
        if kind == "mean_last" and value == 5:
            return "mean_last_5"
    if isinstance(score, str) and score in RULES:
        return score
    if isinstance(score, str) and "best" in score:
        raise StudyError(
            f"{where}: score {score!r} would select the epoch on the test set, which makes the "
            "score optimistic; use last, {at_best: val/error} or {mean_last: 5}"
        )
    raise StudyError(
        f"{where}: score {score!r} is unknown; accepted: last, {{at_best: val/error}} (or another "
        "validation metric), {mean_last: 5}"
    )


def _labels(
    where: str, name: str, declaration: Declaration, parameters: dict[str, list[Any]]
) -> dict[str, str]:
    """Return the declared labels under the names that the analysis looks up.

    ``parameters``: of the sweep, and arms. A level may be written as YAML or as Python has it:
    batch_norm=true or batch_norm=True.

    Raises:
        StudyError: on a label for something that the study does not have.
    """
    known = {name: name}
    known |= {factor: factor for factor in parameters}
    for factor, levels in parameters.items():
        for level in levels:
            key = f"{factor}={show_value(level)}"
            known |= {key: key}
            if not isinstance(level, str):
                known[f"{factor}={json.dumps(level)}"] = key
            elif factor == ARM:
                known[level] = key
    if unknown := [key for key in declaration.labels if key not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"{where}: labels has {', '.join(map(repr, unknown))}, which this study does not have."
            f"{hint} Accepted: {', '.join(known)}"
        )
    found = {}
    for factor, levels in parameters.items():
        texts = [show_value(level) for level in levels]
        for text, short in zip(texts, _shortened(texts), strict=True):
            if short != text:
                found[f"{factor}={text}"] = short if factor == ARM else f"{factor} = {short}"
    return found | {known[key]: words for key, words in declaration.labels.items()}


def _shortened(texts: list[str]) -> list[str]:
    """Return texts of at most LONG letters that stay different; texts that are short as they are.

    Long ones lose what all begin with, such as a path, and then their middle.
    """
    if max(map(len, texts)) <= LONG:
        return texts
    common = os.path.commonprefix(texts) if len(texts) > 1 else ""  # noqa: RUF071  # also no paths
    cut = max((common.rfind(mark) + 1 for mark in "/ ,;_"), default=0)
    short = [f"…{text[cut:]}" if cut > 3 and len(text) > cut else text for text in texts]
    half = LONG // 2
    short = [t if len(t) <= LONG else f"{t[: half - 1]}…{t[-half:]}" for t in short]
    return short if len(set(short)) == len(set(texts)) else texts


def _check_sizes(where: str, study: Study) -> None:
    low, high = study.metric.bounds
    delta = study.smallest_effect
    if delta is not None and delta >= high - low:
        raise StudyError(
            f"{where}: smallest_effect {delta} is as large as the whole range of {study.metric.key}"
            f" ({low} to {high}). It is given in the metric's own unit: 0.005 is half a percentage "
            "point of a fraction."
        )
    for words, value in study.declaration.published_scores.items():
        if not low <= value <= high:
            raise StudyError(
                f"{where}: published_scores.{words} = {value} lies outside the bounds of "
                f"{study.metric.key}, {low} to {high}"
            )
    if study.declaration.block and study.declaration.published_scores:
        raise StudyError(
            f"{where}: published_scores are of one data set, so they cannot be compared with means "
            "over the blocks of `block:`"
        )
    if study.declaration.repeats and study.declaration.looks:
        raise StudyError(
            f"{where}: looks need seeds that are planned; seed: {{repeat: true}} has none"
        )
    if looks := study.declaration.looks:
        seeds, spent = sorted(looks), sum(looks.values())
        if seeds[0] < 1 or seeds[-1] != len(study.seeds) or spent > study.declaration.alpha + 1e-12:
            raise StudyError(
                f"{where}: looks {looks} must end at the sweep's {len(study.seeds)} seeds, and "
                f"spend at most alpha, {study.declaration.alpha}, together; they spend {spent:g}"
            )
    control, known = study.control, [v for levels in study.factors.values() for v in levels]
    if control is not None and control not in known:
        raise StudyError(
            f"{where}: compare: control {control!r} is no level of a factor; accepted: "
            f"{', '.join(map(show_value, known))}"
        )
    if study.factors and study.declaration.published_scores:
        raise StudyError(
            f"{where}: {study.name} varies {', '.join(study.factors)}, but has published_scores: "
            "these are compared with a sweep that varies nothing but the seed"
        )
