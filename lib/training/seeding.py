"""Derive independent random streams from a seed, so that one stream does not shift another."""

import hashlib
import zlib

import numpy as np
import torch

STREAMS = ("split", "init", "order", "augmentation", "dropout")


def stream_seed(seed: int, stream: str) -> int:
    """Return the 63-bit seed of a stream (one of STREAMS) for a run's ``seed`` (>= 0).

    Uses numpy.random.SeedSequence, whose hashing makes neighboring seeds independent.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}; accepted: {', '.join(STREAMS)}")
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
    return int(words.generate_state(1, np.uint64)[0]) >> 1


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """Return a NumPy generator for the named stream."""
    return np.random.default_rng(stream_seed(seed, stream))


def torch_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on ``device`` for the named stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream))


def pairing_hashes(seed: int, split: tuple[np.ndarray, ...]) -> dict[str, str]:
    """Return hashes of a run's split and first epoch's order; runs with equal hashes are paired.

    ``split``: index arrays, that of the training images first.
    """
    order = torch.randperm(len(split[0]), generator=torch_generator(seed, "order"))
    return {"split_sha256": sha256(*split), "order_sha256": sha256(split[0][order])}


def sha256(*arrays: np.ndarray | torch.Tensor) -> str:
    """Return the SHA-256 of the arrays' shapes, types and bytes, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array)
    return digest.hexdigest()
