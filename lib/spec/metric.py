"""A metric: key, goal, unit, decimals, bounds, scale; how its scores are shown."""

import dataclasses
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from lib.spec.words import capitalize

MOST_DECIMALS = 6  # scores are not shown with more only because the smallest effect has more
PARTS = {  # first word of a key -> display name of the part of the data
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "evaluation",
    "train": "training",
}
Goal = Literal["minimize", "maximize"]
Scale = Literal["identity", "log", "logit"]
ItemScore = Literal["score", "wrong", "right", "jaccard", "dice"]
SYNONYMS = {  # last word of a key -> its name
    "acc": "accuracy",
    "err": "error",
    "iou": "jaccard",
    "auroc": "auc",
    "ppl": "perplexity",
}
PHRASES = {  # name -> last words of a key
    "rmse": ("root", "mean", "squared", "error"),
    "mse": ("mean", "squared", "error"),
    "mae": ("mean", "absolute", "error"),
}
# Words before "error" that make it another quantity than a share of wrong answers.
NOT_A_RATE = {"squared", "absolute", "relative", "mean", "l1", "l2", "rms", "reconstruction"}
NOT_A_RATE |= {"standard", "percentage", "prediction", "quantile"}


@dataclass(frozen=True)
class Metric:
    """A metric: how it is logged, compared and displayed.

    Values are in the unit in which the metric is logged; ``show`` multiplies them by
    ``display_factor`` (100 for fractions displayed in percent). ``worst`` is the score given to
    diverged runs; a test may use a worse one (analysis/runs/data.py). ``scale`` is a second scale
    on which interactions are tested: log (for positive metrics) or logit (for metrics in [0, 1]);
    ``identity`` means no second scale. ``resolution`` is the smallest possible difference of
    scores, or None. ``item_score`` says how the score of a test item follows from a run's saved
    outputs: 1 if its class is "wrong" or "right", its "jaccard" or "dice", or a saved "score".
    """

    key: str
    label: str
    goal: Goal
    unit: str = ""
    decimals: int = 4
    display_factor: float = 1.0
    bounds: tuple[float, float] = (-math.inf, math.inf)
    worst: float | None = None
    resolution: float | None = None
    scale: Scale = "identity"
    item_score: ItemScore = "score"
    complement: str = ""  # the label of 1 - score, if that is what papers quote: accuracy
    whole_label: bool = False  # whether the label already names the part of the data
    decimals_by: Literal["declaration", "preset", "default"] = "declaration"

    @property
    def name(self) -> str:
        """The key's last word: error for test/error."""
        return last_word(self.key)

    @property
    def part(self) -> str:
        """The part of the data that the key names, such as "validation"; else empty."""
        return PARTS.get(split_part(self.key)[0], "")

    @property
    def title(self) -> str:
        """Part and label, such as "test error"; only the label if it comes from a declaration."""
        return f"{self.part} {self.label}" if self.part and not self.whole_label else self.label

    @property
    def axis(self) -> str:
        """The title with its unit, for an axis or a column: "Test error (%)"."""
        return capitalize(self.title) + (f" ({self.unit})" if self.unit else "")

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: percentage points for %, else the unit itself."""
        return "percentage points" if self.unit == "%" else self.unit

    @property
    def sign(self) -> int:
        """1 if higher scores are better, -1 if lower ones are."""
        return 1 if self.goal == "maximize" else -1

    @property
    def better(self) -> str:
        """The direction of better scores: "higher" or "lower"."""
        return "higher" if self.goal == "maximize" else "lower"

    def on(self, key: str) -> "Metric":
        """Return the same metric logged under another key, such as val/error for test/error."""
        return dataclasses.replace(self, key=key, whole_label=self.whole_label and key == self.key)

    def fitting(self, scores: np.ndarray, effect: float | None = None) -> "Metric":
        """Return the metric with enough decimals to distinguish these scores, unless declared.

        Enough are two digits of the scores' range and all digits of ``effect``, the smallest effect
        of interest. The decimals of a preset are kept if at most two more would be needed and
        ``effect`` is not shown as 0.
        """
        finite = scores[np.isfinite(scores)]
        with np.errstate(over="ignore"):
            spread = self.display_factor * float(np.ptp(finite)) if len(finite) else 0.0
        if spread == 0.0 or not math.isfinite(spread) or self.decimals_by == "declaration":
            return self
        wanted = min(max(0, 2 - math.floor(math.log10(spread))), 12)
        of_effect = self._decimals_of(effect) if effect else 0
        wanted = max(wanted, of_effect if of_effect <= MOST_DECIMALS else 0)
        visible = effect is None or effect >= self.shown_step
        if self.decimals_by == "preset" and wanted <= self.decimals + 2 and visible:
            return self
        return dataclasses.replace(self, decimals=wanted)

    def display(self, values: Any) -> Any:
        """Return ``values``, a number or an array, in the displayed unit."""
        return values * self.display_factor

    def show(self, value: float) -> str:
        """Format a score without its unit: "1.38" for an error of 0.0138."""
        return self._in_digits(self.display_factor * value)

    def show_with_unit(self, value: float) -> str:
        """Format a score with its unit: "1.38 %"."""
        return f"{self.show(value)}{f' {self.unit}' if self.unit else ''}"

    def show_signed(self, value: float) -> str:
        """Format a difference with its sign and without its unit: "+0.12", "−0.30", "0.00"."""
        shown = self.show(abs(value))
        zero = not any(digit in shown for digit in "123456789")
        return shown if zero else ("+" if value > 0 else "−") + shown

    def show_amount(self, value: float) -> str:
        """Format the size of a difference with its unit: "0.50 percentage points"."""
        return f"{self.show(value)}{f' {self.difference_unit}' if self.difference_unit else ''}"

    def show_exactly(self, value: float) -> str:
        """Format the size of a declared difference with its unit and all of its digits."""
        decimals = max(self.decimals, self._decimals_of(value))
        return dataclasses.replace(self, decimals=decimals).show_amount(value)

    def _decimals_of(self, value: float) -> int:
        """Return how many decimals a value has in the displayed unit, to 12 significant digits."""
        shown = format(Decimal(f"{self.display_factor * value:.12g}"), "f")
        return len(shown.partition(".")[2])

    def quote(self, value: float) -> float:
        """Return a score as papers quote it: an error as accuracy, others in the displayed unit."""
        return self.display_factor * (1 - value if self.complement else value)

    def show_quoted(self, value: float) -> str:
        """Format a score as papers quote it, without its unit."""
        return self._in_digits(self.quote(value))

    def _in_digits(self, shown: float) -> str:
        """Format a number in the displayed unit; what rounds to 0 has no sign."""
        return f"{round(shown, self.decimals) + 0.0:,.{self.decimals}f}".replace("-", "−")

    @property
    def quoted_axis(self) -> str:
        """The axis label of quoted scores: "Test accuracy (%)"."""
        label = self.complement or self.label
        return dataclasses.replace(self, label=label).axis

    @property
    def worst_value(self) -> float | None:
        """The score of a diverged run: ``worst``, else the bound on the bad side if finite."""
        if self.worst is not None:
            return self.worst
        bound = self.bounds[0] if self.goal == "maximize" else self.bounds[1]
        return bound if math.isfinite(bound) else None

    @property
    def scale_name(self) -> str:
        """The name of the second scale: "log10 of error in %"; empty without a second scale."""
        unit = f" in {self.unit}" if self.unit and self.scale == "log" else ""
        functions = {"log": "log10", "logit": "logit"}
        return f"{functions[self.scale]} of {self.label}{unit}" if self.scale in functions else ""

    def rescale(self, values: np.ndarray) -> np.ndarray | None:
        """Return values (any shape) on the second scale, or None without a second scale.

        For log, scores of 0 are replaced by half of the smallest positive score; for logit, scores
        are clipped to [1e-9, 1 - 1e-9].
        """
        if self.scale == "log":
            floor = values[values > 0].min() / 2 if (values > 0).any() else 1.0
            return np.log10(self.display_factor * np.maximum(values, floor))
        if self.scale == "logit":
            clipped = np.clip(values, 1e-9, 1 - 1e-9)
            return np.log(clipped / (1 - clipped))
        return None

    @property
    def shown_step(self) -> float:
        """The smallest difference visible in the displayed decimals, in the logged unit."""
        return 10**-self.decimals / self.display_factor

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Return which of ``values`` are outside the metric's bounds (bool, same shape)."""
        low, high = self.bounds
        return (values < low) | (values > high)


def split_part(key: str) -> tuple[str, str]:
    """Split a key into the part of the data and the rest: ("val", "acc") for val_acc."""
    match = re.fullmatch(r"([A-Za-z]+)[/_.\s](.+)", key)
    if match and match[1].lower() in PARTS:
        return match[1].lower(), match[2]
    return "", key


def with_part(key: str, part: str) -> str:
    """Return the key of the same metric on another part of the data: "test_acc" for "val_acc"."""
    rest = split_part(key)[1]
    separator = "/" if rest == key else key[-len(rest) - 1]
    return f"{part}{separator}{rest}"


def last_word(key: str) -> str:
    """Return a key's last word in lower case, without abbreviation: "accuracy" for "val_acc".

    Names of several words count as one: "mse" for "mean_squared_error". A part of a loss is a loss,
    as in "loss_dice"; an error of another kind, such as "l2_error", is returned with that word.
    """
    words = [word.lower() for word in re.split(r"[/_.\s-]+", key)]
    for name, phrase in PHRASES.items():
        if tuple(words[-len(phrase) :]) == phrase:
            return name
    if re.match(r"loss[_-]", re.split(r"[/.\s]", split_part(key)[1])[-1].lower()):
        return "loss"
    word = SYNONYMS.get(words[-1], words[-1])
    kind = words[-2] if len(words) > 1 else ""
    return f"{kind} {word}" if word == "error" and kind in NOT_A_RATE else word
