"""Blocks, such as data sets or environments: one value per seed, averaged over them."""

from typing import Literal

import numpy as np
from scipy.stats import rankdata

BlockScale = Literal["raw", "rank", "relative"]


def average(scores: np.ndarray, scale: BlockScale = "raw", baseline: int = 0) -> np.ndarray:
    """Return one value per variant and seed, (variants, seeds): the mean over blocks.

    ``scores`` (blocks, variants, seeds), NaN for failed runs, which count in nothing and leave NaN.
    ``scale``: ``raw``, the scores as they are, where blocks
    share a unit; ``rank``, each block's runs ranked together from 0, the lowest, to 1;
    ``relative``, (score - b) / |b|, where b is the block's median score of the variant at place
    ``baseline``.

    Raises:
        ValueError: for ``relative`` where a block's baseline is 0 or failed throughout.
    """
    if scale == "raw":
        return scores.mean(axis=0)
    blocks = len(scores)
    if scale == "rank":
        flat = scores.reshape(blocks, -1)
        ranks = rankdata(flat, axis=1, nan_policy="omit") - 1
        ranks /= np.maximum(1, np.isfinite(flat).sum(axis=1, keepdims=True) - 1)
        return ranks.reshape(scores.shape).mean(axis=0)
    known = np.isfinite(scores[:, baseline]).any(axis=1)
    if not known.all():
        raise ValueError("a block has no run of the baseline that did not fail")
    middle = np.nanmedian(scores[:, baseline], axis=1)[:, None, None]
    if (middle == 0).any():
        raise ValueError("a block's baseline score is 0: nothing can be said relative to it")
    return ((scores - middle) / np.abs(middle)).mean(axis=0)
