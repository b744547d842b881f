"""A study as a value: variants, seeds, metric, and the names under which they are shown.

It is built by lib/spec/build.py and found by its name by lib/spec/load.py.
"""

import itertools
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.spec.declaration import Declaration
from lib.spec.metric import Metric
from lib.spec.metric_declaration import PRESETS
from lib.spec.sweep import Sweep, show_value

ROOT = Path(__file__).parents[2]
CHANGED = " then "  # joins the values of a run that was resumed with another commit, version, …
ARM = "arm"  # name of the factor in a study that declares arms

# Score rules: the epochs that give a run's score. None of them depends on the test set.
RULES = {
    "last": "last epoch",
    "at_best_val": "epoch best on validation",
    "mean_last_5": "mean of the last five epochs",
}
LEAST_EPOCHS = {"last": 1, "at_best_val": 1, "mean_last_5": 5}  # epochs that a rule needs
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

    ``factors``: levels by factor, baseline first. ``seeds``: the replicates; if they are numbered
    by creation, empty until the runs are read. ``fixed``: config values that the sweep sets for all
    runs. ``configs``: config values by variant. ``metric``: the metric of the compared scores;
    ``logged``: that of the runs' scores. The two differ if scores are converted, to ranks or to
    values relative to a baseline, before they are averaged over blocks. ``blocks``: config values
    of each block; one empty dictionary if the study has no blocks. ``level``: α at the current
    look, if several looks are planned; ``later``: seeds of future looks. ``by_step``: whether the
    runs' histories are over steps instead of epochs, or have the metric at some epochs only; known
    after they are read.
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
        """Return a block's name, such as "dataset=cifar"; empty if the study has no blocks."""
        return ", ".join(f"{key}={show_value(value)}" for key, value in block.items())

    @property
    def factor_keys(self) -> list[str]:
        """The config keys in which the variants differ."""
        return list(dict.fromkeys(key for config in self.configs.values() for key in config))

    @property
    def control(self) -> Any:
        """The control level, with which other levels are compared; None to compare all pairs."""
        compare = self.declaration.compare
        return None if compare == "pairs" else hashable(compare.control)

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
        """Return the display name of a score rule; it names evaluations if ``by_step``."""
        if rule == "last" and self.names_best:
            return "as in the summary"
        return RULES[rule].replace("epoch", "evaluation") if self.by_step else RULES[rule]

    @property
    def names_best(self) -> bool:
        """Whether the metric's key says that it is the best of several values: max_val_acc."""
        if self.metric.key.lower().endswith((".min", ".max", ".best")):  # of define_metric
            return True
        words = re.split(r"[/_.\s-]", self.metric.key.lower())
        best = ("max", "highest") if self.metric.sign > 0 else ("min", "lowest")
        known = self.metric.name in PRESETS and not set(best).isdisjoint(words)
        return known or "best" in words

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


def hashable(level: Any) -> Any:
    """Return a level that can be a key: lists become tuples."""
    return tuple(map(hashable, level)) if isinstance(level, list | tuple) else level
