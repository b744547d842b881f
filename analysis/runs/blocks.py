"""Averages over blocks, such as data sets or environments."""

from typing import Literal

import numpy as np
from scipy.stats import rankdata

BlockScale = Literal["raw", "rank", "relative"]


def average(scores: np.ndarray, scale: BlockScale = "raw", baseline: int = 0) -> np.ndarray:
    """Return the mean over blocks for each variant and seed, (variants, seeds).

    ``scores``: (blocks, variants, seeds), NaN for failed runs. A failed run gives NaN for its
    variant and seed and does not enter ranks or medians. ``scale``: ``raw`` uses the scores
    unchanged, for blocks with a common unit; ``rank`` ranks all runs of a block from 0 (lowest) to
    1; ``relative`` is (score - b) / |b|, where b is the block's median score of the variant with
    index ``baseline``.

    Raises:
        ValueError: for ``relative`` if a block's b is 0, or all its baseline runs failed.
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
        raise ValueError("all baseline runs of a block failed; use the scale raw or rank")
    middle = np.nanmedian(scores[:, baseline], axis=1)[:, None, None]
    if (middle == 0).any():
        raise ValueError("a block's baseline score is 0; use the scale raw or rank")
    return ((scores - middle) / np.abs(middle)).mean(axis=0)
