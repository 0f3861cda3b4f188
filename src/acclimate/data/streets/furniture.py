"""What stands along a street: lamps, traffic signs, fences, bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acclimate.data.streets.canvas import Canvas, Face
from acclimate.data.streets.classes import Class
from acclimate.data.streets.people import Point, bar, disc
from acclimate.data.streets.style import Colour, Light, Materials, mixed, shaded
from acclimate.data.streets.texture import cell, grain, visible

GREY: Colour = (0.45, 0.45, 0.45)
STEEL: Colour = (0.48, 0.50, 0.52)
RED, BLUE, WHITE, YELLOW, BLACK = (
    (0.80, 0.08, 0.08),
    (0.08, 0.26, 0.72),
    (0.95, 0.95, 0.93),
    (0.95, 0.76, 0.10),
    (0.05, 0.05, 0.05),
)


def _stand(canvas: Canvas, shapes, x: float, z: float) -> list[Face]:
    """World faces of (points, colour, class) in metres around a foot at (x, z)."""
    ground = float(canvas.camera.ground(z))
    faces = []
    for points, colour, label in shapes:
        flat = np.asarray(points, float)
        faces.append(Face(np.stack([x + flat[:, 0], ground + flat[:, 1], np.full(len(flat), z)], 1), colour, label))
    return faces


def draw_lamp(canvas: Canvas, x: float, z: float, height: float, colour: Colour, light: Light) -> None:
    """A street lamp that reaches over the road."""
    arm = -np.sign(x) * 1.6
    glow = (1.0, 0.9, 0.6) if light.lit > 0.15 else (0.82, 0.84, 0.84)
    shapes = [
        (bar((0, -0.1), (0, height), 0.28, 0.17), colour, Class.POLE),
        (bar((0.03, -0.1), (0.04, height), 0.10, 0.06), shaded(colour, 1.3), Class.POLE),
        (bar((0, -0.1), (0, 1.0), 0.38, 0.34), shaded(colour, 0.8), Class.POLE),
        (bar((0, height), (arm, height + 0.35), 0.13, 0.10), colour, Class.POLE),
        (bar((arm * 0.8, height + 0.3), (arm * 1.3, height + 0.36), 0.2, 0.12), colour, Class.POLE),
        (bar((arm * 0.85, height + 0.22), (arm * 1.25, height + 0.28), 0.08), glow, Class.POLE),
    ]
    canvas.figure(_stand(canvas, shapes, x, z), z)


def _scaled(points: Sequence[Point], width: float, height: float) -> list[Point]:
    return [(x * width, y * height) for x, y in points]


def _plates() -> dict[str, list[tuple[list[Point], Colour]]]:
    """Sign faces of about 0.8 m around the origin."""
    triangle, octagon, round_ = (
        [(-0.42, -0.36), (0.42, -0.36), (0.0, 0.40)],
        disc(0, 0, 0.40, 0.40, 8),
        disc(0, 0, 0.38, 0.38, 16),
    )
    square, diamond = (
        [(-0.36, -0.36), (0.36, -0.36), (0.36, 0.36), (-0.36, 0.36)],
        [(-0.47, 0.0), (0.0, -0.47), (0.47, 0.0), (0.0, 0.47)],
    )
    arrow = [(-0.8, -0.2), (0.62, -0.2), (0.85, 0.0), (0.62, 0.2), (-0.8, 0.2)]
    board = _scaled(square, 2.5, 1.25)
    digits = [(bar((-0.1, -0.13), (-0.1, 0.13), 0.08), BLACK), (disc(0.09, 0, 0.09, 0.13), BLACK)]
    lines = [(bar((-0.7, 0.2), (0.5, 0.2), 0.12), WHITE), (bar((-0.7, -0.15), (0.2, -0.15), 0.12), WHITE)]
    return {
        "warning": [(triangle, RED), (_scaled(triangle, 0.6, 0.6), WHITE), (bar((0, -0.13), (0, 0.08), 0.07), BLACK)],
        "limit": [(round_, RED), (_scaled(round_, 0.74, 0.74), WHITE), *digits],
        "entry": [(round_, RED), (bar((-0.26, 0), (0.26, 0), 0.14), WHITE)],
        "stop": [(octagon, WHITE), (_scaled(octagon, 0.9, 0.9), RED), (bar((-0.24, 0), (0.24, 0), 0.13), WHITE)],
        "crossing": [(square, BLUE), (_scaled(triangle, 0.6, 0.6), WHITE)],
        "turn": [
            (round_, BLUE),
            (bar((-0.16, -0.2), (0.12, 0.12), 0.1), WHITE),
            ([(0.2, 0.2), (-0.02, 0.2), (0.2, -0.04)], WHITE),
        ],
        "priority": [(diamond, WHITE), (_scaled(diamond, 0.72, 0.72), YELLOW)],
        "arrow": [(arrow, WHITE), (_scaled(arrow, 0.93, 0.8), BLUE), (bar((-0.6, 0), (0.45, 0), 0.1), WHITE)],
        "board": [(board, WHITE), (_scaled(board, 0.95, 0.9), BLUE), *lines],
    }


PLATES = _plates()


def draw_sign(canvas: Canvas, x: float, z: float, plate: str, height: float, dull: float) -> None:
    """A traffic sign on its pole, a little larger than life; ``dull`` greys its colours."""
    shapes = [(bar((0, -0.1), (0, height + 0.3), 0.11), STEEL, Class.POLE)]
    for points, colour in PLATES[plate]:
        shapes.append(([(1.2 * px, 1.2 * py + height) for px, py in points], mixed(colour, GREY, dull), Class.SIGN))
    canvas.figure(_stand(canvas, shapes, x, z), z)


def draw_bin(canvas: Canvas, x: float, z: float, colour: Colour) -> None:
    """Street clutter that belongs to no class."""
    shapes = [
        ([(-0.27, 0), (0.27, 0), (0.31, 0.95), (-0.31, 0.95)], colour, Class.VOID),
        ([(0.05, 0), (0.27, 0), (0.31, 0.95), (0.08, 0.95)], shaded(colour, 0.75), Class.VOID),
        ([(-0.34, 0.93), (0.34, 0.93), (0.30, 1.06), (-0.30, 1.06)], shaded(colour, 0.6), Class.VOID),
    ]
    canvas.figure(_stand(canvas, shapes, x, z), z)


def _picket(s: np.ndarray, t: np.ndarray, height: float) -> np.ndarray:
    across = s % 0.16
    pointed = t < height - 0.1 * np.abs(across - 0.055) / 0.055
    return (across < 0.11) & pointed | (np.abs(t - 0.3 * height) < 0.05) | (np.abs(t - 0.75 * height) < 0.05)


def _wire(s: np.ndarray, t: np.ndarray, height: float) -> np.ndarray:
    return ((s + t) % 0.22 < 0.03) | ((s - t) % 0.22 < 0.03) | (t > height - 0.06)


def _bars(s: np.ndarray, t: np.ndarray, height: float) -> np.ndarray:
    return (s % 0.18 < 0.06) | (np.abs(t - 0.12) < 0.05) | (t > height - 0.18) & (t < height - 0.06)


_PATTERNS = {
    "picket": _picket,
    "panel": lambda s, t, height: np.ones(len(s), bool),
    "rail": lambda s, t, height: np.abs(t / height % 0.34 - 0.28) < 0.06,
    "wire": _wire,
    "bars": _bars,
}
"""Where a fence is solid, of (metres along, metres up, height)."""
FENCES = tuple(_PATTERNS)


def draw_fence(
    canvas: Canvas, start: Point, end: Point, kind: str, height: float, colour: Colour, materials: Materials, salt: int
) -> None:
    """A fence from (x, z) to (x, z); what shows between its bars still counts as fence."""
    a, b = (np.array([p[0], float(canvas.camera.ground(max(p[1], 0))), p[1]]) for p in (start, end))
    along = (b - a) / np.linalg.norm(b - a)
    up = np.array([0, height, 0])

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        post = (s % 2.0) < 0.12
        board = cell(np.floor(s / 0.16), s * 0, salt) - 0.5
        value = 1 + visible(z, 15) * (0.25 * board + 0.1 * materials.texture * grain(s, t, 24, salt)) - 0.15 * post
        if kind == "panel":
            value = value - 0.3 * visible(z, 15) * ((s % 0.16) < 0.02)
        painted = np.asarray(colour, np.float32) * value[:, None]
        painted[~(_PATTERNS[kind](s, t, height) | post)] = np.nan
        return painted

    canvas.surface(np.array([a, b, b + up, a + up]), along, np.array([0.0, 1.0, 0.0]), paint, Class.FENCE)
