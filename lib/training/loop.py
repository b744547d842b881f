"""The bookkeeping that every training loop shares; the loop itself stays in its script.

A script resumes the loop, trains while it is unfinished, and after each epoch calls ``end_epoch``
with the row, ``add_tail`` with test scores while ``in_tail``, and ``save_if_due``.
"""

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import nn

from lib.spec.study import CHANGED
from lib.tracking.wandb_run import Run
from lib.training import checkpoint

TAIL = 5  # last epochs whose test scores are averaged: one of the score rules


@dataclasses.dataclass
class Loop:
    """Epoch rows, best weights, tail scores, checkpoints and divergence of one run.

    ``state``: models, optimizers, schedulers and generators by name, as a checkpoint keeps them.
    ``watched``: the history key whose best epoch's weights are kept; None, where there is no
    validation, keeps the last epoch's. ``made_by``: commit, versions, device, threads of this
    process; ``segments``: the same of each process that trained a part of the run.
    """

    run: Run
    config_key: dict[str, Any]
    state: dict[str, Any]
    epochs: int
    checkpoint_every: int
    watched: str | None
    made_by: dict[str, str]
    goal: Literal["minimize", "maximize"] = "minimize"
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    diverged: bool = False
    best_epoch: int = 0
    best_weights: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    tail: list[Any] = dataclasses.field(default_factory=list)
    segments: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one, and log its epochs where needed."""
        saved = checkpoint.resume(self.run.folder, self.config_key, self.state)
        for name, value in (saved or {}).items():
            setattr(self, name, value)
        if self.made_by not in self.segments[-1:]:
            self.segments = [*self.segments, self.made_by]
        self.run.summarize(joined(self.segments) | {"resumed_from_epoch": self.epoch})
        self.run.resume(self.history)

    @property
    def epoch(self) -> int:
        """The number of epochs done."""
        return len(self.history)

    @property
    def unfinished(self) -> bool:
        """Whether another epoch is to be trained."""
        return self.epoch < self.epochs and not self.diverged

    @property
    def in_tail(self) -> bool:
        """Whether the last epoch done is one of the last ``TAIL`` of the run."""
        return self.epoch > self.epochs - TAIL and not self.diverged

    def end_epoch(self, row: dict[str, float], model: nn.Module) -> None:
        """Log an epoch's row; notice divergence; keep ``model``'s weights if they are the best.

        A run has diverged when its training loss, or its validation loss where it has one, is not
        finite.
        """
        row = {"epoch": self.epoch + 1} | row
        self.history.append(row)
        self.run.log_epochs([row])
        losses = [row["train/loss"]] + ([row["val/loss"]] if self.watched else [])
        self.diverged = not all(map(math.isfinite, losses))
        if not self.diverged and self._is_best(row):
            self.best_epoch = row["epoch"]
            self.best_weights = {k: v.clone() for k, v in model.state_dict().items()}

    def _is_best(self, row: dict[str, float]) -> bool:
        """Say whether this epoch is better than all before it; the first of equal ones stays."""
        if self.watched is None or not self.best_epoch:
            return True
        best, now = self.history[self.best_epoch - 1][self.watched], row[self.watched]
        return now < best if self.goal == "minimize" else now > best

    def add_tail(self, scores: Any) -> None:
        """Keep the test scores of an epoch of the tail."""
        self.tail.append(scores)

    def save_if_due(self) -> None:
        """Write a checkpoint every ``checkpoint_every`` epochs, at the end, and at a stop.

        Then end the run here if SIGTERM asked for it.
        """
        due = self.epoch % self.checkpoint_every == 0 or not self.unfinished
        if due or self.run.stop_requested:
            saved = ("history", "diverged", "best_epoch", "best_weights", "tail", "segments")
            loop_state = {name: getattr(self, name) for name in saved}
            checkpoint.save(self.run.folder, self.epoch, self.config_key, loop_state, self.state)
            self.run.exit_if_preempted()


def joined(segments: list[dict[str, str]]) -> dict[str, str]:
    """Return what made a run: where its parts differ, all values in order, joined by CHANGED.

    The analysis takes a value with CHANGED in it for a reason to ask.
    """
    found = {}
    for name in dict.fromkeys(key for one in segments for key in one):
        values = [str(one.get(name, "unknown")) for one in segments]
        found[name] = CHANGED.join(v for i, v in enumerate(values) if v not in values[i - 1 : i])
    return found
