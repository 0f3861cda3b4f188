"""The lots on both sides: terraces, detached houses with gardens, parks and yards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from acclimate.data.streets.buildings import Plot, random_house
from acclimate.data.streets.furniture import FENCES, draw_fence
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


def _plot(plan: Plan, side: int, z: float, width: float, setback: float, depth: float) -> Plot:
    """The plot whose front follows the road from z over ``width``."""
    across = plan.street.front + setback
    (ax, az), (bx, bz) = plan.at(side, across, z), plan.at(side, across, z + width)
    length = float(np.hypot(bx - ax, bz - az))
    along = (bx - ax) / length, (bz - az) / length
    return Plot((ax, az), along, (side * along[1], -side * along[0]), length, depth)


def _build(plan: Plan, plot: Plot, urban: bool) -> None:
    plan.houses.append(random_house(plan.rng, plan.style.materials, plot, urban))


def _terrace(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    depth = 45.0 if corner else 10.0  # a corner house closes the view into the side road
    _build(plan, _plot(plan, side, z, width, 0.0, depth), urban=True)


def _detached(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    rng = plan.rng
    margin, setback = width * 0.14, float(rng.uniform(3.5, 7))
    _build(plan, _plot(plan, side, z + margin, width - 2 * margin, setback, 8.0), urban=False)
    _enclose(plan, side, z, width, ("hedge", "fence", "none"), (0.4, 0.45, 0.15))
    for _ in range(rng.poisson(1.0 + plan.style.traffic.trees)):
        bush = rng.random() < 0.55
        x, at = plan.at(side, plan.street.front + rng.uniform(1.2, 3.0), z + rng.uniform(0, width))
        plan.plant(x, at, bush)


def _park(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    rng = plan.rng
    _enclose(plan, side, z, width, ("hedge", "fence", "none"), (0.2, 0.3, 0.5))
    for reach in (3.0, 9.0, 18.0, 30.0):
        for _ in range(rng.poisson(0.7 + reach / 18)):
            x, at = plan.at(side, plan.street.front + reach + rng.uniform(-1.5, 3), z + rng.uniform(0, width))
            plan.plant(x, at, bush=rng.random() < 0.2)


def _yard(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    _build(plan, _plot(plan, side, z, width, float(plan.rng.uniform(7, 11)), 12.0), urban=False)
    _enclose(plan, side, z, width, ("fence",), (1.0,))


_LOTS = {TERRACE: _terrace, DETACHED: _detached, PARK: _park, YARD: _yard}


def _enclose(plan: Plan, side: int, z: float, width: float, what: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Hedge or fence along a lot's front, in short panels that sort well by distance."""
    choice = str(plan.rng.choice(what, p=weights))
    if choice == "none":
        return
    draw = _hedge(plan) if choice == "hedge" else _fence(plan)
    count = max(int(width / 4), 1)
    edges = z + width * np.arange(count + 1) / count
    for a, b in pairwise(edges.tolist()):
        if b < 1.5 or plan.rng.random() < 0.08:  # behind the camera, or a gate
            continue
        start, end = (plan.at(side, plan.street.front + 0.25, at) for at in (a, b))
        foot = np.array([(start[0], 0, a), (end[0], 0, b), (end[0] + side * 0.3, 0, b), (start[0] + side * 0.3, 0, a)])
        plan.things.append(Thing((max(a, 0.8) + b) / 2, partial(draw, start=start, end=end), foot, 1.3))


def _hedge(plan: Plan) -> Callable[..., None]:
    rng, materials = plan.rng, plan.style.materials
    leaf = materials.leaves[rng.integers(len(materials.leaves))]
    height, salt = float(rng.uniform(1.0, 1.6)), int(rng.integers(1 << 10))
    return partial(draw_hedge, height=height, leaf=leaf, materials=materials, salt=salt)


def _fence(plan: Plan) -> Callable[..., None]:
    rng, materials = plan.rng, plan.style.materials
    kind = str(rng.choice(FENCES, p=(0.3, 0.3, 0.1, 0.1, 0.2)))
    height, salt = float(rng.uniform(1.0, 1.6) * (1.25 if kind in ("panel", "wire") else 1)), int(rng.integers(1 << 10))
    painted = materials.walls[rng.integers(len(materials.walls))]
    colour = {"picket": painted, "panel": (0.52, 0.38, 0.25), "rail": (0.60, 0.48, 0.34)}.get(kind, (0.30, 0.34, 0.33))
    return partial(draw_fence, kind=kind, height=height, colour=colour, materials=materials, salt=salt)


def close_view(plan: Plan) -> None:
    """Houses or a park across the end of a T junction."""
    rng, street = plan.rng, plan.street
    front = street.gap[1]
    x, end = street.centre(front) - 60.0, street.centre(front) + 60.0
    green = street.zones[2] in (PARK, DETACHED)
    while x < end:
        width = float(rng.uniform(9, 16))
        if not green or rng.random() < 0.3:
            plot = Plot((x, front + (4 if green else 0)), (1.0, 0.0), (0.0, 1.0), width, 9.0)
            _build(plan, plot, urban=street.zones[2] == TERRACE)
        for _ in range(rng.poisson(2.0) if green else 0):
            plan.plant(x + rng.uniform(0, width), front + rng.uniform(1.5, 4), rng.random() < 0.3)
        x += width
