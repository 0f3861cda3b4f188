"""From canvas to picture: light, air, lens and file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Lens, Light, Style


def develop(canvas: Canvas, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The finished image (uint8 HWC) and label (uint8 HW) at half the canvas' size."""
    colour = _air(_light(canvas, style.light), canvas, style.light)
    if style.light.wet:
        _mirror(colour, canvas, style.light.wet)
    label = canvas.label.copy()
    if style.view.bonnet:
        _bonnet(colour, label, style.view.bonnet)
    h, w = label.shape
    half = colour.reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3))
    return _photograph(half, style.lens, rng), np.ascontiguousarray(label[1::2, 1::2])


def _light(canvas: Canvas, light: Light) -> np.ndarray:
    """Albedo times light; the sky shines by itself."""
    arriving = canvas.open[..., None] * np.asarray(light.ambient, np.float32)
    arriving += canvas.sun[..., None] * np.asarray(light.sun, np.float32)
    arriving[np.isinf(canvas.depth)] = 1
    return np.multiply(arriving, canvas.albedo, out=arriving)


def _air(colour: np.ndarray, canvas: Canvas, light: Light) -> np.ndarray:
    """Atmospheric perspective: distance fades into the horizon's colour."""
    clear = np.exp(canvas.depth * np.float32(-light.haze))
    clear[np.isinf(canvas.depth)] = 1
    horizon = np.asarray(light.horizon, np.float32)
    colour -= horizon
    colour *= clear[..., None]
    colour += horizon
    return colour


def _mirror(colour: np.ndarray, canvas: Canvas, wet: float) -> None:
    """Puddled ground reflects what stands above it: rows are mirrored at the foot of each column's scenery."""
    h, w = canvas.label.shape
    ground = np.isin(canvas.label, (Class.ROAD, Class.PAVEMENT))
    row = np.arange(h)[:, None]
    foot = np.where(ground, h, row).copy()
    above = np.maximum.accumulate(np.where(ground, -1, row), axis=0)
    source = np.clip(2 * above - row, 0, h - 1)
    reflected = colour[source, np.broadcast_to(np.arange(w), (h, w))]
    smeared = (reflected + np.roll(reflected, 5, 0) + np.roll(reflected, -5, 0)) / 3
    usable = (ground & (above >= 0) & (foot == h))[..., None]
    fresnel = (
        np.float32(wet) * np.exp(-(row - canvas.camera.centre[1]).clip(0) / (0.45 * h)).astype(np.float32)[..., None]
    )
    np.copyto(colour, (0.92 - 0.25 * wet) * (1 - fresnel) * colour + fresnel * smeared, where=usable)


def _bonnet(colour: np.ndarray, label: np.ndarray, height: float) -> None:
    """The own car's bonnet: a dark arch at the lower edge, not scored."""
    h, w = label.shape
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    top = h * (1 - height * np.sqrt(np.clip(1 - x * x * 1.1, 0, 1)))
    rows = np.arange(h, dtype=np.float32)[:, None]
    mask = rows > top
    tone = 0.10 + 0.25 * np.exp(-(rows - top) / 5)
    np.copyto(colour, np.broadcast_to(tone[..., None], colour.shape), where=mask[..., None])
    label[mask] = Class.VOID


def _photograph(colour: np.ndarray, lens: Lens, rng: np.random.Generator) -> np.ndarray:
    """Exposure, colour response, vignetting, blur, noise, 8 bits, JPEG."""
    h, w, _ = colour.shape
    if lens.exposure:
        colour = colour * np.float32(lens.exposure / float(colour.mean()))
    grey = colour.mean(2, keepdims=True)
    colour = grey + np.float32(lens.saturation) * (colour - grey)
    if lens.vignette:
        y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
        colour = colour * (1 - np.float32(lens.vignette) * (x * x + y * y) / 2)[..., None]
    colour = np.clip(colour * np.asarray(lens.gain, np.float32), 0, 1) ** np.float32(lens.gamma)
    if lens.motion:
        first = -(lens.motion // 2)
        colour = np.mean([np.roll(colour, step, 1) for step in range(first, first + lens.motion)], axis=0)
    if lens.blur:
        image = Image.fromarray((colour * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(lens.blur))
        colour = np.asarray(image, np.float32) / 255
    if lens.noise:
        shot = np.float32(lens.noise) * (0.5 + colour)
        colour = colour + shot * rng.standard_normal(colour.shape, dtype=np.float32)
    pixels = (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
    return _compress(pixels, lens.quality) if lens.quality else pixels


def _compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))
