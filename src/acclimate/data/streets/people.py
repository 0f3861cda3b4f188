"""People on foot and on bicycles: flat figures that face the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acclimate.data.streets.canvas import Canvas, Face
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Colour, Palette, shaded

SKIN: Palette = ((0.92, 0.74, 0.60), (0.78, 0.56, 0.42), (0.50, 0.34, 0.25))
HAIR: Palette = ((0.12, 0.09, 0.07), (0.36, 0.22, 0.12), (0.62, 0.48, 0.26), (0.5, 0.5, 0.5))
STEEL: Colour = (0.5, 0.5, 0.5)
TYRE: Colour = (0.07, 0.07, 0.08)
TUBES = (
    ((-0.54, 0.35), (-0.05, 0.33)), ((-0.05, 0.33), (-0.18, 0.86)), ((-0.18, 0.82), (0.4, 0.84)),
    ((-0.05, 0.33), (0.4, 0.84)), ((0.54, 0.35), (0.38, 1.02)), ((-0.54, 0.35), (-0.17, 0.8)),
)  # fmt: skip
SPOKES = ((1.0, 0.0), (0.0, 1.0), (0.7, 0.7), (0.7, -0.7))
Point = tuple[float, float]
Shape = tuple[Sequence[Point], Colour | None]


def bar(a: Point, b: Point, thick: float, thin: float | None = None) -> list[Point]:
    """A limb or tube from a to b, ``thick`` wide at a and ``thin`` at b."""
    thin = thick if thin is None else thin
    (ax, ay), (bx, by) = a, b
    double = 2 * max(math.hypot(bx - ax, by - ay), 1e-6)
    dx, dy = (ay - by) / double, (bx - ax) / double
    return [
        (ax + dx * thick, ay + dy * thick),
        (bx + dx * thin, by + dy * thin),
        (bx - dx * thin, by - dy * thin),
        (ax - dx * thick, ay - dy * thick),
    ]


def disc(x: float, y: float, rx: float, ry: float, count: int = 12) -> list[Point]:
    """An ellipse around (x, y)."""
    angles = (2 * math.pi * i / count for i in range(count))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _pick(rng: np.random.Generator, palette: Palette) -> Colour:
    return palette[rng.integers(len(palette))]


def walker(rng: np.random.Generator, clothes: Palette) -> list[Shape]:
    """A standing or walking person, 1.7 m high, feet at the origin."""
    stride, swing = rng.uniform(0.04, 0.28), rng.uniform(0.02, 0.2)
    top, bottom, skin, hair = _pick(rng, clothes), shaded(_pick(rng, clothes), 0.7), _pick(rng, SKIN), _pick(rng, HAIR)
    shoe = (0.10, 0.09, 0.09)
    hip = 0.88
    shapes: list[Shape] = [
        (bar((0.17, 1.36), (0.26 + swing, 0.92), 0.11, 0.08), shaded(top, 0.8)),
        (bar((0.06, hip), (stride, 0.05), 0.17, 0.11), shaded(bottom, 0.8)),
        (bar((-0.06, hip), (-stride, 0.05), 0.17, 0.11), bottom),
        (bar((stride - 0.04, 0.04), (stride + 0.13, 0.04), 0.09), shoe),
        (bar((-stride - 0.04, 0.04), (-stride + 0.13, 0.04), 0.09), shoe),
    ]
    hem = hip - (rng.uniform(0.2, 0.45) if rng.random() < 0.35 else 0.06)  # a coat or a skirt
    shapes += [
        ([(-0.22, 1.44), (0.22, 1.44), (0.19, 1.1), (0.22, hem), (-0.22, hem), (-0.19, 1.1)], top),
        ([(0.04, 1.44), (0.22, 1.44), (0.19, 1.1), (0.22, hem), (0.08, hem)], shaded(top, 0.82)),
        (bar((0, 1.42), (0, 1.54), 0.11), shaded(skin, 0.85)),
        (disc(0, 1.62, 0.105, 0.135), skin),
        ([(x, max(y, 1.63)) for x, y in disc(0, 1.65, 0.118, 0.125)], hair),
        (bar((-0.2, 1.38), (-0.24 - swing, 0.9), 0.11, 0.08), shaded(top, 0.92)),
        (disc(-0.25 - swing, 0.86, 0.05, 0.06, 8), skin),
    ]
    if rng.random() < 0.35:
        shapes.append((bar((0.28, 0.78), (0.28, 0.5), 0.22), _pick(rng, clothes)))
    return shapes


def _bicycle(frame: Colour) -> list[Shape]:
    """From the side, front to the right; the gaps in the wheels show what lies behind."""
    shapes: list[Shape] = []
    for x in (-0.54, 0.54):
        shapes += [(disc(x, 0.35, 0.35, 0.35, 18), TYRE), (disc(x, 0.35, 0.30, 0.30, 18), None)]
        shapes += [(bar((x - 0.3 * c, 0.35 - 0.3 * s), (x + 0.3 * c, 0.35 + 0.3 * s), 0.012), STEEL) for c, s in SPOKES]
    shapes += [(bar(a, b, 0.045), frame) for a, b in TUBES]
    return [*shapes, (bar((0.3, 1.04), (0.46, 1.04), 0.04), TYRE), (bar((-0.28, 0.89), (-0.06, 0.89), 0.06), TYRE)]


def _leg(pedal: float, colour: Colour) -> list[Shape]:
    return [
        (bar((-0.15, 0.92), (0.17, 0.66 + pedal), 0.17, 0.14), colour),
        (bar((0.17, 0.66 + pedal), (-0.02, 0.22 + pedal), 0.13, 0.1), colour),
    ]


def rider(rng: np.random.Generator, clothes: Palette) -> list[Shape]:
    """A cyclist seen from the side, riding to the right; wheels on the ground."""
    top, bottom, skin, frame = (
        _pick(rng, clothes),
        shaded(_pick(rng, clothes), 0.7),
        _pick(rng, SKIN),
        _pick(rng, clothes),
    )
    pedal, helmet = rng.uniform(-0.14, 0.14), _pick(rng, HAIR if rng.random() < 0.5 else clothes)
    return [
        *_leg(-pedal, shaded(bottom, 0.7)),
        *_bicycle(frame),
        *_leg(pedal, bottom),
        (bar((-0.17, 0.9), (0.1, 1.42), 0.27, 0.3), top),
        (bar((0.1, 1.36), (0.38, 1.07), 0.11, 0.08), shaded(top, 0.85)),
        (disc(0.19, 1.6, 0.1, 0.13), skin),
        ([(x, max(y, 1.61)) for x, y in disc(0.18, 1.63, 0.13, 0.14)], helmet),
    ]


def rider_from_behind(rng: np.random.Generator, clothes: Palette) -> list[Shape]:
    """A cyclist seen from behind or from the front."""
    top, bottom, skin = _pick(rng, clothes), shaded(_pick(rng, clothes), 0.7), _pick(rng, SKIN)
    pedal = rng.uniform(-0.12, 0.12)
    return [
        (bar((0, 0), (0, 0.7), 0.08), (0.07, 0.07, 0.08)),
        (bar((-0.28, 1.02), (0.28, 1.02), 0.05), (0.1, 0.1, 0.1)),
        (bar((-0.1, 0.95), (-0.15, 0.28 + pedal), 0.18, 0.12), bottom),
        (bar((0.1, 0.95), (0.15, 0.28 - pedal), 0.18, 0.12), shaded(bottom, 0.85)),
        ([(-0.18, 0.88), (0.18, 0.88), (0.24, 1.44), (-0.24, 1.44)], top),
        ([(0.03, 0.88), (0.18, 0.88), (0.24, 1.44), (0.05, 1.44)], shaded(top, 0.82)),
        (bar((-0.22, 1.38), (-0.3, 1.04), 0.11, 0.08), shaded(top, 0.9)),
        (bar((0.22, 1.38), (0.3, 1.04), 0.11, 0.08), shaded(top, 0.78)),
        (disc(0, 1.6, 0.1, 0.13), skin),
        (
            [(x, max(y, 1.58)) for x, y in disc(0, 1.63, 0.125, 0.14)],
            _pick(rng, HAIR if rng.random() < 0.5 else clothes),
        ),
    ]


def draw_flat(canvas: Canvas, shapes: Sequence[Shape], x: float, z: float, label: Class, scale: float = 1.0) -> None:
    """Draw shapes (metres, facing the camera; a negative ``scale`` mirrors) standing at (x, z)."""
    ground = float(canvas.camera.ground(z))
    faces = []
    for points, colour in shapes:
        flat = np.asarray(points, float)
        place = np.stack([x + scale * flat[:, 0], ground + abs(scale) * flat[:, 1], np.full(len(flat), z)], 1)
        faces.append(Face(place, colour, label))
    canvas.figure(faces, z)
