"""The lots on both sides: terraces, detached houses with gardens, parks and yards."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from acclimate.data.streets import furniture
from acclimate.data.streets.buildings import random_house
from acclimate.data.streets.plan import REACH, Plan, Thing
from acclimate.data.streets.plants import draw_hedge
from acclimate.data.streets.street import DETACHED, PARK, TERRACE, YARD


def line_side(plan: Plan, side: int) -> None:
    """Lots along one side, from beside the camera to the end of the view."""
    street, rng = plan.street, plan.rng
    low, high = street.gap
    last = low if street.ends and np.isfinite(low) else REACH
    z, corner = float(rng.uniform(-8, -2)), False
    while z < last - 4:
        width = float(rng.uniform(8, 16))
        if z < low < z + width + 3:
            width = low - z
        elif low <= z < high:
            z, corner = high, True
            continue
        if width > 4:
            _LOTS[street.zone(side, z)](plan, side, z, width, corner)
        z, corner = z + width, False


def _front(plan: Plan, side: int, z: float, width: float, setback: float) -> tuple:
    """Start, along and inward vectors and length of a front that follows the road."""
    across = plan.street.front + setback
    a, b = np.array(plan.at(side, across, z)), np.array(plan.at(side, across, z + width))
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    return tuple(a), tuple(along), (side * along[1], -side * along[0]), length


def _terrace(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    start, along, inward, length = _front(plan, side, z, width, 0.0)
    depth = 45.0 if corner else 10.0
    plan.houses.append(random_house(plan.rng, plan.style.materials, start, along, inward, length, depth, urban=True))


def _detached(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    rng = plan.rng
    margin = width * 0.14
    start, along, inward, length = _front(plan, side, z + margin, width - 2 * margin, float(rng.uniform(3.5, 7)))
    plan.houses.append(random_house(rng, plan.style.materials, start, along, inward, length, 8.0, urban=False))
    _enclose(plan, side, z, width, ("hedge", "fence", "none"), (0.4, 0.45, 0.15))
    for _ in range(rng.poisson(1.0 + plan.style.traffic.trees)):
        bush = bool(rng.random() < 0.55)
        x, at = plan.at(side, plan.street.front + rng.uniform(1.2, 3.0), z + rng.uniform(0, width))
        plan.plant(x, at, bush)


def _park(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    rng = plan.rng
    _enclose(plan, side, z, width, ("hedge", "fence", "none"), (0.2, 0.3, 0.5))
    for reach in (3.0, 9.0, 18.0, 30.0):
        for _ in range(rng.poisson(0.7 + reach / 18)):
            x, at = plan.at(side, plan.street.front + reach + rng.uniform(-1.5, 3), z + rng.uniform(0, width))
            plan.plant(x, at, bush=bool(rng.random() < 0.2))


def _yard(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    start, along, inward, length = _front(plan, side, z, width, float(plan.rng.uniform(7, 11)))
    plan.houses.append(random_house(plan.rng, plan.style.materials, start, along, inward, length, 12.0, urban=False))
    _enclose(plan, side, z, width, ("fence",), (1.0,))


_LOTS = {TERRACE: _terrace, DETACHED: _detached, PARK: _park, YARD: _yard}


def _enclose(plan: Plan, side: int, z: float, width: float, what: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Hedge or fence along a lot's front, in short panels that sort well by distance."""
    rng, materials = plan.rng, plan.style.materials
    choice = str(rng.choice(what, p=weights))
    kind, salt = str(rng.choice(furniture.FENCES, p=(0.3, 0.3, 0.1, 0.1, 0.2))), int(rng.integers(1 << 10))
    height = float(rng.uniform(1.0, 1.6) * (1.25 if kind in ("panel", "wire") else 1))
    timber = materials.walls[rng.integers(len(materials.walls))]
    colour = {"picket": timber, "panel": (0.52, 0.38, 0.25), "rail": (0.6, 0.48, 0.34)}.get(kind, (0.3, 0.34, 0.33))
    leaf = materials.leaves[rng.integers(len(materials.leaves))]
    count = max(int(width / 4), 1)
    edges = z + width * np.arange(count + 1) / count
    for a, b in pairwise(edges.tolist()):
        if choice == "none" or b < 1.5 or rng.random() < 0.08:
            continue
        start, end = (
            plan.at(side, plan.street.front + 0.25, a),
            plan.at(side, plan.street.front + 0.25, b),
        )
        if choice == "hedge":
            draw = partial(draw_hedge, start=start, end=end, height=height, leaf=leaf, materials=materials, salt=salt)
        else:
            draw = partial(
                furniture.draw_fence,
                start=start,
                end=end,
                kind=kind,
                height=height,
                colour=colour,
                materials=materials,
                salt=salt,
            )
        foot = np.array([(start[0], 0, a), (end[0], 0, b), (end[0] + side * 0.3, 0, b), (start[0] + side * 0.3, 0, a)])
        plan.things.append(Thing(float(max(a, 0.8) + b) / 2, draw, foot, height))


def close_view(plan: Plan) -> None:
    """Houses or a park across the end of a T junction."""
    rng, street = plan.rng, plan.street
    front = street.gap[1]
    x = street.centre(front) - 60.0
    green = street.zones[2] in (PARK, DETACHED)
    while x < street.centre(front) + 60.0:
        width = float(rng.uniform(9, 16))
        if not green or rng.random() < 0.3:
            urban = street.zones[2] == TERRACE
            plan.houses.append(
                random_house(
                    rng,
                    plan.style.materials,
                    (x, front + (4 if green else 0)),
                    (1.0, 0.0),
                    (0.0, 1.0),
                    width,
                    9.0,
                    urban,
                )
            )
        for _ in range(rng.poisson(2.0) if green else 0):
            plan.plant(x + rng.uniform(0, width), front + rng.uniform(1.5, 4), bool(rng.random() < 0.3))
        x += width
