"""The ground: road with markings, kerbs, pavement and grass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.classes import Class
from acclimate.data.streets.street import DETACHED, KERB, PARK, Street
from acclimate.data.streets.style import Colour, Materials
from acclimate.data.streets.texture import clouds, grain, tiles, visible


@dataclass(frozen=True)
class Spots:
    """Places on the ground, each an array of shape (N,): where they lie in metres, and how much detail they show."""

    x: np.ndarray
    z: np.ndarray
    across: np.ndarray
    """From the road's middle, to the right."""
    kerb: np.ndarray
    """Beyond the kerb; negative on the road."""
    detail: np.ndarray

    def take(self, at: np.ndarray) -> Spots:
        """Some of the places."""
        return Spots(self.x[at], self.z[at], self.across[at], self.kerb[at], self.detail[at])


def paint_ground(canvas: Canvas, street: Street, materials: Materials) -> None:
    """Fill every pixel below the horizon: road with markings, kerbs, pavement, grass and lots."""
    depth = canvas.camera.ground_depth(canvas.ray_y)
    at = np.flatnonzero(np.isfinite(depth))
    z = depth.ravel()[at]
    x = z * canvas.ray_x.ravel()[at]
    across = x - street.centre(z)
    kerb = street.kerb_distance(across, z)
    label = _classes(street, across, z, kerb)
    spots = Spots(x, z, across, kerb, visible(z, 22))
    colour = np.empty((len(z), 3), np.float32)
    for kind, painter in ((Class.ROAD, _road), (Class.PAVEMENT, _pavement), (Class.TERRAIN, _grass)):
        on = np.flatnonzero(label == kind)
        colour[on] = painter(street, materials, spots.take(on))
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


def _road(street: Street, materials: Materials, spots: Spots) -> np.ndarray:
    x, z, rough = spots.x, spots.z, materials.texture
    wear = materials.wear
    value = 1 + rough * (0.05 * grain(x, z, 30) * spots.detail + 0.035 * clouds(x, z, 4, street.salt))
    across = np.abs(spots.across)
    value = value - 0.10 * np.exp(-(((np.abs(across - street.half / 2) - 0.8) / 0.35) ** 2))  # wheel tracks
    value *= 1 - 0.12 * np.exp(spots.kerb / 0.4)
    if wear:
        patch = clouds(x, z, 2.2, street.salt + 3)
        value *= np.where(patch > 1.1, 1 - 0.28 * wear, 1)
        crack = np.abs(clouds(x, z, 9, street.salt + 7))
        value *= 1 - 0.45 * wear * spots.detail * (crack < 0.035)
    colour = _shade(materials.road, value)
    paint = _markings(street, spots) * (1 - wear * 0.55 * (grain(x, z, 12, 3) > -0.2))
    return colour + paint[:, None] * (np.asarray(materials.marking, np.float32) - colour)


def _markings(street: Street, spots: Spots) -> np.ndarray:
    """1 where paint lies: centre dashes, edge lines, stop lines and zebras before the junction."""
    z, across, kerb = spots.z, spots.across, spots.kerb
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


def _pavement(street: Street, materials: Materials, spots: Spots) -> np.ndarray:
    x, z, rough = spots.x, spots.z, materials.texture
    value = 1 + rough * (0.035 * grain(x, z, 26, 9) * spots.detail + 0.04 * clouds(x, z, 5, street.salt + 11))
    if materials.slab:
        slab = tiles(spots.across, z, materials.slab, materials.slab, 0.05 + 0.004 * z.mean(), street.salt)
        value *= 1 + spots.detail * np.where(slab < 0, -0.22, 0.10 * (slab - 0.5) * rough)
    if materials.wear:
        value *= np.where(clouds(x, z, 5, 23) > 1.3, 1 - 0.2 * materials.wear, 1)
    value = np.where(spots.kerb < KERB, np.where(spots.kerb < 0.06, 0.72, 1.12), value)
    return _shade(materials.pavement, value)


def _grass(street: Street, materials: Materials, spots: Spots) -> np.ndarray:
    x, z, rough = spots.x, spots.z, materials.texture
    value = 1 + 0.13 * rough * grain(x, z, 22, 4) * spots.detail + 0.05 * grain(x, z, 3, 6)
    patches = np.clip(0.5 + 0.5 * clouds(x, z, 6, street.salt + 2), 0, 1)[:, None]
    first, second = (np.asarray(materials.grass[(street.salt + i) % len(materials.grass)], np.float32) for i in (0, 1))
    return (first + patches * (second - first)) * value[:, None]
