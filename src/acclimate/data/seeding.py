"""Randomness without hidden state: every number follows from (seed, stream, epoch, index).

A run that is continued draws the same items and the same augmentations as one that was never
interrupted, and so does a run with another number of workers, because nothing is remembered.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *key: int) -> np.random.Generator:
    """The random numbers of one purpose (``stream``) and one place in the run (``key``: epoch, index …).

    All integers must be at least 0. Equal arguments give equal numbers on every machine.
    """
    # The key's length takes part, because NumPy pads seeds with zeros: [a, b] and [a, b, 0] would be one.
    return np.random.default_rng([len(key), zlib.crc32(stream.encode()), seed, *key])


class Schedule:
    """Which item stands at each position of an endless sequence: one permutation of all items per epoch."""

    def __init__(self, size: int, seed: int, stream: str) -> None:
        if size < 1:
            raise ValueError("a schedule needs at least one item")
        self.size, self.seed, self.stream = size, seed, stream
        self._permutation: tuple[int, np.ndarray] | None = None  # the epoch last asked for

    def __call__(self, position: int) -> tuple[int, int]:
        """(epoch, index of the item) at ``position``, counted from 0."""
        epoch, place = divmod(position, self.size)
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = epoch, generator(self.seed, self.stream, epoch).permutation(self.size)
        return epoch, int(self._permutation[1][place])
