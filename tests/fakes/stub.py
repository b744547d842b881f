"""A training script whose epochs take milliseconds: tracking, config and checkpoints, no torch.

For tests of agents and faults. Its score depends on all that it draws, so that a run that was
stopped and resumed is seen to end as one that was not.
"""

import dataclasses
import json
import math
import random
import time
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lib.spec.files import write_json
from lib.tracking import wandb_run
from lib.training import config

FATAL_LR = 99.0  # a run with it crashes


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run."""

    seed: NonNegativeInt = 0
    epochs: PositiveInt = 3
    lr: PositiveFloat = 0.1
    optimizer: Literal["adam", "sgd"] = "adam"
    batch_norm: bool = False
    seconds: NonNegativeFloat = 0.0  # that an epoch takes
    media: bool = False
    checkpoint_every: PositiveInt = 1


def train(cfg: Config, run: wandb_run.Run) -> None:
    """Train nothing: draw a number per epoch, keep the generator's state."""
    if cfg.lr == FATAL_LR:
        raise ValueError(f"lr = {cfg.lr} diverges at once")
    generator, rows = random.Random(cfg.seed), []
    path = run.folder / "state.json"
    if path.exists():
        saved = json.loads(path.read_text())
        rows = saved["rows"]
        generator.setstate((saved["state"][0], tuple(saved["state"][1]), saved["state"][2]))
        print(f"resuming from {path}", flush=True)
    run.summarize({"data_sha256": "d", "git_commit": "c", "split_sha256": f"s{cfg.seed}"})
    run.summarize({"order_sha256": f"o{cfg.seed}", "resumed_from_epoch": len(rows)})
    run.resume(rows)
    with wandb_run.progress_bar(cfg.epochs, len(rows)) as bar:
        while len(rows) < cfg.epochs:
            start = time.perf_counter()
            time.sleep(cfg.seconds)
            error = 0.1 + 0.1 * generator.random() - 0.05 * cfg.batch_norm
            row = {"epoch": len(rows) + 1, "val/error": error, "val/loss": -math.log(1 - error)}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": 1.0}
            rows.append(row)
            run.log_epochs([row])
            wandb_run.show_epoch(bar, row, cfg.epochs, "val/error")
            bar.update()
            due = len(rows) % cfg.checkpoint_every == 0 or len(rows) == cfg.epochs
            if due or run.stop_requested:
                write_json(path, {"rows": rows, "state": generator.getstate()})
                run.exit_if_preempted()
    score = sum(row["val/error"] for row in rows) / len(rows)
    run.summarize({"test/error": score, "diverged": False})


def main() -> None:
    """Read flags and sweep, train."""
    with wandb_run.start(config.from_flags(Config)) as (cfg, run):
        if not run.dry:
            train(cfg, run)


if __name__ == "__main__":
    main()
