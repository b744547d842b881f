"""Checks of a study: a method whose runs can be compared, and declared values that fit."""

import json

from lib.spec.declaration import Declaration, StudyError
from lib.spec.study import Study
from lib.spec.sweep import Sweep, show_value


def check_method(sweep: Sweep, declared: Declaration | None) -> None:
    """Raise a StudyError on a search, unless it is random and the declaration allows for that.

    The runs of a random search are independent draws, so its categorical levels can be compared as
    unpaired samples. The runs of a Bayesian search depend on earlier scores.
    """
    if "early_terminate" in sweep.raw:
        raise StudyError(
            f"{sweep.where}: `early_terminate` stops runs because of the scores of other runs, so "
            "the runs that are left cannot be compared. Repeat the settings in a grid with seeds "
            "and without `early_terminate`; if it stopped no run, pass the sweep's YAML without it "
            "as --sweep."
        )
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


def check_values(where: str, study: Study) -> None:
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
