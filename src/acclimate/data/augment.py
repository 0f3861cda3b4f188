"""Weak and strong views: which part of an image is seen, and how its look and shape are disturbed.

Photometric operations change the picture, geometric ones are gathered into one matrix in the order
drawn and applied once, so that labels and features can follow exactly (RandAugment, Cubuk et al. 2020;
cutout, DeVries and Taylor 2017). Two policies say what is drawn, ours and that of the official
implementation. All randomness comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from acclimate.data.geometry import Geometry, Size, affine, scaled_size
from acclimate.data.replay import Replay
from acclimate.recipe import Augment, Data

BLUR_SIGMA = (0.15, 1.15)
"""Range of the Gaussian blur in pixels of the crop."""

PHOTOMETRIC: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, value: image,
    "autocontrast": lambda image, value: ImageOps.autocontrast(image),
    "equalize": lambda image, value: ImageOps.equalize(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "colour": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
}
"""RandAugment operations on the look."""

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
"""RandAugment operations on the shape: those of `geometry.affine`."""

OPERATIONS = (*PHOTOMETRIC, *GEOMETRIC)

Values = dict[str, Callable[[float, Size], float]]
"""What a strength in -1 … 1 means for an operation on a picture of some size; left out: nothing to say."""

VALUES: Values = {
    "posterize": lambda strength, hw: 8 - round(4 * abs(strength)),
    "solarize": lambda strength, hw: round(256 * (1 - abs(strength))),
    **dict.fromkeys(("sharpness", "brightness", "contrast", "colour"), lambda strength, hw: 1 + 0.9 * strength),
    "shear_x": lambda strength, hw: 0.3 * strength,
    "shear_y": lambda strength, hw: 0.3 * strength,
    "translate_x": lambda strength, hw: 0.3 * strength * hw[1],
    "translate_y": lambda strength, hw: 0.3 * strength * hw[0],
    "rotate": lambda strength, hw: 30 * strength,
}
"""Ours: strength 0 changes nothing or least."""

OFFICIAL_VALUES: Values = VALUES | {
    "posterize": lambda strength, hw: 4 + int(4 * abs(strength)),
    "solarize": lambda strength, hw: 256 - int(256 * abs(strength)),
    **dict.fromkeys(("sharpness", "brightness", "contrast", "colour"), lambda strength, hw: 0.05 + 0.9 * abs(strength)),
    "translate_x": lambda strength, hw: int(0.3 * strength * hw[1]),
    "translate_y": lambda strength, hw: int(0.3 * strength * hw[0]),
    "rotate": lambda strength, hw: round(30 * strength),
}
"""The official ones, with strengths in tenths: factors stay below 1, strong posterizing leaves most bits."""

_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class StrongView(NamedTuple):
    """A strong view of a crop."""

    image_HWC: np.ndarray
    """Uint8 RGB."""
    geometry: Geometry
    """Where its pixels come from: exact."""
    replay: Replay
    """What the official implementation would remember of it."""


def sample_weak(image_hw: Size, data: Data, flip: bool, rng: np.random.Generator) -> Geometry:
    """A random weak view: scale within ``data.scale``, position uniform, mirrored half of the time if ``flip``.

    A scaled image smaller than the crop lies at a random place within it.
    """
    scaled_hw = scaled_size(image_hw, data.width * rng.uniform(*data.scale))
    spare = [scaled - crop for scaled, crop in zip(scaled_hw, data.crop, strict=True)]
    top, left = (int(rng.integers(min(s, 0), max(s, 0) + 1)) for s in spare)
    return Geometry.crop(image_hw, scaled_hw, (top, left), data.crop, flip and rng.random() < 0.5)


def strong_view(crop_HWC: np.ndarray, weak: Geometry, choices: Augment, rng: np.random.Generator) -> StrongView:
    """A random strong view of the weak view ``crop_HWC`` (uint8)."""
    hw = weak.view_hw
    official = choices.policy == "official"
    look, draw = (official_look, official_operations) if official else (blur_and_jitter, operations)
    image = look(Image.fromarray(crop_HWC), choices, rng)
    mirrored = choices.flip and rng.random() < 0.5
    to_weak = affine("flip", 0, hw) if mirrored else np.eye(3)
    remembered: dict[str, float] = {}
    for name, value in draw(hw, choices, rng):
        if name in PHOTOMETRIC:
            image = PHOTOMETRIC[name](image, value)
        else:
            to_weak = to_weak @ affine(name, value, hw)
            remembered[name] = value
    box = official_cutout(hw, rng) if official else _cutout(hw, choices.cutout, rng)
    if box is not None:
        remembered |= zip(("y0", "x0", "y1", "x1"), box, strict=True)
        if official:  # Pillow draws the last row and column of a rectangle too; the labels' rectangle lacks them
            box = (box[0], box[1], min(box[2] + 1, hw[0]), min(box[3] + 1, hw[1]))
    strong = weak.then(to_weak, box)
    return StrongView(strong.image_from_parent(image), strong, Replay(mirrored, **remembered))


def operations(hw: Size, choices: Augment, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Operations and their values: strengths uniform within the recipe's magnitude."""
    for name in rng.choice(OPERATIONS, choices.operations):
        strength = choices.magnitude * rng.uniform(-1, 1)
        yield str(name), VALUES[name](strength, hw) if name in VALUES else 0.0


def official_operations(hw: Size, choices: Augment, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """As the official code draws: each operation is applied half of the time, with a strength of 1 to 9 tenths."""
    for name in rng.choice(OPERATIONS, choices.operations):
        strength = rng.integers(1, 10) / 10 * rng.choice((-1, 1))
        if rng.random() < 0.5:
            yield str(name), OFFICIAL_VALUES[name](strength, hw) if name in OFFICIAL_VALUES else 0.0


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


def official_look(image: Image.Image, choices: Augment, rng: np.random.Generator) -> Image.Image:
    """The same as the official code has it: a blur of 1 pixel, and half of the time a jitter in random order."""
    if rng.random() < choices.blur:
        image = image.filter(ImageFilter.GaussianBlur(1))
    if choices.jitter and rng.random() < 0.5:
        for name in rng.permutation(["brightness", "contrast", "colour", "hue"]):
            change = rng.uniform(-1, 1)
            if name == "hue":
                image = _hue_shifted(image, min(choices.jitter, 0.5) * change)
            else:
                image = PHOTOMETRIC[name](image, 1 + choices.jitter * change)
    return image


def official_cutout(hw: Size, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """y0, x0, y1, x1 of a square, a third of the shorter side, about a uniform centre.

    Beyond the top and the left edge the square is pushed back in; beyond the others it is cut off.
    """
    side = min(hw) // 3
    x0, y0 = (max(0.0, rng.uniform(0, length) - side / 2) for length in (hw[1], hw[0]))
    return int(y0), int(x0), min(hw[0], int(y0) + side), min(hw[1], int(x0) + side)


def _saturated(factor: float) -> np.ndarray:
    """3x3 on RGB: colours moved away from (above 1) or towards grey of their own luminance."""
    return factor * np.eye(3) + (1 - factor) * _RGB_TO_YIQ[0]


def _hue_turned(turn: float) -> np.ndarray:
    """3x3 on RGB: hues moved along the colour circle by ``turn`` (1: once around) at equal luminance."""
    cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    return np.linalg.inv(_RGB_TO_YIQ) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]] @ _RGB_TO_YIQ


def _hue_shifted(image: Image.Image, turn: float) -> Image.Image:
    """Hues moved along the colour circle by ``turn`` (1: once around) as torchvision does it: in HSV."""
    hue, saturation, value = image.convert("HSV").split()
    shift = int(255 * turn)
    turned = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _cutout(hw: Size, largest: float, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """A random rectangle within ``hw`` with sides of up to ``largest`` times its own."""
    height, width = (round(side * largest * rng.random()) for side in hw)
    y0, x0 = int(rng.integers(hw[0] - height + 1)), int(rng.integers(hw[1] - width + 1))
    return (y0, x0, y0 + height, x0 + width) if height and width else None
