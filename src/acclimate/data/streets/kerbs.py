"""What stands along the kerbs: lamps, street trees, signs, bins and parked cars."""

from __future__ import annotations

from functools import partial

import numpy as np

from acclimate.data.streets.furniture import PLATES, STEEL, draw_bin, draw_lamp, draw_sign
from acclimate.data.streets.plan import Plan
from acclimate.data.streets.traffic import add_car

BINS = (0.15, 0.35, 0.20), (0.25, 0.25, 0.27)
POSTS = (0.34, 0.38, 0.36), STEEL


def line_kerb(plan: Plan, side: int) -> None:
    """Fill one side's kerb from the camera to 75 m, except where the side road meets it."""
    street, rng, traffic = plan.street, plan.rng, plan.style.traffic
    low, high = street.gap
    free = [z for z in range(6, 75) if not low - 1 < z < high + 1 and not (street.ends and z > low)]
    across = street.half + (0.5 * street.verge if street.verge else 0.45)
    _row(plan, side, across, free)
    for _ in range(rng.poisson(traffic.signs / 2)):
        _sign(plan, *plan.at(side, across, _nearby(free, rng)))
    for _ in range(rng.poisson(traffic.clutter / 2)):
        x, z = plan.at(side, street.front - 0.5, _nearby(free, rng))
        plan.add(x, z, partial(draw_bin, x=x, z=z, colour=BINS[rng.integers(len(BINS))]), 0.5, 1.0)
    _park_cars(plan, side, free)


def _row(plan: Plan, side: int, across: float, free: list[int]) -> None:
    """Lamps and trees at regular distances."""
    rng, traffic = plan.rng, plan.style.traffic
    phase, shade, height = int(rng.integers(20)), float(rng.uniform(0.7, 1.1)), float(rng.uniform(4.5, 7.0))
    red, green, blue = (shade * c for c in POSTS[rng.integers(len(POSTS))])
    has_trees = rng.random() < traffic.trees
    for place in free:
        x, z = plan.at(side, across, float(place))
        if (place + phase) % 20 == 0 and rng.random() < traffic.lamps:
            draw = partial(draw_lamp, x=x, z=z, height=height, colour=(red, green, blue), light=plan.style.light)
            plan.add(x, z, draw, 0.25, height)
        elif has_trees and (place + phase) % 8 == 4:
            plan.plant(x, z)


def _nearby(free: list[int], rng: np.random.Generator) -> float:
    """One of the sixteen nearest places."""
    return free[rng.integers(min(len(free), 16))] + float(rng.uniform(0, 1))


def _sign(plan: Plan, x: float, z: float) -> None:
    plate, height = str(plan.rng.choice(list(PLATES))), float(plan.rng.uniform(2.0, 2.7))
    dull = 0.2 * plan.style.materials.wear
    plan.add(x, z, partial(draw_sign, x=x, z=z, plate=plate, height=height, dull=dull), 0.15, 2.5)


def _park_cars(plan: Plan, side: int, free: list[int]) -> None:
    street, rng = plan.street, plan.rng
    if street.half < 4.5 or rng.random() > 0.7:
        return
    z = float(rng.uniform(4, 10))
    while z < 60:
        fits = all(any(abs(z + step - place) < 1.5 for place in free) for step in (-2.5, 0, 2.5))
        if fits and rng.random() < plan.style.traffic.parked * 1.4:
            add_car(plan, side, street.half - 1.05, z, 0.0 if side > 0 else np.pi, lights=False)
        z += rng.uniform(5.6, 7.0)
