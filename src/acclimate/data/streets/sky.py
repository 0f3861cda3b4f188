"""What lies behind everything: the sky and a far skyline."""

from __future__ import annotations

import numpy as np

from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Light, Materials
from acclimate.data.streets.texture import clouds, grain


def paint_sky(canvas: Canvas, light: Light, salt: int) -> None:
    """Fill what nothing covers: a gradient, clouds in perspective, the sun's glow."""
    at = np.flatnonzero(np.isinf(canvas.depth))
    ray_x, ray_y = canvas.ray_x.ravel()[at], canvas.ray_y.ravel()[at]
    up = np.clip(ray_y, 0, None)
    blend = np.clip(up / 0.55, 0, 1)[:, None] ** 0.7
    colour = (1 - blend) * np.asarray(light.horizon, np.float32) + blend * np.asarray(light.zenith, np.float32)
    plane = 1 / (up + 0.12)
    shape = clouds(ray_x * plane, plane * 1.6, 26, salt) + 0.25 * clouds(ray_x * plane, plane * 1.6, 90, salt + 1)
    threshold = 1.5 - 2.6 * light.cover
    density = np.clip((shape - threshold) / 1.1, 0, 1)
    lit = np.clip(0.88 + 0.12 * (shape - threshold), 0.7, 1.05)
    cover = (density * np.clip(up / 0.06, 0, 1) * (0.9 if light.cover < 0.8 else 0.6))[:, None]
    colour = colour + cover * (np.asarray(light.cloud, np.float32) * lit[:, None] - colour)
    x, y, z = light.direction
    cosine = (ray_x * x + ray_y * y + z) / np.sqrt(ray_x * ray_x + ray_y * ray_y + 1)
    glow = np.clip(cosine, 0, 1) ** 12 * max(light.sun[0] - 0.3, 0)
    canvas.albedo.reshape(-1, 3)[at] = colour + glow[:, None] * np.asarray([1, 0.8, 0.5], np.float32)
    canvas.label.ravel()[at] = Class.SKY


def paint_backdrop(canvas: Canvas, materials: Materials, rng: np.random.Generator) -> None:
    """A far skyline of trees or roofs where the ground ends."""
    angle = canvas.ray_x
    height = 0.02 + 0.012 * clouds(angle * 1, angle * 0 + 3, 60, int(rng.integers(99)))
    built = rng.random() < 0.4
    if built:
        block = np.floor(angle * 22).astype(np.int32)
        height = 0.012 + 0.03 * ((block * 7919 + int(rng.integers(999))) % 13) / 13
    here = np.isinf(canvas.depth) & (canvas.ray_y < height)
    rows, columns = np.nonzero(here)
    colour = materials.walls[0] if built else materials.leaves[0]
    tone = 0.8 + 0.1 * grain(angle[rows, columns], canvas.ray_y[rows, columns], 300)
    canvas.albedo[rows, columns] = np.asarray(colour, np.float32) * tone[:, None]
    canvas.label[rows, columns] = Class.BUILDING if built else Class.VEGETATION
    canvas.depth[rows, columns] = 190
    canvas.sun[rows, columns] = 0.6
