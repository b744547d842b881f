"""Build a study from its sweeps and its declaration: variants, factors, seeds, metric.

The declaration is analysis/studies/<name>.yaml. Without one, the sweep's metric is used and the
report calls the contrasts exploratory.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.spec.checks import check_method, check_values
from lib.spec.declaration import SEED, Declaration, StudyError
from lib.spec.errors import UserError
from lib.spec.labels import read_labels
from lib.spec.metric import PARTS, Metric, last_word, split_part
from lib.spec.metric_declaration import metric
from lib.spec.study import ARM, LEAST_EPOCHS, RULES, Places, Study, Variant, hashable
from lib.spec.sweep import Sweep, same_value


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
        check_method(sweep, declared)
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
            f"{where}: the sweep varies {', '.join(loose)}, which must be declared. Add each to "
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
        labels=read_labels(where, name, declaration, parameters | factors),
    )
    check_values(where, study)
    return study


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
        own = {n: v for n, v in parameters.items() if n not in (seed, *declaration.free)}
        factors = {n: v for n, v in own.items() if len(v) > 1}
    _check_levels(where, "factors", factors, parameters)
    factors = {name: [hashable(level) for level in levels] for name, levels in factors.items()}
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
        configs[(arm,)] = {key: hashable(level) for key, level in config.items()}
    first, *others = configs.values()
    for (arm,), config in configs.items():
        if missing := [key for key in {**first, **config} if key not in first or key not in config]:
            raise StudyError(
                f"{where}: only one of arms.{arm} and arms.{next(iter(arms))} sets "
                f"{', '.join(missing)}; all arms must set the same keys"
            )
    equal = [config for config in configs.values() if list(configs.values()).count(config) > 1]
    if not others or equal:
        raise StudyError(f"{where}: there must be at least two arms, all different; got {arms}")
    return configs


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


def _or_validation(logged: Metric) -> str:
    """Return the hint to select the epoch on validation data, unless the metric is from there."""
    first, rest = split_part(logged.key)
    return "" if PARTS.get(first) == "validation" else f", or {{at_best: val/{rest}}}"


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
                    f"biases it; use last or {{mean_last: 5}}{_or_validation(logged)}"
                )
            if part in ("validation", "evaluation") and last_word(value) == logged.name:
                return "at_best_val"
            raise StudyError(
                f"{where}: score {score}: at_best must be the same metric on validation data, such "
                f"as val/{split_part(logged.key)[1]}"
            )
        if kind == "mean_last" and value == LEAST_EPOCHS["mean_last_5"]:
            return "mean_last_5"
    if isinstance(score, str) and score in RULES:
        return score
    if isinstance(score, str) and "best" in score:
        raise StudyError(
            f"{where}: score {score!r} would select the epoch on the test set, which biases the "
            f"score; use last or {{mean_last: 5}}{_or_validation(logged)}"
        )
    raise StudyError(
        f"{where}: unknown score {score!r}; accepted: last, {{at_best: val/error}} (or another "
        "validation metric), {mean_last: 5}"
    )
