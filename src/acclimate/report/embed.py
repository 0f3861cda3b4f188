"""Pictures inside the page: small files, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from acclimate.labels import IGNORE, LabelSpace

WIDEST = 640
"""Pixels that a picture has at most: sharp on a phone, and a page of some megabytes."""

RIGHT, SPOILED, STILL_WRONG = (0, 158, 142), (230, 97, 0), (148, 130, 220)
"""What a correction did, told apart by people who see red and green alike, too."""

_HEAT = np.array([(10, 12, 40), (70, 25, 110), (165, 45, 105), (235, 105, 65), (252, 225, 140)], np.float32)


def fitted(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture of that size in the page."""
    height, width = size_hw
    factor = min(1.0, WIDEST / max(width, height))
    return max(1, round(height * factor)), max(1, round(width * factor))


def photo(image_HWC: np.ndarray) -> str:
    """A photo (uint8 HWC) as JPEG."""
    return _uri(Image.fromarray(image_HWC), "JPEG", quality=80, optimize=True, progressive=True)


def labels(label_HW: np.ndarray, space: LabelSpace) -> str:
    """A label map in the classes' colours, as a palette PNG; ignored pixels are transparent."""
    return _palette(label_HW, space.palette(), IGNORE)


def changes(before_HW: np.ndarray, after_HW: np.ndarray, truth_HW: np.ndarray | None, space: LabelSpace) -> str:
    """Where labels changed: what came of it if the truth is known, else the new classes; the rest is transparent."""
    changed_HW = before_HW != after_HW
    if truth_HW is None:
        return labels(np.where(changed_HW, after_HW, IGNORE).astype(np.uint8), space)
    kind_HW = np.full(before_HW.shape, 2, np.uint8)
    kind_HW[after_HW == truth_HW] = 0
    kind_HW[before_HW == truth_HW] = 1
    kind_HW[~changed_HW | (truth_HW == IGNORE)] = 3
    return _palette(kind_HW, bytes([*RIGHT, *SPOILED, *STILL_WRONG, 0, 0, 0]), 3)


def heat(value_HW: np.ndarray) -> str:
    """Values in 0 … 1 from dark to bright, at a quarter of the size: they are smooth, and the browser enlarges them."""
    height, width = value_HW.shape
    level_HW = np.rint(np.clip(value_HW, 0, 1) * 255).astype(np.uint8)
    small = Image.fromarray(level_HW).resize((max(1, width // 4), max(1, height // 4)), Image.Resampling.BOX)
    small = Image.fromarray(np.asarray(small) // 4)  # 64 steps are enough to look at
    small.putpalette(np.rint(_ramp(64)).astype(np.uint8).tobytes())
    return _uri(small, "PNG", optimize=True)


def ramp(stops: int = 5) -> list[str]:
    """Colours of `heat` from 0 to 1, for the style sheet."""
    return ["#{:02x}{:02x}{:02x}".format(*(round(float(part)) for part in row)) for row in _ramp(stops)]


def _ramp(count: int) -> np.ndarray:
    at = np.linspace(0, len(_HEAT) - 1, count)
    return np.stack([np.interp(at, np.arange(len(_HEAT)), channel) for channel in _HEAT.T], axis=1)


def _palette(index_HW: np.ndarray, palette: bytes, transparent: int) -> str:
    picture = Image.fromarray(index_HW)
    picture.putpalette(palette)
    return _uri(picture, "PNG", optimize=True, transparency=transparent)


def _uri(picture: Image.Image, kind: str, **how: object) -> str:
    held = io.BytesIO()
    picture.save(held, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
