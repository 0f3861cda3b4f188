"""Houses: walls with windows, doors and shops, under flat or pitched roofs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from acclimate.data.streets.canvas import Canvas, Material
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Colour, Light, Materials, shaded
from acclimate.data.streets.texture import cell, clouds, grain, tiles, visible

UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Plot:
    """Where a house stands, in metres on the ground plane (x, z)."""

    start: tuple[float, float]
    """First corner of the front."""
    along: tuple[float, float]
    """Unit vector of the front."""
    inward: tuple[float, float]
    """Unit vector away from the street."""
    width: float
    depth: float

    def footprint(self) -> np.ndarray:
        """The four corners (4, 3), the front's first."""
        start, along, inward = (np.array([v[0], 0.0, v[1]]) for v in (self.start, self.along, self.inward))
        side, back = along * self.width, inward * self.depth
        return np.array([start, start + side, start + side + back, start + back])


@dataclass(frozen=True)
class House:
    """One house and what it is made of (metres)."""

    plot: Plot
    floors: int
    storey: float
    roof: str
    """flat, ridge (along the street) or gable (towards the street)."""
    kind: str
    wall: Colour
    roof_colour: Colour
    bay: float
    window: tuple[float, float]
    shop: bool
    salt: int

    @property
    def height(self) -> float:
        """Of the walls."""
        return self.floors * self.storey + (0.9 if self.roof == "flat" else 0.3)


def random_house(rng: np.random.Generator, materials: Materials, plot: Plot, urban: bool) -> House:
    """A house for a plot; ``urban`` ones are higher and may have shops."""
    kind = str(rng.choice(materials.kinds))
    floors = int(rng.integers(3, 6)) if urban else int(rng.integers(1, 4))
    wide = {"glass": 0.86, "concrete": 0.66}.get(kind, float(rng.uniform(0.32, 0.5)))
    bay = float(rng.uniform(2.0, 3.2))
    shade = rng.uniform(0.85, 1.1)
    return House(
        plot, floors, storey=float(rng.uniform(2.8, 3.5)),
        roof=str(rng.choice(["flat", "ridge", "gable"], p=(0.5, 0.4, 0.1) if urban else (0.1, 0.5, 0.4))),
        kind=kind,
        wall=shaded(materials.walls[rng.integers(len(materials.walls))], shade),
        roof_colour=materials.roofs[rng.integers(len(materials.roofs))],
        bay=bay, window=(bay * wide, float(rng.uniform(1.3, 1.9))),
        shop=urban and rng.random() < 0.45, salt=int(rng.integers(1 << 16)),
    )  # fmt: skip


def draw_house(canvas: Canvas, house: House, materials: Materials, light: Light) -> None:
    """Draw the walls that can face the camera, then the roof."""
    corners = house.plot.footprint()
    corners[:, 1] = min(float(canvas.camera.ground(max(z, 0.0))) for z in corners[:, 2]) - 0.2
    base, side, back, height = corners[0], corners[1] - corners[0], corners[3] - corners[0], UP * house.height
    along, inward = side / house.plot.width, back / house.plot.depth
    roof = _roof(house, base + height, side, back)
    gable, end = ([roof.ridge[0]] if house.roof == kind else [] for kind in ("gable", "ridge"))
    outline = np.array([base, base + side, base + side + height, *gable, base + height])
    canvas.surface(outline, along, UP, _wall(house, materials, light, is_front=True), Class.BUILDING)
    if along @ base < 0:  # the camera stands at x = z = 0, so that it can see one of the end walls at most
        base, end = base + side, [roof.ridge[1]] if end else []
    outline = np.array([base, base + back, base + back + height, *end, base + height])
    canvas.surface(outline, inward, UP, _wall(house, materials, light, is_front=False), Class.BUILDING)
    for slope in roof.slopes:
        _draw_slope(canvas, slope, house, materials)


class Roof(NamedTuple):
    """Both ends of the ridge, and the slopes that may be seen from the street: corners eave, eave, ridge, ridge."""

    ridge: tuple[np.ndarray, np.ndarray]
    slopes: list[np.ndarray]


def _roof(house: House, eaves: np.ndarray, side: np.ndarray, back: np.ndarray) -> Roof:
    if house.roof == "gable":
        near = eaves + side / 2 + UP * 0.45 * house.plot.width
        far = near + back
        slopes = [np.array([eaves, eaves + back, far, near]), np.array([eaves + side, eaves + side + back, far, near])]
        return Roof((near, far), slopes)
    near = eaves + back / 2 + UP * min(0.35 * house.plot.depth, 4.0)
    far = near + side
    return Roof((near, far), [np.array([eaves, eaves + side, far, near])] if house.roof == "ridge" else [])


def _draw_slope(canvas: Canvas, slope: np.ndarray, house: House, materials: Materials) -> None:
    along, up = slope[1] - slope[0], slope[3] - slope[0]
    along = along / np.linalg.norm(along)
    up = up - (up @ along) * along
    overhang = -0.3 * up / np.linalg.norm(up)
    slope = slope + np.array([overhang, overhang, overhang * 0, overhang * 0])

    def shingles(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        row = tiles(s, t, 0.4, 0.35, 0.06, house.salt)
        value = 1 + visible(z, 25) * np.where(row < 0, -0.18, 0.1 * (row - 0.5)) * materials.texture
        value += 0.05 * materials.texture * clouds(s, t, 12, house.salt)
        return np.asarray(house.roof_colour, np.float32) * value[:, None]

    canvas.surface(slope, along, up / np.linalg.norm(up), shingles, Class.BUILDING)


def _wall(house: House, materials: Materials, light: Light, is_front: bool) -> Material:
    """The material of a wall: masonry first, then openings cut into it."""

    def paint(s: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
        colour = _masonry(house, materials, s, t, z)
        _cut_windows(colour, house, light, s, t, is_front)
        if is_front:
            _cut_ground_floor(colour, house, materials, light, s, t)
        return colour

    return paint


def _masonry(house: House, materials: Materials, s: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
    rough, near = materials.texture, visible(z, 18)
    value = 1 + rough * (0.03 * grain(s, t, 20, house.salt) * near + 0.03 * clouds(s, t, 8, house.salt))
    if house.kind == "brick":
        brick = tiles(s, t, 0.5, 0.18, 0.035, house.salt)
        value += near * np.where(brick < 0, 0.16, 0.22 * (brick - 0.5))
    elif house.kind == "timber":
        value += near * np.where((t % 0.22) < 0.03, -0.25, 0.12 * (cell(np.floor(t / 0.22), t * 0, house.salt) - 0.5))
    elif house.kind in ("concrete", "glass"):
        value += np.where(((s % house.bay) < 0.05) | ((t % house.storey) < 0.06), -0.15, 0)
    band = (t % house.storey > house.storey - 0.16) & (house.salt % 3 == 0)
    value = np.where(band | (t > house.height - 0.3), value * 1.15, value)
    value *= np.where(t < 0.7, 0.86, 1)
    streaks = clouds(s * 3, t * 0.25, 8, house.salt + 4)
    value *= 1 - materials.wear * 0.16 * np.clip(streaks, 0, 1.5)
    return np.asarray(house.wall, np.float32) * value[:, None]


def _cut_windows(colour: np.ndarray, house: House, light: Light, s: np.ndarray, t: np.ndarray, is_front: bool) -> None:
    length = house.plot.width if is_front else house.plot.depth
    bays = max(int((length - 0.6) // house.bay), 1)
    pitch = length / bays
    i, j = np.floor(s / pitch), np.floor(t / house.storey)
    a, b = s - (i + 0.5) * pitch, t - (j + 0.52) * house.storey
    half_w, half_h = house.window[0] / 2, house.window[1] / 2
    upper = (j >= (1 if is_front else 0)) & (j < house.floors) & (i >= 0) & (i < bays)
    if not is_front and house.salt % 2:
        upper &= i % 3 == 1
    surround = upper & (np.abs(a) < half_w + 0.14) & (np.abs(b) < half_h + 0.14)
    colour[surround] *= 1.12 if house.salt % 2 else 0.82
    sill = upper & (np.abs(a) < half_w + 0.2) & (np.abs(b + half_h + 0.12) < 0.07)
    colour[sill] *= 1.2
    pane = upper & (np.abs(a) < half_w) & (np.abs(b) < half_h)
    at = np.nonzero(pane)[0]
    colour[at] = _glass(house, light, i[at], j[at], a[at] / half_w, b[at] / half_h)
    bar = (np.abs(a[at]) < 0.04) | (np.abs(b[at] - 0.25 * half_h) < 0.04) | (half_w - np.abs(a[at]) < 0.07)
    colour[at[bar]] = (0.86, 0.85, 0.82) if house.salt % 4 else (0.3, 0.25, 0.2)


def _glass(house: House, light: Light, i: np.ndarray, j: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Panes: dark rooms, curtains, lamps, and the sky reflected in the upper half."""
    luck = cell(i, j, house.salt)
    sky = np.asarray(light.horizon, np.float32)
    mirror = np.clip(0.25 + 0.35 * b + 0.3 * (luck - 0.5) + 0.15 * (a * b), 0.05, 0.75)[:, None]
    colour = np.float32(0.16) + mirror * (sky * 0.85 - np.float32(0.16))
    curtain = (cell(i, j, house.salt + 1) < 0.35) & (np.abs(a) > 0.45 + 0.3 * luck)
    colour[curtain] = colour[curtain] * 0.4 + np.float32(0.45)
    colour[cell(i, j, house.salt + 2) < light.lit] = (1.9, 1.45, 0.8)
    return colour


def _cut_ground_floor(
    colour: np.ndarray, house: House, materials: Materials, light: Light, s: np.ndarray, t: np.ndarray
) -> None:
    """A shop front, or a door between windows."""
    low = t < house.storey
    i = np.floor(s / house.bay)
    a = s - (i + 0.5) * house.bay
    edge = (s > 0.5) & (s < house.plot.width - 0.5)
    accent = np.asarray(materials.cars[house.salt % len(materials.cars)], np.float32) * 0.8
    if house.shop:
        glazing = low & edge & (t > 0.6) & (t < house.storey - 0.9) & (np.abs(a) < house.bay / 2 - 0.1)
        at = np.nonzero(glazing)[0]
        colour[at] = _glass(house, light, i[at], i[at] * 0 + 99, a[at] / house.bay, t[at] / house.storey - 0.5)
        fascia = edge & (t > house.storey - 0.8) & (t < house.storey - 0.15)
        stripes = np.where((np.floor(s / 0.4) % 2 == 0) | (house.salt % 2 == 0), 1.0, 1.6)
        colour[fascia] = accent * stripes[fascia, None]
        return
    door_at = (house.salt % max(int(house.plot.width / house.bay), 1) + 0.5) * house.bay
    door = low & (np.abs(s - door_at) < 0.55) & (t < 2.3)
    frame = low & (np.abs(s - door_at) < 0.7) & (t < 2.45) & ~door
    window = low & edge & (np.abs(a) < house.window[0] / 2) & (np.abs(t - 1.7) < 0.65) & (np.abs(s - door_at) > 1.4)
    at = np.nonzero(window)[0]
    colour[at] = _glass(house, light, i[at], i[at] * 0, a[at] * 2 / house.window[0], (t[at] - 1.7) / 0.65)
    colour[frame], colour[door] = (0.85, 0.84, 0.8), accent
