"""Blocks, such as data sets or environments: one value per seed, averaged over them."""

from typing import Literal

import numpy as np
from scipy.stats import rankdata

BlockScale = Literal["raw", "rank", "relative"]


def average(scores: np.ndarray, scale: BlockScale = "raw", baseline: int = 0) -> np.ndarray:
    """Return one value per variant and seed, (variants, seeds): the mean over blocks.

    ``scores`` (blocks, variants, seeds). ``scale``: ``raw``, the scores as they are, where blocks
    share a unit; ``rank``, each block's runs ranked together from 0, the lowest, to 1;
    ``relative``, (score - b) / |b|, where b is the block's median score of the variant at place
    ``baseline``.

    Raises:
        ValueError: for ``relative`` where a block's baseline is 0.
    """
    if scale == "raw":
        return scores.mean(axis=0)
    blocks, variants, seeds = scores.shape
    if scale == "rank":
        ranks = rankdata(scores.reshape(blocks, -1), axis=1) - 1
        ranks /= max(1, variants * seeds - 1)
        return ranks.reshape(scores.shape).mean(axis=0)
    middle = np.median(scores[:, baseline], axis=1)[:, None, None]
    if (middle == 0).any():
        raise ValueError("a block's baseline score is 0: nothing can be said relative to it")
    return ((scores - middle) / np.abs(middle)).mean(axis=0)
