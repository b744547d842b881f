"""Build a study from its sweeps and its declaration: variants, factors, seeds, metric.

The declaration is analysis/studies/<name>.yaml. Without one, the sweep's metric is used and the
report calls the contrasts exploratory.
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
CHANGED = " then "  # joins the values of a run that was resumed with another commit, version, …
LONG = 40  # characters of a level that fit into a figure
ARM = "arm"  # name of the factor in a study that declares arms

# Score rules: the epochs that give a run's score. None of them depends on the test set.
RULES = {
    "last": "last epoch",
    "at_best_val": "epoch best on validation",
    "mean_last_5": "mean of the last five epochs",
}
LEAST_EPOCHS = {"last": 1, "at_best_val": 1, "mean_last_5": 5}  # that a rule needs
SUFFIXES = {"last": "", "at_best_val": "_at_best_val", "mean_last_5": "_mean_last_5"}

# Config keys that do not affect results, in our scripts or by convention: runs may differ in them,
# and a checkpoint can be resumed with other values.
NUISANCE_FIELDS = ("checkpoint_every", "save_overlays", "media", "num_workers")

Variant = tuple  # one level per factor, in the order of the factors


@dataclass(frozen=True)
class Places:
    """The folders with sweeps, declarations and results, in which studies are found by name."""

    sweeps: Path = ROOT / "sweeps"
    studies: Path = ROOT / "analysis" / "studies"
    results: Path = ROOT / "analysis" / "results"

    def sweep(self, name: str) -> Path:
        """Return the path of a sweep's YAML file."""
        return self.sweeps / f"{name}.yaml"

    def declaration(self, name: str) -> Path:
        """Return the path of a study's declaration."""
        return self.studies / f"{name}.yaml"

    def tables(self, name: str) -> Path:
        """Return the folder with a study's tables and report."""
        return self.results / name


@dataclass(frozen=True)
class Study:
    """A study: what is compared and how. All analysis functions take it.

    ``factors``: levels by factor, baseline first. ``seeds``: the replicates; empty until the runs
    are read if replicates are numbered by creation. ``fixed``: config values that the sweep sets
    for all runs. ``configs``: config values by variant. ``metric``: of the compared scores;
    ``logged``: of the runs' scores, different from ``metric`` if scores are converted to ranks or
    relative to a baseline before they are averaged over blocks. ``blocks``: config values of each
    block; a single empty one without blocks. ``level``: α at the current one of several planned
    looks; ``later``: seeds of future looks. ``by_step``: whether the runs' histories are over steps
    instead of epochs, known after they are read.
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
    labels: dict[str, str] = field(default_factory=dict)  # by factor or "factor=level"
    logged: Metric | None = None
    blocks: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    level: float | None = None
    by_step: bool = False
    later: list[Any] = field(default_factory=list)

    @property
    def variants(self) -> list[Variant]:
        """All variants: combinations of levels, or the arms."""
        return list(self.configs)

    @property
    def expected(self) -> list[tuple[dict[str, Any], Variant, Any]]:
        """All combinations of block (its config values), variant and seed; each needs one run."""
        return list(itertools.product(self.blocks, self.variants, self.seeds))

    def at_look(self, n: int) -> "Study":
        """Return the study at the planned look after the first ``n`` seeds."""
        level = self.declaration.looks[n]
        return replace(self, seeds=self.seeds[:n], later=self.seeds[n:], level=level)

    @property
    def block_keys(self) -> list[str]:
        """The config keys that define the blocks."""
        return list(self.blocks[0])

    def block_name(self, block: dict[str, Any]) -> str:
        """Return a block's name, such as "dataset=cifar"; empty without blocks."""
        return ", ".join(f"{key}={show_value(value)}" for key, value in block.items())

    @property
    def factor_keys(self) -> list[str]:
        """The config keys in which the variants differ."""
        return list(dict.fromkeys(key for config in self.configs.values() for key in config))

    @property
    def control(self) -> Any:
        """The control level, with which other levels are compared; None to compare all pairs."""
        compare = self.declaration.compare
        return None if compare == "pairs" else _hashable(compare.control)

    @property
    def notes(self) -> list[str]:
        """The declaration's notes, one paragraph each."""
        notes = self.declaration.notes
        return [notes] if isinstance(notes, str) else notes

    @property
    def alpha(self) -> float:
        """The family-wise error rate, or the part of it that is spent at this planned look."""
        return self.declaration.alpha if self.level is None else self.level

    @property
    def smallest_effect(self) -> float | None:
        """The smallest effect of interest, in the unit in which the metric is logged."""
        return self.declaration.smallest_effect

    @property
    def rule_words(self) -> str:
        """The display name of the score rule, such as "last epoch"."""
        return self.words_of(self.rule)

    def words_of(self, rule: str) -> str:
        """Return the display name of a score rule; histories over steps have no epochs."""
        return RULES[rule].replace("epoch", "evaluation") if self.by_step else RULES[rule]

    def score_key(self, rule: str | None = None) -> str:
        """Return the summary key of the score by ``rule`` (default: the declared rule)."""
        return self.metric.key + SUFFIXES[rule or self.rule]

    def variant_name(self, variant: Variant) -> str:
        """Return a variant's name, such as "batch_norm=True, optimizer=sgd".

        It is the study's name if the study has no factors.
        """
        pairs = zip(self.factors, variant, strict=True)
        return ", ".join(f"{n}={show_value(v)}" for n, v in pairs) or self.name

    def level_label(self, factor: str, level: Any) -> str:
        """Return the display name of a level."""
        default = show_value(level) if factor == ARM else f"{factor} = {show_value(level)}"
        return self.labels.get(f"{factor}={show_value(level)}", default)

    def factor_label(self, factor: str) -> str:
        """Return the display name of a factor."""
        return self.labels.get(factor, factor)

    def variant_label(self, variant: Variant, skip: str | None = None) -> str:
        """Return the display name of a variant, without the factor ``skip``.

        It is the study's display name if no factors are left.
        """
        labels = [
            self.level_label(name, level)
            for name, level in zip(self.factors, variant, strict=True)
            if name != skip
        ]
        return ", ".join(labels) or self.labels.get(self.name, self.name)

    def plan(self) -> dict[str, Any]:
        """Return factors, seeds, fixed values and arms; equal plans give equal JSON."""
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
    """Return the study ``name`` from its sweeps and declaration in ``places``.

    ``sweep`` and ``declaration`` are paths of YAML files to use instead.

    Raises:
        StudyError: if a file is missing, has an unknown key or wrong value, or files contradict
            each other.
        SweepError: if a sweep cannot be used.
    """
    places = places or Places()
    path = declaration or places.declaration(name)
    if declaration is not None and not path.exists():
        raise StudyError(f"{path} not found; --study must be the path of a declaration's YAML file")
    declared = read_declaration(path) if path.exists() else None
    if sweep is not None and declared and len(declared.sweeps or []) > 1:
        raise StudyError(
            f"--sweep {sweep} cannot be used with {path}, which pools the sweeps "
            f"{', '.join(declared.sweeps)}. Run the command without --sweep"
        )
    paths = [sweep or places.sweep(n) for n in (declared and declared.sweeps) or [name]]
    if missing := [str(p) for p in paths if not p.exists()]:
        names = [p.stem for p in places.sweeps.glob("*.yaml")]
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise StudyError(
            f"sweep not found: {', '.join(missing)}.{hint} Give the name of a sweep in "
            f"{places.sweeps}/ or the path of its YAML file with --sweep."
        )
    return build_study(name, [read_sweep(p) for p in paths], declared, places, path)


def varied(sweeps: Sequence[Sweep]) -> dict[str, list[Any]]:
    """Return the values of all parameters with more than one value over all sweeps, by name."""
    union: dict[str, list[Any]] = {}
    for sweep in sweeps:
        for name, values in sweep.parameters.items():
            known = union.setdefault(name, [])
            known += [v for v in values if not any(same_value(v, k) for k in known)]
    return {name: values for name, values in union.items() if len(values) > 1}


def hashes_of(program: str, config: dict[str, Any], places: Places | None = None) -> str:
    """Return the hashes of the declared studies that a run belongs to, as "name:hash name:hash".

    A run belongs to a study if one of the study's sweeps has the same program and includes the
    run's value of each of its parameters. Declarations and sweeps that cannot be read are skipped,
    because they should not stop a run.
    """
    places, hashes = places or Places(), []
    for path in sorted(places.studies.glob("*.yaml")):
        try:
            declared = read_declaration(path)
            sweeps = [read_sweep(places.sweep(n)) for n in declared.sweeps or [path.stem]]
        except UserError:
            continue
        if any(_belongs(program, config, sweep) for sweep in sweeps):
            hashes.append(f"{path.stem}:{study_hash(declared, varied(sweeps))}")
    return " ".join(hashes)


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
    """Return the study of ``sweeps`` and a declaration, whose ``path`` is used in messages.

    Raises:
        StudyError, SweepError: see ``load_study``.
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
            f"{where}: the sweep's parameters ({', '.join(parameters)}) do not include `{seed}`. "
            f"Tests need replicates.{hint} Add `seed: {{values: [0, 1, 2, 3, 4, 5, 6]}}` to the "
            "sweep, or name the parameter of the replicate under `seed:` in a declaration "
            "(--study). If variants were run several times without a seed, declare `seed: {repeat: "
            "true}`."
        )
    goal = next((s.metric.get("goal") for s in sweeps if s.metric.get("goal")), None)
    declaration = declared or Declaration(metric=_default_metric(sweeps[0]))
    try:
        logged = metric(declaration.metric, goal)
    except UserError as error:
        raise StudyError(f"{where}: {error}") from error
    _check_goal(where, sweeps, logged)
    blocks = _blocks(where, declaration, parameters, seed)
    compared = {n: v for n, v in parameters.items() if n not in blocks[0]}
    factors, configs = _variants(where, declaration, compared, seed)
    varied = [n for n, v in parameters.items() if len(v) > 1 and n != seed]
    keys = {key for config in [*configs.values(), *blocks] for key in config}
    if loose := [n for n in varied if n not in keys and n not in declaration.free]:
        raise StudyError(
            f"{where}: the sweep varies {', '.join(loose)}, which must be declared. Add it to "
            "`factors:`, or to `free:` if it does not affect the score."
        )
    sampled = {n for sweep in sweeps for n in sweep.sampled}
    fixed = {
        n: v[0] for n, v in parameters.items() if len(v) == 1 and n not in {seed, *keys, *sampled}
    }
    study = Study(
        name=name,
        sweeps=list(sweeps),
        declaration=declaration,
        metric=_on_scale(logged, declaration),
        logged=logged,
        blocks=blocks,
        rule=_rule(where, declaration.score, logged),
        factors=factors,
        seeds=[] if repeats else parameters[seed],
        fixed=fixed,
        configs=configs,
        declared=declared is not None,
        places=places or Places(),
        labels=_labels(where, name, declaration, parameters | factors),
    )
    _check_values(where, study)
    return study


def _check_method(sweep: Sweep, declared: Declaration | None) -> None:
    """Raise a StudyError on a search, unless it is random and the declaration allows for that.

    The runs of a random search are independent draws, so its categorical levels can be compared as
    unpaired samples. The runs of a Bayesian search depend on earlier scores.
    """
    if sweep.method == "grid":
        return
    listed = {n: v for n, v in sweep.parameters.items() if len(v) > 1 and "seed" not in n.lower()}
    if sweep.method != "random" or not listed:
        raise StudyError(
            f"{sweep.where}: the runs of `method: {sweep.method}` cannot be compared: "
            + (
                "no parameter has a list of levels, all are drawn from distributions"
                if sweep.method == "random"
                else "its settings depend on the scores of earlier runs"
            )
            + ". To compare the settings that it found, run a sweep with `method: grid`, these "
            "settings as levels, and seeds."
        )
    fits = declared and declared.repeats and (declared.factors or declared.arms)
    if not fits or not set(sweep.sampled) <= set(declared.free):
        factor = next(iter(listed))
        free = [n for n in [*sweep.sampled, *sweep.varied] if n != factor]
        raise StudyError(
            f"{sweep.where}: the runs of `method: random` have no common seeds. The levels of "
            f"{', '.join(listed)} can be compared as unpaired samples (also as arms) with a "
            f"declaration such as `factors: {{{factor}: {json.dumps(listed[factor])}}}`, `seed: "
            f"{{repeat: true}}` and `free: {json.dumps(free)}`. A setting that was selected "
            "because its run scored best cannot be compared."
        )


def _blocks(
    where: str, declaration: Declaration, parameters: dict[str, list[Any]], seed: str
) -> list[dict[str, Any]]:
    """Return the config values of each block; a single empty one if no blocks are declared."""
    for key in declaration.block:
        if key not in parameters or key == seed:
            raise StudyError(
                f"{where}: block: {key} must be a parameter of the sweep other than the seed; "
                f"accepted: {', '.join(name for name in parameters if name != seed)}"
            )
        if key in (declaration.factors or {}):
            raise StudyError(
                f"{where}: {key} is both a block and a factor; remove it from one of them"
            )
    levels = [parameters[key] for key in declaration.block]
    return [
        dict(zip(declaration.block, values, strict=True)) for values in itertools.product(*levels)
    ]


def _on_scale(logged: Metric, declaration: Declaration) -> Metric:
    """Return the metric of the scores after conversion to the declared ``block_scale``."""
    if not declaration.block or declaration.block_scale == "raw":
        return logged
    plain = {"scale": "identity", "complement": "", "resolution": None, "worst": None}
    plain |= {"item_score": "score", "whole_label": True}
    name = logged.title
    if declaration.block_scale == "rank":
        shown = {"label": f"mean rank of the {name}", "unit": "", "display_factor": 1.0}
        return replace(logged, **plain, **shown, decimals=3, bounds=(0.0, 1.0))
    shown = {"label": f"{name} relative to the baseline", "unit": "%", "display_factor": 100.0}
    return replace(logged, **plain, **shown, decimals=2, bounds=(-math.inf, math.inf))


def _pooled(sweeps: Sequence[Sweep]) -> dict[str, list[Any]]:
    """Return the values of each parameter over all sweeps, in order of appearance.

    Raises:
        StudyError: if the sweeps do not have the same parameters.
    """
    pooled: dict[str, list[Any]] = {}
    for sweep in sweeps:
        for name, values in sweep.parameters.items():
            known = pooled.setdefault(name, [])
            known += [v for v in values if not any(same_value(v, k) for k in known)]
    for sweep in sweeps:
        if missing := [name for name in pooled if name not in sweep.parameters]:
            raise StudyError(
                f"{sweep.where} does not set {', '.join(missing)}, but another pooled sweep does; "
                "all pooled sweeps must have the same parameters"
            )
    return pooled


def _default_metric(sweep: Sweep) -> str:
    if not {"name", "goal"} <= set(sweep.metric):
        raise StudyError(
            f"{sweep.where}: metric must have a name and a goal, got {sweep.metric or 'none'}. "
            "Add, for example, `metric: {name: val/error, goal: minimize}` to it, or add `metric:` "
            "to a declaration (--study)."
        )
    name = str(sweep.metric["name"])
    first, _, rest = name.partition("/")
    return f"test/{rest}" if rest and PARTS.get(first) == "validation" else name


def _check_goal(where: str, sweeps: Sequence[Sweep], logged: Metric) -> None:
    """Raise a StudyError if a sweep optimizes the same metric with another goal."""
    for sweep in sweeps:
        given = sweep.metric
        same = last_word(str(given.get("name", ""))) == logged.name
        if given.get("goal") and same and given["goal"] != logged.goal:
            raise StudyError(
                f"{where}: the goal of {logged.key} is {logged.goal}, but {sweep.where} has `goal: "
                f"{given['goal']}` for {given['name']}. One of them is wrong; correct it."
            )


def _variants(
    where: str, declaration: Declaration, parameters: dict[str, list[Any]], seed: str
) -> tuple[dict[str, list[Any]], dict[Variant, dict[str, Any]]]:
    """Return the levels by factor and the config values by variant."""
    if declaration.arms and declaration.factors:
        raise StudyError(f"{where}: has both `arms:` and `factors:`; remove one of them")
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
                f"{where}: factor {name} has equal levels: {levels}. List each level once; 0 and "
                "false are equal as levels, and so are 1 and true."
            )
    variants = itertools.product(*factors.values())
    return factors, {v: dict(zip(factors, v, strict=True)) for v in variants}


def _arms(
    where: str, arms: dict[str, dict[str, Any]], parameters: dict[str, list[Any]]
) -> dict[Variant, dict[str, Any]]:
    """Return the config values of each arm.

    Raises:
        StudyError: if arms do not set the same keys, are equal, or there is only one.
    """
    configs = {}
    for arm, config in arms.items():
        _check_levels(where, f"arms.{arm}", {k: [v] for k, v in config.items()}, parameters)
        configs[(arm,)] = {key: _hashable(level) for key, level in config.items()}
    first, *others = configs.values()
    for (arm,), config in configs.items():
        if missing := [key for key in {**first, **config} if key not in first or key not in config]:
            raise StudyError(
                f"{where}: only one of arms.{arm} and arms.{next(iter(arms))} sets "
                f"{', '.join(missing)}; all arms must set the same keys"
            )
    equal = [config for config in configs.values() if list(configs.values()).count(config) > 1]
    if not others or equal:
        raise StudyError(f"{where}: arms must be at least two, all different, got {arms}")
    return configs


def _hashable(level: Any) -> Any:
    return tuple(map(_hashable, level)) if isinstance(level, list | tuple) else level


def _check_levels(
    where: str, key: str, wanted: dict[str, list[Any]], parameters: dict[str, list[Any]]
) -> None:
    """Raise a StudyError unless the sweep has all ``wanted`` levels, declared under ``key``."""
    for name, levels in wanted.items():
        if name not in parameters:
            raise StudyError(
                f"{where}: {key}.{name} is not a parameter of the sweep; accepted: "
                f"{', '.join(parameters)}"
            )
        for level in levels:
            if not any(same_value(level, value) for value in parameters[name]):
                raise StudyError(
                    f"{where}: {key}.{name} = {level!r} is not a level in the sweep; accepted: "
                    f"{', '.join(map(repr, parameters[name]))}"
                )


def _rule(where: str, score: str | dict[str, Any], logged: Metric) -> str:
    """Return the name of the score rule, a key of RULES.

    Raises:
        StudyError: on an unknown rule, or one that selects the epoch on the test set.
    """
    if isinstance(score, dict) and len(score) == 1:
        ((kind, value),) = score.items()
        if kind == "at_best" and isinstance(value, str):
            part = PARTS.get(split_part(value)[0], "")
            if part == "test" or value == logged.key:
                raise StudyError(
                    f"{where}: score {score} selects the epoch by the score that it reports, which "
                    "biases it; use {at_best: val/error}, last or {mean_last: 5}"
                )
            if part in ("validation", "evaluation") and last_word(value) == logged.name:
                return "at_best_val"
            raise StudyError(
                f"{where}: score {score}: at_best must be the same metric on validation data, such "
                f"as val/{split_part(logged.key)[1]}"
            )
        if kind == "mean_last" and value == 5:
            return "mean_last_5"
    if isinstance(score, str) and score in RULES:
        return score
    if isinstance(score, str) and "best" in score:
        raise StudyError(
            f"{where}: score {score!r} would select the epoch on the test set, which biases the "
            "score; use last, {at_best: val/error} or {mean_last: 5}"
        )
    raise StudyError(
        f"{where}: unknown score {score!r}; accepted: last, {{at_best: val/error}} (or another "
        "validation metric), {mean_last: 5}"
    )


def _labels(
    where: str, name: str, declaration: Declaration, parameters: dict[str, list[Any]]
) -> dict[str, str]:
    """Return the display names, declared or shortened, by factor, "factor=level" or study.

    ``parameters``: levels by parameter of the sweep, and the arms. In a declaration a level may be
    written as in YAML or in Python: batch_norm=true or batch_norm=True.

    Raises:
        StudyError: on a label for something that is not in the study.
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
            f"{where}: labels: {', '.join(map(repr, unknown))} not found in this study.{hint} "
            f"Accepted: {', '.join(known)}"
        )
    shortened = {}
    for factor, levels in parameters.items():
        texts = [show_value(level) for level in levels]
        for text, short in zip(texts, _shortened(texts), strict=True):
            if short != text:
                shortened[f"{factor}={text}"] = short if factor == ARM else f"{factor} = {short}"
    return shortened | {known[key]: label for key, label in declaration.labels.items()}


def _shortened(texts: list[str]) -> list[str]:
    """Return ``texts`` shortened to at most LONG characters; unchanged if that makes two equal.

    Removes first a common beginning, such as a path, and then the middle.
    """
    if max(map(len, texts)) <= LONG:
        return texts
    common = os.path.commonprefix(texts) if len(texts) > 1 else ""  # noqa: RUF071  # also no paths
    cut = max((common.rfind(mark) + 1 for mark in "/ ,;_"), default=0)
    short = [f"…{text[cut:]}" if cut > 3 and len(text) > cut else text for text in texts]
    half = LONG // 2
    short = [t if len(t) <= LONG else f"{t[: half - 1]}…{t[-half:]}" for t in short]
    return short if len(set(short)) == len(set(texts)) else texts


def _check_values(where: str, study: Study) -> None:
    """Raise a StudyError on declared values that do not fit the metric, the sweep or each other."""
    low, high = study.metric.bounds
    delta = study.smallest_effect
    if delta is not None and delta >= high - low:
        raise StudyError(
            f"{where}: smallest_effect {delta} must be smaller than the range of "
            f"{study.metric.key}, {low} to {high}. It is in the unit in which the metric is "
            "logged: for a fraction, 0.005 is half a percentage point."
        )
    for name, value in study.declaration.published_scores.items():
        if not low <= value <= high:
            raise StudyError(
                f"{where}: published_scores.{name} = {value} is outside the bounds of "
                f"{study.metric.key}, {low} to {high}"
            )
    if study.declaration.block and study.declaration.published_scores:
        raise StudyError(
            f"{where}: published_scores cannot be compared with means over blocks; remove "
            "`published_scores:` or `block:`"
        )
    if study.declaration.repeats and study.declaration.looks:
        raise StudyError(
            f"{where}: looks need planned seeds, which seed: {{repeat: true}} does not have; "
            "remove `looks:` or name the config key of the seed"
        )
    if looks := study.declaration.looks:
        seeds, spent = sorted(looks), sum(looks.values())
        if seeds[0] < 1 or seeds[-1] != len(study.seeds) or spent > study.declaration.alpha + 1e-12:
            raise StudyError(
                f"{where}: looks must end at the sweep's {len(study.seeds)} seeds and spend at "
                f"most alpha = {study.declaration.alpha} in total, got {looks}, which spends "
                f"{spent:g}"
            )
    control, known = study.control, [v for levels in study.factors.values() for v in levels]
    if control is not None and control not in known:
        raise StudyError(
            f"{where}: compare: control {control!r} is not a level of a factor; accepted: "
            f"{', '.join(map(show_value, known))}"
        )
    if study.factors and study.declaration.published_scores:
        raise StudyError(
            f"{where}: published_scores need a sweep that varies only the seed, but {study.name} "
            f"also varies {', '.join(study.factors)}. Remove `published_scores:`"
        )
