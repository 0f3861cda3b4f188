"""The list of all that stands in a scene, while it is being filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from acclimate.data.streets.buildings import House
from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.people import disc
from acclimate.data.streets.plants import draw_tree, random_tree
from acclimate.data.streets.street import Street
from acclimate.data.streets.style import Style

REACH = 110.0
"""Distance up to which things are placed."""


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground: its distance, how to draw it, and the prism that casts its shadow."""

    z: float
    draw: Callable[[Canvas], None]
    foot: np.ndarray | None = None
    height: float = 0.0


@dataclass
class Plan:
    """All that a scene holds, while it is being filled."""

    style: Style
    street: Street
    rng: np.random.Generator
    houses: list[House] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)

    def at(self, side: int, across: float, z: float) -> tuple[float, float]:
        """(x, z) of a place ``across`` metres from the road's middle on a side."""
        return float(self.street.centre(z) + side * across), z

    def add(self, x: float, z: float, draw: Callable[[Canvas], None], width: float = 0.4, height: float = 0.0) -> None:
        """Add a thing that stands at (x, z) and shades a disc of ``width``."""
        ring = np.array(disc(0, 0, width / 2, width / 2, 6))
        foot = np.stack([x + ring[:, 0], ring[:, 0] * 0, z + ring[:, 1]], 1)
        self.things.append(Thing(z, draw, foot if height else None, height))

    def plant(self, x: float, z: float, bush: bool = False) -> None:
        """Add a tree or a bush, unless it would fill the view."""
        if z < 3.5:
            return
        tree = random_tree(self.rng, self.style.materials, x, z, bush)
        draw = partial(draw_tree, tree=tree, materials=self.style.materials)
        self.add(x, z, draw, tree.radius * 1.3, tree.trunk + tree.crown * 1.6)
