"""What stands along the kerbs: lamps, street trees, signs, bins and parked cars."""

from __future__ import annotations

from functools import partial

import numpy as np

from acclimate.data.streets import furniture
from acclimate.data.streets.plan import Plan
from acclimate.data.streets.traffic import add_car


def line_kerb(plan: Plan, side: int) -> None:
    """Lamps, street trees, signs, bins and parked cars."""
    street, rng, traffic = plan.street, plan.rng, plan.style.traffic
    low, high = street.gap
    clear = [z for z in np.arange(6.0, 75.0, 1.0) if not low - 1 < z < high + 1 and not (street.ends and z > low)]
    across = street.half + (0.5 * street.verge if street.verge else 0.45)
    phase = rng.uniform(0, 20)
    shade = float(rng.uniform(0.7, 1.1))
    post = tuple(shade * c for c in ((0.34, 0.38, 0.36), furniture.STEEL)[rng.integers(2)])
    tall, has_trees = float(rng.uniform(4.5, 7.0)), rng.random() < traffic.trees
    for z in clear:
        x = plan.at(side, across, z)[0]
        if rng.random() < traffic.lamps and (z + phase) % 20 < 1:
            plan.add(
                x,
                z,
                partial(furniture.draw_lamp, x=x, z=z, height=tall, colour=post, light=plan.style.light),
                0.25,
                tall,
            )
        elif has_trees and (z + phase) % 8 < 1:
            plan.plant(x, z)
    for _ in range(rng.poisson(traffic.signs / 2)):
        _sign(plan, side, across, _nearby(clear, rng))
    for _ in range(rng.poisson(traffic.clutter / 2)):
        x, z = plan.at(side, street.front - 0.5, _nearby(clear, rng))
        plan.add(
            x,
            z,
            partial(furniture.draw_bin, x=x, z=z, colour=((0.15, 0.35, 0.2), (0.25, 0.25, 0.27))[rng.integers(2)]),
            0.5,
            1.0,
        )
    _park_cars(plan, side, clear)


def _nearby(clear: list[float], rng: np.random.Generator) -> float:
    """A free distance, near ones more often."""
    return float(clear[int(min(len(clear), 16) * rng.random())] + rng.uniform(0, 1))


def _sign(plan: Plan, side: int, across: float, z: float) -> None:
    rng = plan.rng
    plate = str(rng.choice(list(furniture.PLATES)))
    x = plan.at(side, across, z)[0]
    dull = 0.2 * plan.style.materials.wear
    draw = partial(furniture.draw_sign, x=x, z=z, plate=plate, height=float(rng.uniform(2.0, 2.7)), dull=dull)
    plan.add(x, z, draw, 0.15, 2.5)


def _park_cars(plan: Plan, side: int, clear: list[float]) -> None:
    street, rng = plan.street, plan.rng
    if street.half < 4.5 or rng.random() > 0.7:
        return
    z = float(rng.uniform(4, 10))
    while z < 60:
        free = all(any(abs(z + step - c) < 1.5 for c in clear) for step in (-2.5, 0, 2.5))
        if free and rng.random() < plan.style.traffic.parked * 1.4:
            add_car(plan, side, street.half - 1.05, z, 0.0 if side > 0 else np.pi, lights=False)
        z += rng.uniform(5.6, 7.0)
