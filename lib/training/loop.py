"""Bookkeeping for training loops: history, best weights, checkpoints, divergence.

The loop itself is in the training script. It calls ``resume``, trains while ``unfinished``, and
after each epoch calls ``end_epoch``, then ``add_tail`` if ``in_tail``, then ``save_if_due``.
"""

import dataclasses
import math
import time
from typing import Any, Literal

import torch
from torch import nn

from lib.spec.study import CHANGED, LEAST_EPOCHS
from lib.tracking.wandb_run import GRACE_S, Run
from lib.training import checkpoint

TAIL = LEAST_EPOCHS["mean_last_5"]  # number of last epochs whose test scores are averaged


@dataclasses.dataclass
class Loop:
    """The state of one run's training loop.

    ``config_key``, ``state``: see lib/training/checkpoint.py. ``watched``: the validation metric
    that selects the best epoch, whose weights are kept; None without a validation set; the last
    epoch then counts as the best. ``tail``: test scores of the last TAIL epochs. ``made_by``:
    commit, versions, device and threads of this process; ``segments``: those of all processes that
    trained a part of the run.
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
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one; log its epochs that W&B does not have."""
        saved = checkpoint.resume(self.run.folder, self.config_key, self.state)
        for name, value in (saved or {}).items():
            setattr(self, name, value)
        if self.made_by not in self.segments[-1:]:
            self.segments = [*self.segments, self.made_by]
        self.run.summarize(joined(self.segments) | {"resumed_from_epoch": self.epoch})
        self.run.resume(self.history)

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return len(self.history)

    @property
    def unfinished(self) -> bool:
        """Whether there are epochs left to train."""
        return self.epoch < self.epochs and not self.diverged

    @property
    def in_tail(self) -> bool:
        """Whether the last completed epoch is one of the run's last TAIL epochs."""
        return self.epoch > self.epochs - TAIL and not self.diverged

    def end_epoch(self, row: dict[str, float], model: nn.Module) -> None:
        """Log an epoch's row, check for divergence, and keep the weights of the best epoch.

        A run has diverged if its training or validation loss or one of its weights is not finite.
        Without a validation set, only the weights show that the epoch's last step diverged.
        """
        row = {"epoch": self.epoch + 1} | row
        self.history.append(row)
        self.run.log_epochs([row])
        losses = [row["train/loss"]] + ([row["val/loss"]] if self.watched else [])
        weights_finite = all(v.isfinite().all() for v in model.state_dict().values())
        self.diverged = not (weights_finite and all(map(math.isfinite, losses)))
        if not self.diverged and self._is_best(row):
            self.best_epoch = row["epoch"]
            self.best_weights = {k: v.clone() for k, v in model.state_dict().items()}

    def _is_best(self, row: dict[str, float]) -> bool:
        """Return whether this epoch is strictly better than all before; true without validation."""
        if self.watched is None or not self.best_epoch:
            return True
        best, now = self.history[self.best_epoch - 1][self.watched], row[self.watched]
        return now < best if self.goal == "minimize" else now > best

    def add_tail(self, scores: Any) -> None:
        """Keep the test scores of one of the last TAIL epochs."""
        self.tail.append(scores)

    def save_if_due(self) -> None:
        """Write a checkpoint if one is due.

        That is every ``checkpoint_every`` epochs, at the end, after SIGTERM, and if GRACE_S seconds
        have passed since the last one: an epoch that is too long to finish after SIGTERM is then
        all that is lost.
        After SIGTERM, raises KeyboardInterrupt, which ends the run.
        """
        due = self.epoch % self.checkpoint_every == 0 or not self.unfinished
        due = due or time.monotonic() - self.saved_at > GRACE_S
        if due or self.run.stop_requested:
            saved = ("history", "diverged", "best_epoch", "best_weights", "tail", "segments")
            loop_state = {name: getattr(self, name) for name in saved}
            checkpoint.save(self.run.folder, self.epoch, self.config_key, loop_state, self.state)
            self.saved_at = time.monotonic()
            self.run.exit_if_preempted()


def joined(segments: list[dict[str, str]]) -> dict[str, str]:
    """Return the provenance of a whole run; values that changed are joined by CHANGED, in order.

    The analysis reports runs with such values.
    """
    whole = {}
    for name in dict.fromkeys(key for segment in segments for key in segment):
        values = [str(segment.get(name, "unknown")) for segment in segments]
        whole[name] = CHANGED.join(v for i, v in enumerate(values) if v not in values[i - 1 : i])
    return whole
