"""Cars: a side profile pulled across the width, with glass, wheels and lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from acclimate.data.streets.canvas import Canvas, Face
from acclimate.data.streets.classes import Class
from acclimate.data.streets.people import disc
from acclimate.data.streets.style import Colour, Light, mixed, shaded

# Side views from front to back: (share of the length from the middle, height in metres, what spans the width
# between the point before and this one).
PROFILES = {
    "hatchback": (
        (0.50, 0.28, ""), (0.50, 0.66, "paint"), (0.27, 0.93, "paint"), (0.06, 1.44, "glass"), (-0.34, 1.46, "paint"),
        (-0.47, 0.98, "glass"), (-0.50, 0.30, "paint"),
    ),
    "saloon": (
        (0.50, 0.28, ""), (0.50, 0.66, "paint"), (0.22, 0.90, "paint"), (0.03, 1.38, "glass"), (-0.20, 1.38, "paint"),
        (-0.36, 0.96, "glass"), (-0.50, 0.90, "paint"), (-0.50, 0.30, "paint"),
    ),
    "estate": (
        (0.50, 0.28, ""), (0.50, 0.70, "paint"), (0.25, 0.96, "paint"), (0.07, 1.48, "glass"), (-0.44, 1.50, "paint"),
        (-0.50, 0.98, "glass"), (-0.50, 0.30, "paint"),
    ),
    "suv": (
        (0.50, 0.36, ""), (0.50, 0.86, "paint"), (0.26, 1.06, "paint"), (0.10, 1.66, "glass"), (-0.42, 1.68, "paint"),
        (-0.49, 1.08, "glass"), (-0.50, 0.40, "paint"),
    ),
    "van": (
        (0.50, 0.34, ""), (0.50, 0.90, "paint"), (0.38, 1.12, "paint"), (0.24, 1.95, "glass"), (-0.49, 2.05, "paint"),
        (-0.50, 1.20, "glass"), (-0.50, 0.36, "paint"),
    ),
}  # fmt: skip
LENGTHS = {"hatchback": 3.9, "saloon": 4.6, "estate": 4.6, "suv": 4.6, "van": 5.2}
GLASS, BLACK, PLATE = (0.17, 0.20, 0.24), (0.10, 0.10, 0.11), (0.92, 0.90, 0.80)
Polygon = list[tuple[float, float, float]]
"""Corners (forward, up, right) in metres around the car's middle."""
Part = tuple[Polygon, Colour, float]
"""Polygon, colour, order."""


@dataclass(frozen=True)
class Car:
    """A car on the ground; ``turn`` is its heading in radians, 0 driving away from the camera."""

    x: float
    z: float
    turn: float
    kind: str
    colour: Colour
    lights: bool

    @property
    def length(self) -> float:
        return LENGTHS[self.kind]

    @property
    def width(self) -> float:
        return 1.9 if self.kind in ("van", "suv") else 1.76

    @property
    def belt(self) -> float:
        """Height at which the windows begin and the body narrows."""
        return max(height for _, height, _ in PROFILES[self.kind] if height < 1.25)

    def place(self, local_N3: np.ndarray, ground: float) -> np.ndarray:
        """World points of (forward, up, right) in metres around the car's middle."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turn = np.array([[sin, 0, cos], [0, 1, 0], [cos, 0, -sin]])
        return np.asarray(local_N3, float) @ turn.T + (self.x, ground, self.z)

    def turned(self, local: np.ndarray) -> np.ndarray:
        """A direction (forward, up, right) of the car in the world's axes."""
        forward, up, right = local
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return np.array([forward * sin + right * cos, up, forward * cos - right * sin])

    def footprint(self) -> np.ndarray:
        half, wide = self.length / 2 - 0.1, self.width / 2
        return self.place(np.array([(half, 0, wide), (half, 0, -wide), (-half, 0, -wide), (-half, 0, wide)]), 0)


def draw_car(canvas: Canvas, car: Car, light: Light) -> None:
    """Draw the parts that face the camera, far ones first."""
    if abs(car.x) > car.z + 6:
        return
    ground = float(canvas.camera.ground(car.z))
    parts = _parts(car)
    ends = np.cumsum([len(polygon) for polygon, _, _ in parts])[:-1]
    corners = np.concatenate([polygon for polygon, _, _ in parts])
    locals_, worlds = np.split(corners, ends), np.split(car.place(corners, ground), ends)
    faces = []
    for (_, colour, order), local, world in zip(parts, locals_, worlds, strict=True):
        middle = world.sum(0) / len(world)
        normal = car.turned(_normal(local))
        if normal @ (middle - (0, canvas.camera.height, 0)) < 0:
            shaded = _shade(colour, normal, middle[1] - ground, canvas.sun_direction, light)
            faces.append((4 * order - math.hypot(middle[0], middle[2]), Face(world, shaded, Class.CAR)))
    faces.sort(key=lambda item: item[0])
    canvas.figure([face for _, face in faces], max(car.z - car.length / 3 * abs(math.cos(car.turn)), 1.0))


def _shade(colour: Colour, normal: np.ndarray, height: float, sun_direction: np.ndarray, light: Light) -> Colour:
    """Colour of a part by its slope: metal takes sun and sky, glass mirrors the sky, lamps shine."""
    if max(colour) > 1:
        return colour
    if colour == GLASS:
        mirror = 0.12 + 0.5 * max(float(normal[1]), 0)
        colour = mixed(GLASS, light.horizon, mirror)
    sun = max(float(normal @ sun_direction), 0) * sum(light.sun) / 3
    shade = 0.68 + 0.28 * float(normal[1]) + 0.6 * sun - 0.12 * (height < 0.5)
    return shaded(colour, shade)


def _normal(local_N3: np.ndarray) -> np.ndarray:
    """Outward unit normal of a polygon, away from the car's middle (Newell's method: points may coincide)."""
    points = local_N3.tolist()
    nx = ny = nz = mx = my = mz = 0.0
    for (x, y, z), (x2, y2, z2) in zip(points, points[1:] + points[:1], strict=True):
        nx, ny, nz = nx + (y - y2) * (z + z2), ny + (z - z2) * (x + x2), nz + (x - x2) * (y + y2)
        mx, my, mz = mx + x, my + y - 0.7, mz + z
    length = math.copysign(max(math.hypot(nx, ny, nz), 1e-9), nx * mx + ny * my + nz * mz)
    return np.array([nx / length, ny / length, nz / length])


def _half_width(car: Car, height: float) -> float:
    return car.width / 2 * (1.0 if height <= car.belt else 0.80 if car.kind != "van" else 0.92)


def _parts(car: Car) -> list[Part]:
    """All parts; a greater order lies on top of its neighbours."""
    outline = [(share * car.length, height) for share, height, _ in PROFILES[car.kind]]
    parts: list[Part] = []
    for (f0, y0), (f1, y1), (_, _, what) in zip(outline[:-1], outline[1:], PROFILES[car.kind][1:], strict=True):
        w0, w1 = _half_width(car, y0), _half_width(car, y1)
        strip = [(f0, y0, -w0), (f0, y0, w0), (f1, y1, w1), (f1, y1, -w1)]
        parts.append((strip, car.colour, 0))
        if what == "glass":
            parts.append((_inset(strip, 0.12), GLASS, 1))
    for side in (-1, 1):
        parts += _flank(car, outline, side) + _wheels(car, side * car.width / 2)
    return parts + _front(car, outline[0][0] + 0.01) + _back(car, outline[-1][0] - 0.01)


def _inset(polygon: Polygon, share: float) -> Polygon:
    """The polygon shrunk towards its middle."""
    points = np.array(polygon, float)
    return [(f, u, r) for f, u, r in points + share * (points.mean(0) - points)]


def _flank(car: Car, outline: list[tuple[float, float]], side: int) -> list[Part]:
    """One side: body, sill, and the cabin with its windows."""
    wide, nose, tail = side * car.width / 2, outline[0][0], outline[-1][0]
    body = [(f, min(y, car.belt), wide) for f, y in outline]
    sill = [(f, y, wide * 1.001) for f, y in ((nose, 0.3), (nose, 0.42), (tail, 0.42), (tail, 0.3))]
    roof = [(f, y) for f, y in outline if y > car.belt + 0.15]
    front, back = outline[2], outline[outline.index(roof[-1]) + 1]
    narrow = side * _half_width(car, roof[0][1])
    cabin = [(front[0], front[1], wide), *((f, y, narrow) for f, y in roof), (back[0], car.belt, wide)]
    parts: list[Part] = [(body, car.colour, 0), (cabin, car.colour, 0.5), (sill, BLACK, 0.6)]
    pillar = (roof[0][0] + roof[-1][0]) / 2 - 0.1
    for low, high in ((pillar + 0.05, 9.0), (-9.0, pillar - 0.05))[: 1 if car.kind == "van" else 2]:
        parts.append((_inset([(min(max(f, low), high), y, w) for f, y, w in cabin], 0.13), GLASS, 1))
    return parts


def _wheels(car: Car, right: float) -> list[Part]:
    parts: list[Part] = []
    for share in (0.31, -0.30):
        parts.append((_disc(share * car.length, 0.33, right * 1.002, 0.38), (0.05, 0.05, 0.06), 1))
        parts.append((_disc(share * car.length, 0.33, right * 1.004, 0.19), (0.55, 0.56, 0.58), 2))
    return parts


def _disc(forward: float, up: float, right: float, radius: float) -> Polygon:
    return [(f, u, right) for f, u in disc(forward, up, radius, radius)]


def _upright(at: float, low: float, high: float, left: float, right: float) -> Polygon:
    """A rectangle across the car."""
    return [(at, low, left), (at, low, right), (at, high, right), (at, high, left)]


def _front(car: Car, at: float) -> list[Part]:
    """Headlamps, grille, number plate and bumper."""
    wide, lamp = car.width / 2, (1.6, 1.55, 1.3) if car.lights else (0.90, 0.92, 0.94)
    grille = (_upright(at, 0.48, 0.62, -wide * 0.5, wide * 0.5), BLACK, 1)
    lamps = [(_upright(at, 0.52, 0.66, side * wide * 0.62, side * wide * 0.96), lamp, 2) for side in (-1, 1)]
    return [grille, *lamps, *_bumper(at, wide)]


def _back(car: Car, at: float) -> list[Part]:
    """Tail lamps, number plate and bumper."""
    wide, lamp = car.width / 2, (1.0, 0.10, 0.06) if car.lights else (0.62, 0.06, 0.06)
    lamps = [(_upright(at, 0.66, 0.86, side * wide * 0.62, side * wide * 0.96), lamp, 2) for side in (-1, 1)]
    return [*lamps, *_bumper(at, wide)]


def _bumper(at: float, wide: float) -> list[Part]:
    return [(_upright(at, 0.26, 0.42, -wide, wide), BLACK, 1), (_upright(at, 0.46, 0.58, -0.26, 0.26), PLATE, 2)]
