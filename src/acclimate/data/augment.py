"""Weak and strong views: which part of an image is seen, and how its look and shape are disturbed.

Photometric operations change the picture, geometric ones are gathered into one matrix in the order
drawn and applied once, so that labels and features can follow exactly (RandAugment, Cubuk et al. 2020;
cutout, DeVries and Taylor 2017). All randomness comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from acclimate.data.geometry import Geometry, Size, affine, scaled_size
from acclimate.recipe import Augment, Data

BLUR_SIGMA = (0.15, 1.15)
"""Range of the Gaussian blur in pixels of the crop."""

PHOTOMETRIC: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "solarize": lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "colour": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
}
"""RandAugment operations on the look; strength in -1 … 1, where 0 changes nothing or least."""

GEOMETRIC: dict[str, Callable[[float, Size], np.ndarray]] = {
    "shear_x": lambda strength, hw: affine("shear_x", 0.3 * strength, hw),
    "shear_y": lambda strength, hw: affine("shear_y", 0.3 * strength, hw),
    "translate_x": lambda strength, hw: affine("translate_x", 0.3 * strength * hw[1], hw),
    "translate_y": lambda strength, hw: affine("translate_y", 0.3 * strength * hw[0], hw),
    "rotate": lambda strength, hw: affine("rotate", 30 * strength, hw),
}
"""RandAugment operations on the shape, as 3x3 matrices for a picture of size ``hw``."""

_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

OPERATIONS = (*PHOTOMETRIC, *GEOMETRIC)


def sample_weak(image_hw: Size, data: Data, flip: bool, rng: np.random.Generator) -> Geometry:
    """A random weak view: scale within ``data.scale``, position uniform, mirrored half of the time if ``flip``.

    A scaled image smaller than the crop lies at a random place within it.
    """
    scaled_hw = scaled_size(image_hw, data.width * rng.uniform(*data.scale))
    spare = [scaled - crop for scaled, crop in zip(scaled_hw, data.crop, strict=True)]
    top, left = (int(rng.integers(min(s, 0), max(s, 0) + 1)) for s in spare)
    return Geometry.crop(image_hw, scaled_hw, (top, left), data.crop, flip and rng.random() < 0.5)


def strong_view(
    crop_HWC: np.ndarray, weak: Geometry, choices: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, Geometry]:
    """A random strong view of the weak view ``crop_HWC`` (uint8), and where its pixels come from."""
    image = blur_and_jitter(Image.fromarray(crop_HWC), choices, rng)
    to_weak = affine("flip", 0, weak.view_hw) if choices.flip and rng.random() < 0.5 else np.eye(3)
    for name in rng.choice(OPERATIONS, choices.operations):
        strength = choices.magnitude * rng.uniform(-1, 1)
        if name in PHOTOMETRIC:
            image = PHOTOMETRIC[name](image, strength)
        else:
            to_weak = to_weak @ GEOMETRIC[name](strength, weak.view_hw)
    strong = weak.then(to_weak, _cutout(weak.view_hw, choices.cutout, rng))
    return strong.image_from_parent(np.asarray(image)), strong


def blur_and_jitter(image: Image.Image, choices: Augment, rng: np.random.Generator) -> Image.Image:
    """The start of a strong view: a blur, and a change of brightness, contrast, saturation and hue."""
    if rng.random() < choices.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_SIGMA)))
    brightness, contrast, saturation, hue = 1 + choices.jitter * rng.uniform(-1, 1, size=4)
    if choices.jitter == 0:
        return image
    # Each of the four is linear in (R, G, B), so that they are one matrix and one pass over the picture.
    mix_33 = brightness * contrast * _saturated(saturation) @ _hue_turned((hue - 1) / 4)
    grey = brightness * (1 - contrast) * np.asarray(image.convert("L")).mean()
    return image.convert("RGB", np.column_stack([mix_33, np.full(3, grey)]).ravel().tolist())


def _saturated(factor: float) -> np.ndarray:
    """3x3 on RGB: colours moved away from (above 1) or towards grey of their own luminance."""
    return factor * np.eye(3) + (1 - factor) * _RGB_TO_YIQ[0]


def _hue_turned(turn: float) -> np.ndarray:
    """3x3 on RGB: hues moved along the colour circle by ``turn`` (1: once around) at equal luminance."""
    cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    return np.linalg.inv(_RGB_TO_YIQ) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]] @ _RGB_TO_YIQ


def _cutout(hw: Size, largest: float, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """A random rectangle within ``hw`` with sides of up to ``largest`` times its own."""
    height, width = (round(side * largest * rng.random()) for side in hw)
    y0, x0 = int(rng.integers(hw[0] - height + 1)), int(rng.integers(hw[1] - width + 1))
    return (y0, x0, y0 + height, x0 + width) if height and width else None
