"""The street's plan, and the ground and sky that it is painted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.classes import Class
from acclimate.data.streets.style import Colour, Light, Materials
from acclimate.data.streets.texture import clouds, grain, tiles, visible

TERRACE, DETACHED, PARK, YARD = range(4)
KERB = 0.2


@dataclass(frozen=True)
class Street:
    """A bent road with pavements, perhaps with a side road across; metres in the camera's world.

    ``zones`` are the kinds of lots: near left, near right, far left, far right (beyond the side road).
    """

    half: float
    offset: float
    heading: float
    curve: float
    verge: float
    pavement: float
    crossing: float
    """Distance of the side road's middle; inf: none."""
    cross_half: float
    ends: bool
    """The road ends at the side road (a T junction)."""
    zebra: bool
    zones: tuple[int, int, int, int]
    salt: int

    def centre(self, z: np.ndarray | float) -> np.ndarray | float:
        """Lateral position of the road's middle at distance z."""
        return self.offset + self.heading * z + 0.5 * self.curve * z * z

    @property
    def front(self) -> float:
        """Distance of the lots from the road's middle."""
        return self.half + self.verge + self.pavement

    @property
    def gap(self) -> tuple[float, float]:
        """Stretch of z that the side road and its pavements take."""
        reach = self.cross_half + self.pavement + self.verge
        return self.crossing - reach, self.crossing + reach

    def zone(self, side: int, z: float) -> int:
        """Kind of lot on a side (-1 left, 1 right) at distance z."""
        return self.zones[(side > 0) + 2 * (z > self.crossing)]

    def kerb_distance(self, across: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Metres from the kerb: negative on the road, with rounded corners at the junction."""
        own = np.abs(across) - np.float32(self.half)
        if not np.isfinite(self.crossing):
            return own
        if self.ends:
            own = np.maximum(own, z - np.float32(self.crossing))
        other = np.abs(z - np.float32(self.crossing)) - np.float32(self.cross_half)
        radius = np.float32(3)
        blend = np.maximum(radius - np.abs(own - other), 0) / radius
        return np.minimum(own, other) - blend * blend * radius / 4


def paint_ground(canvas: Canvas, street: Street, materials: Materials) -> None:
    """Fill every pixel below the horizon: road with markings, kerbs, pavement, grass and lots."""
    depth = canvas.camera.ground_depth(canvas.ray_y)
    at = np.flatnonzero(np.isfinite(depth))
    z = depth.ravel()[at]
    x = z * canvas.ray_x.ravel()[at]
    across = x - street.centre(z)
    kerb = street.kerb_distance(across, z)
    label = _classes(street, across, z, kerb)
    near = visible(z, 22)
    colour = np.empty((len(z), 3), np.float32)
    for kind, painter in ((Class.ROAD, _road), (Class.PAVEMENT, _pavement), (Class.TERRAIN, _grass)):
        on = np.flatnonzero(label == kind)
        colour[on] = painter(street, materials, x[on], z[on], across[on], kerb[on], near[on])
    canvas.albedo.reshape(-1, 3)[at] = colour
    canvas.label.ravel()[at] = label
    canvas.depth.ravel()[at] = z


def _classes(street: Street, across: np.ndarray, z: np.ndarray, kerb: np.ndarray) -> np.ndarray:
    zone = np.array(street.zones, np.uint8)[(across > 0) + 2 * (z > street.crossing)]
    grassy = (zone == DETACHED) | (zone == PARK)
    on_verge = (kerb > KERB) & (kerb < street.verge)
    on_lot = kerb > street.verge + street.pavement
    label = np.where(on_verge | (on_lot & grassy), Class.TERRAIN, Class.PAVEMENT)
    return np.where(kerb < 0, Class.ROAD, label).astype(np.uint8)


def _shade(colour: Colour, value: np.ndarray) -> np.ndarray:
    return np.asarray(colour, np.float32) * value[:, None]


def _road(street, materials, x, z, across, kerb, near) -> np.ndarray:
    rough, wear = materials.texture, materials.wear
    value = 1 + rough * (0.05 * grain(x, z, 30) * near + 0.035 * clouds(x, z, 4, street.salt))
    value = value - 0.10 * np.exp(-(((np.abs(np.abs(across) - street.half / 2) - 0.8) / 0.35) ** 2))  # wheel tracks
    value *= 1 - 0.12 * np.exp(kerb / 0.4)
    if wear:
        patch = clouds(x, z, 2.2, street.salt + 3)
        value *= np.where(patch > 1.1, 1 - 0.28 * wear, 1)
        crack = np.abs(clouds(x, z, 9, street.salt + 7))
        value *= 1 - 0.45 * wear * near * (crack < 0.035)
    colour = _shade(materials.road, value)
    paint = _markings(street, z, across, kerb) * (1 - wear * 0.55 * (grain(x, z, 12, 3) > -0.2))
    return colour + paint[:, None] * (np.asarray(materials.marking, np.float32) - colour)


def _markings(street: Street, z: np.ndarray, across: np.ndarray, kerb: np.ndarray) -> np.ndarray:
    """1 where paint lies: centre dashes, edge lines, stop lines and zebras before the junction."""
    if np.isfinite(street.crossing):
        stop = street.crossing - street.cross_half - 1.5
        clear = (z < stop - 4.5) | ((z > street.crossing + street.cross_half + 3) & (not street.ends))
        band = (z > stop - 3) & (z < stop) & (kerb < -0.3)
        stripes = band & (np.floor(across / 0.5) % 2 == 0) if street.zebra else band & (z < stop - 2.6) & (across > 0)
    else:
        clear, stripes = np.ones(len(z), bool), np.zeros(len(z), bool)
    dashes = (np.abs(across) < 0.08) & ((z + street.salt) % 6 < 3)
    edges = (np.abs(np.abs(across) - street.half + 0.35) < 0.06) & (street.salt % 3 > 0)
    return ((dashes | edges) & clear | stripes).astype(np.float32)


def _pavement(street, materials, x, z, across, kerb, near) -> np.ndarray:
    rough = materials.texture
    value = 1 + rough * (0.035 * grain(x, z, 26, 9) * near + 0.04 * clouds(x, z, 5, street.salt + 11))
    if materials.slab:
        slab = tiles(across, z, materials.slab, materials.slab, 0.05 + 0.004 * z.mean(), street.salt)
        value *= 1 + near * np.where(slab < 0, -0.22, 0.10 * (slab - 0.5) * rough)
    if materials.wear:
        value *= np.where(clouds(x, z, 5, 23) > 1.3, 1 - 0.2 * materials.wear, 1)
    on_kerb = kerb < KERB
    value = np.where(on_kerb, np.where(kerb < 0.06, 0.72, 1.12), value)
    return _shade(materials.pavement, value)


def _grass(street, materials, x, z, across, kerb, near) -> np.ndarray:
    rough = materials.texture
    value = 1 + 0.13 * rough * grain(x, z, 22, 4) * near + 0.05 * grain(x, z, 3, 6)
    patches = np.clip(0.5 + 0.5 * clouds(x, z, 6, street.salt + 2), 0, 1)[:, None]
    first, second = (np.asarray(materials.grass[(street.salt + i) % len(materials.grass)], np.float32) for i in (0, 1))
    return (first + patches * (second - first)) * value[:, None]


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
    canvas.albedo[rows, columns] = _shade(colour, tone)
    canvas.label[rows, columns] = Class.BUILDING if built else Class.VEGETATION
    canvas.depth[rows, columns] = 190
    canvas.sun[rows, columns] = 0.6
