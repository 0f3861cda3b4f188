"""The plan of a street: where road, pavements and lots lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from acclimate.data.streets.style import Style

TERRACE, DETACHED, PARK, YARD = range(4)
"""Kinds of lots."""
KERB = 0.2
"""Width of the kerb in metres."""


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

    @overload
    def centre(self, z: float) -> float: ...
    @overload
    def centre(self, z: np.ndarray) -> np.ndarray: ...
    def centre(self, z: float | np.ndarray) -> float | np.ndarray:
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


def random_street(style: Style, rng: np.random.Generator) -> Street:
    """Width, bend, junction and lots of the street; the camera drives on its right half."""
    half = float(rng.uniform(3.6, 5.4))
    near_left, near_right, far_left, far_right = rng.choice(4, size=4, p=style.traffic.lots).tolist()
    return Street(
        half=half, offset=float(-half * rng.uniform(0.35, 0.55)), heading=float(rng.normal(0, 0.05)),
        curve=float(rng.normal(0, 0.0022)), verge=float(rng.choice([0.0, rng.uniform(1.0, 2.0)], p=(0.6, 0.4))),
        pavement=float(rng.uniform(2.0, 3.6)),
        crossing=float(rng.choice([np.inf, rng.uniform(20, 48)], p=(0.45, 0.55))),
        cross_half=float(rng.uniform(3.0, 4.5)), ends=rng.random() < 0.25, zebra=rng.random() < 0.5,
        zones=(near_left, near_right, far_left, far_right), salt=int(rng.integers(1 << 12)),
    )  # fmt: skip
