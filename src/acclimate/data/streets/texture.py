"""Noise and patterns, as functions of surface coordinates in metres."""

from __future__ import annotations

from functools import cache

import numpy as np

_TILE = 512


@cache
def _tile(roughness: float) -> np.ndarray:
    """Periodic noise with a 1/f**roughness spectrum; mean 0, standard deviation 1, float32."""
    white = np.random.default_rng([7, int(roughness * 10)]).standard_normal((_TILE, _TILE))
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]) * _TILE
    frequency[0, 0] = np.inf
    pattern = np.fft.irfft2(np.fft.rfft2(white) / frequency**roughness)
    return (pattern / pattern.std()).astype(np.float32)


def _wrap(position: np.ndarray, per_metre: float, salt: int) -> np.ndarray:
    return (position * np.float32(per_metre) + np.float32(salt * 37 % _TILE)).astype(np.int32) & (_TILE - 1)


def clouds(u: np.ndarray, v: np.ndarray, per_metre: float, salt: int = 0) -> np.ndarray:
    """Smooth noise: large shapes with finer ones on them."""
    return _tile(1.6)[_wrap(v, per_metre, salt), _wrap(u, per_metre, salt + 5)]


def grain(u: np.ndarray, v: np.ndarray, per_metre: float, salt: int = 0) -> np.ndarray:
    """Rough noise: asphalt, plaster, leaves."""
    return _tile(0.6)[_wrap(v, per_metre, salt), _wrap(u, per_metre, salt + 5)]


def cell(i: np.ndarray, j: np.ndarray, salt: int = 0) -> np.ndarray:
    """A value in 0 … 1 for each whole-numbered cell (i, j)."""
    h = i.astype(np.int32) * 73856093 ^ j.astype(np.int32) * 19349663 ^ np.int32(salt * 83492791 & 0x7FFFFFFF)
    h = (h ^ (h >> 13)) * 1274126177
    return ((h >> 8) & 0xFFFF).astype(np.float32) / np.float32(0xFFFF)


def tiles(u: np.ndarray, v: np.ndarray, width: float, height: float, joint: float, salt: int = 0) -> np.ndarray:
    """Running bond of bricks or slabs: -1 in the joints, else a value in 0 … 1 per brick."""
    row = np.floor(v / height)
    shifted = u / width + 0.5 * (row % 2)
    column = np.floor(shifted)
    seam = ((shifted - column) * width < joint) | (v - row * height < joint)
    return np.where(seam, np.float32(-1), cell(column, row, salt))


def visible(z: np.ndarray, reach: float) -> np.ndarray:
    """How much of a fine pattern is left at distance z: 1 near, fading from ``reach`` metres on."""
    return 1 / (1 + (z / np.float32(reach)) ** 2)
