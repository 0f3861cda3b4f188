"""Colour statistics: giving source images the CIELAB mean and spread of target images.

After Reinhard et al., "Color transfer between images" (2001), with CIELAB for D65 white, as CPSL
matches GTA5 to Cityscapes. Both conversions look their power functions up in tables.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from acclimate.data.datasets import ImageSet
from acclimate.files import atomic

SAMPLE_WIDTH = 128
"""Statistics of image sets are taken from images reduced to at most this width."""

LEAST_SPREAD = 0.5
"""Smaller standard deviations (in LAB units) are rounding noise, which a transfer must not blow up."""

_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees
_TO_XYZ = (_RGB_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)
_FROM_XYZ = np.linalg.inv(_RGB_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)

# (f(X), f(Y), f(Z)) → L, a, b: L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z))
_TO_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], dtype=np.float32).T
_FROM_LAB = np.linalg.inv(_TO_LAB.astype(np.float64)).astype(np.float32)
_L_OFFSET = np.array([16, 0, 0], dtype=np.float32)

_STEPS = 1 << 16  # resolution of the tables over 0 … 1
_KINK = np.float32(0.2068966)  # CIE's f is linear below
_CHUNK = 1 << 14  # pixels that are recoloured at a time: what is computed of them stays in the processor's cache


def _table_of_light() -> np.ndarray:
    """sRGB grey level 0 … 255 → linear light 0 … 1."""
    level = np.arange(256) / 255
    return np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92).astype(np.float32)


def _table_of_f() -> np.ndarray:
    """Step of X, Y or Z relative to white → CIE's f."""
    t = np.arange(_STEPS + 2) / _STEPS  # white itself may round to one step above 1
    return np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116).astype(np.float32)


def _table_of_levels() -> np.ndarray:
    """Step of linear light → sRGB grey level."""
    light = np.arange(_STEPS + 1) / _STEPS
    level = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.rint(255 * level).astype(np.uint8)


_LIGHT, _F, _LEVEL = _table_of_light(), _table_of_f(), _table_of_levels()


class Statistics(NamedTuple):
    """Of an image in CIELAB: L 0 … 100, a and b about -100 … 100."""

    mean: np.ndarray
    """(3,)"""
    std: np.ndarray
    """(3,), of the population"""


def to_lab(image_HWC: np.ndarray) -> np.ndarray:
    """Uint8 sRGB → float32 CIELAB, HWC."""
    return _to_f(image_HWC) @ _TO_LAB - _L_OFFSET


def from_lab(lab_HWC: np.ndarray) -> np.ndarray:
    """Float32 CIELAB → uint8 sRGB, HWC; colours outside sRGB are clipped."""
    return _from_f((lab_HWC + _L_OFFSET) @ _FROM_LAB)


def lab_statistics(image_HWC: np.ndarray) -> Statistics:
    """Mean and standard deviation of each CIELAB channel of an uint8 RGB image."""
    lab_N3 = to_lab(image_HWC).reshape(-1, 3)
    return Statistics(lab_N3.mean(0), lab_N3.std(0))


def transfer(image_HWC: np.ndarray, own: Statistics, wanted: Statistics) -> np.ndarray:
    """The image (or a crop of it) with the ``wanted`` statistics in place of its ``own``; uint8 HWC."""
    gain = np.maximum(wanted.std, LEAST_SPREAD) / np.maximum(own.std, LEAST_SPREAD)
    # CIELAB is linear in f, and so is the transfer in CIELAB: one product leads from f to f.
    matrix_33 = (_TO_LAB * gain @ _FROM_LAB).astype(np.float32)
    shift_3 = ((wanted.mean + _L_OFFSET - (own.mean + _L_OFFSET) * gain) @ _FROM_LAB).astype(np.float32)
    pixels_N3 = image_HWC.reshape(-1, 3)
    result_N3 = np.empty_like(pixels_N3)
    for start in range(0, len(pixels_N3), _CHUNK):
        part = slice(start, start + _CHUNK)
        result_N3[part] = _from_f(_to_f(pixels_N3[part]) @ matrix_33 + shift_3)
    return result_N3.reshape(image_HWC.shape)


def _to_f(image: np.ndarray) -> np.ndarray:
    """Uint8 sRGB → CIE's f of X, Y and Z, float32; the last axis is the colour."""
    step = _LIGHT.take(image) @ (_TO_XYZ * _STEPS)
    step += 0.5
    return _F.take(step.astype(np.intp))


def _from_f(f: np.ndarray) -> np.ndarray:
    """The inverse of `_to_f`, clipped to what sRGB has. Uses ``f`` up."""
    np.maximum(f[..., 2], 0, out=f[..., 2])  # no less blue than none, as scikit-image has it
    xyz = np.maximum(f, _KINK)
    xyz *= xyz * xyz
    below = np.minimum(f, _KINK, out=f)
    below -= _KINK
    below /= 7.787
    xyz += below
    step = xyz @ (_FROM_XYZ * _STEPS)
    step += 0.5
    return _LEVEL.take(np.clip(step, 0, _STEPS, out=step).astype(np.intp))


def collect(images: ImageSet, cache: Path) -> np.ndarray:
    """Statistics of all images, float32 (n, 2, 3): mean, then standard deviation.

    They are kept in the file ``cache`` (npz) together with the images' names, and computed again when
    the names differ. Images wider than `SAMPLE_WIDTH` are reduced first, which takes a little off the
    spread, in equal measure for both domains.
    """
    names = np.array([sample.name for sample in images.samples])
    known = _cached(cache)
    if known is not None and np.array_equal(known[0], names):
        return known[1]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        statistics = np.array(list(pool.map(lambda i: _of_reduced(images.image(i)), range(len(images)))), np.float32)
    with atomic(cache) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, names=names, statistics=statistics)
    return statistics


def _of_reduced(image_HWC: np.ndarray) -> Statistics:
    factor = -(-image_HWC.shape[1] // SAMPLE_WIDTH)
    return lab_statistics(np.asarray(Image.fromarray(image_HWC).reduce(factor)))


def _cached(cache: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Names and statistics from the file, or nothing where there is no (whole) file: it is then written anew."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            return stored["names"], stored["statistics"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
