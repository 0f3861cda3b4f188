"""A pinhole camera over a curved ground: how metres become pixels.

World axes: x to the right, y up, z forward, in metres; the camera stands over the origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NEAR = 0.7
"""Nearest distance (metres) that is drawn; surfaces are clipped there."""
FAR = 150.0
"""The ground ends here; beyond lies the backdrop."""


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and what it sees.

    ``focal`` and ``centre`` (x, y of the vanishing point on level ground) are in pixels of the drawing,
    ``roll`` is in radians, and the ground rises as ``bend * z**2`` (metres; negative: a crest).
    """

    height: float
    focal: float
    centre: tuple[float, float]
    roll: float
    bend: float

    def ground(self, z: np.ndarray | float) -> np.ndarray | float:
        """Height of the ground at distance z."""
        return self.bend * z * z

    def project(self, points_N3: np.ndarray) -> np.ndarray:
        """Pixels (x, y), shape (N, 2), of world points; all must lie in front of the camera."""
        x, y, z = np.asarray(points_N3, float).T
        u, v = self.focal * x / z, self.focal * (self.height - y) / z
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        pixels_N2 = np.empty((len(z), 2))
        pixels_N2[:, 0] = self.centre[0] + cos * u - sin * v
        pixels_N2[:, 1] = self.centre[1] + sin * u + cos * v
        return pixels_N2

    def rays(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Directions (x, y) at z = 1 through all pixel centres, each of shape ``size`` and float32."""
        u = np.arange(size[1], dtype=np.float32)[None] + np.float32(0.5 - self.centre[0])
        v = np.arange(size[0], dtype=np.float32)[:, None] + np.float32(0.5 - self.centre[1])
        cos, sin = np.float32(np.cos(self.roll)), np.float32(np.sin(self.roll))
        focal = np.float32(self.focal)
        return (cos * u + sin * v) / focal, (sin * u - cos * v) / focal

    def ground_depth(self, ray_y: np.ndarray) -> np.ndarray:
        """Distance at which rays meet the ground: the nearer root of height + ray_y z = bend z²; inf: never."""
        root = ray_y * ray_y + np.float32(4 * self.bend * self.height)
        below = np.sqrt(np.maximum(root, 0)) - ray_y
        depth = np.float32(2 * self.height) / np.maximum(below, 1e-6)
        return np.where((root >= 0) & (depth < FAR), depth, np.float32(np.inf))


def clip_near(points_N3: np.ndarray) -> np.ndarray:
    """The part of a polygon beyond the near plane (Sutherland-Hodgman); fewer than 3 points: nothing is left."""
    points_N3 = np.asarray(points_N3, float)
    if (points_N3[:, 2] >= NEAR).all():
        return points_N3
    kept = []
    for a, b in zip(points_N3, np.roll(points_N3, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)
