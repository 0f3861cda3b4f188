"""A street scene: a plan drawn by lot, then painted onto a canvas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from acclimate.data.streets import furniture, people
from acclimate.data.streets.buildings import House, draw_house, random_house
from acclimate.data.streets.camera import Camera
from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.classes import Class
from acclimate.data.streets.ground import DETACHED, PARK, TERRACE, YARD, Street, paint_backdrop, paint_ground, paint_sky
from acclimate.data.streets.plants import draw_hedge, draw_tree, random_tree
from acclimate.data.streets.style import Style
from acclimate.data.streets.vehicles import LENGTHS, Car, draw_car

REACH = 110.0
"""Distance up to which things are placed."""
Rng = np.random.Generator


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
    rng: Rng
    houses: list[House] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)

    def at(self, side: int, across: float, z: float) -> tuple[float, float]:
        """(x, z) of a place ``across`` metres from the road's middle on a side."""
        return float(self.street.centre(z) + side * across), z

    def add(self, x: float, z: float, draw: Callable[[Canvas], None], width: float = 0.4, height: float = 0.0) -> None:
        """Add a thing that stands at (x, z) and shades a disc of ``width``."""
        ring = np.array(people.disc(0, 0, width / 2, width / 2, 6))
        foot = np.stack([x + ring[:, 0], ring[:, 0] * 0, z + ring[:, 1]], 1)
        self.things.append(Thing(z, draw, foot if height else None, height))


def draw_scene(style: Style, rng: Rng, size: tuple[int, int]) -> Canvas:
    """A new street in a style, at ``size`` pixels."""
    height, width = size
    view, street = style.view, random_street(style, rng)
    camera = Camera(
        height=view.height, focal=view.field * width, centre=(width * rng.uniform(0.47, 0.53), height * (0.46 + view.pitch)),
        roll=view.roll, bend=float(rng.normal(0, 0.0002)),
    )  # fmt: skip
    plan = make_plan(style, street, rng)
    canvas = Canvas(size, camera, np.array(style.light.direction))
    paint_ground(canvas, street, style.materials)
    _cast_shadows(canvas, plan)
    paint_backdrop(canvas, style.materials, rng)
    for house in plan.houses:
        draw_house(canvas, house, style.materials, style.light)
    for thing in sorted(plan.things, key=lambda thing: -thing.z):
        thing.draw(canvas)
    paint_sky(canvas, style.light, street.salt)
    return canvas


def _cast_shadows(canvas: Canvas, plan: Plan) -> None:
    for house in plan.houses:
        (x, z), along, inward = house.start, np.array(house.along), np.array(house.inward)
        flat = np.array(
            [
                (x, z),
                *(
                    np.array([x, z]) + d
                    for d in (along * house.width, along * house.width + inward * house.depth, inward * house.depth)
                ),
            ]
        )
        canvas.shadow(np.stack([flat[:, 0], flat[:, 0] * 0, flat[:, 1]], 1), house.height)
    for thing in plan.things:
        if thing.foot is not None and thing.z < 50:
            canvas.shadow(thing.foot, thing.height)
    canvas.apply_shadows(plan.style.light.softness)


def random_street(style: Style, rng: Rng) -> Street:
    """Width, bend, junction and lots of the street; the camera drives on its right half."""
    half = float(rng.uniform(3.6, 5.4))
    zones = rng.choice(4, size=4, p=style.traffic.lots)
    return Street(
        half=half, offset=float(-half * rng.uniform(0.35, 0.55)), heading=float(rng.normal(0, 0.05)),
        curve=float(rng.normal(0, 0.0022)), verge=float(rng.choice([0.0, rng.uniform(1.0, 2.0)], p=(0.6, 0.4))),
        pavement=float(rng.uniform(2.0, 3.6)), crossing=float(rng.choice([np.inf, rng.uniform(20, 48)], p=(0.45, 0.55))),
        cross_half=float(rng.uniform(3.0, 4.5)), ends=bool(rng.random() < 0.25), zebra=bool(rng.random() < 0.5),
        zones=tuple(int(z) for z in zones), salt=int(rng.integers(1 << 12)),
    )  # fmt: skip


def make_plan(style: Style, street: Street, rng: Rng) -> Plan:
    """Fill the lots, then the kerbs, then the traffic."""
    plan = Plan(style, street, rng)
    for side in (-1, 1):
        _line_side(plan, side)
        _line_kerb(plan, side)
    if street.ends and np.isfinite(street.crossing):
        _close_view(plan)
    _drive_cars(plan)
    _place_people(plan)
    return plan


def _line_side(plan: Plan, side: int) -> None:
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
        _tree(plan, x, at, bush)


def _park(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    rng = plan.rng
    _enclose(plan, side, z, width, ("hedge", "fence", "none"), (0.2, 0.3, 0.5))
    for reach in (3.0, 9.0, 18.0, 30.0):
        for _ in range(rng.poisson(0.7 + reach / 18)):
            x, at = plan.at(side, plan.street.front + reach + rng.uniform(-1.5, 3), z + rng.uniform(0, width))
            _tree(plan, x, at, bush=bool(rng.random() < 0.2))


def _yard(plan: Plan, side: int, z: float, width: float, corner: bool) -> None:
    start, along, inward, length = _front(plan, side, z, width, float(plan.rng.uniform(7, 11)))
    plan.houses.append(random_house(plan.rng, plan.style.materials, start, along, inward, length, 12.0, urban=False))
    _enclose(plan, side, z, width, ("fence",), (1.0,))


_LOTS = {TERRACE: _terrace, DETACHED: _detached, PARK: _park, YARD: _yard}


def _enclose(plan: Plan, side: int, z: float, width: float, what: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """Hedge or fence along a lot's front, in short panels that sort well by distance."""
    rng, materials = plan.rng, plan.style.materials
    choice = str(rng.choice(what, p=weights))
    kind, salt = str(rng.choice(furniture.FENCES)), int(rng.integers(1 << 10))
    height = float(rng.uniform(0.9, 1.5) * (1.25 if kind in ("panel", "wire") else 1))
    timber = materials.walls[rng.integers(len(materials.walls))]
    colour = {"picket": timber, "panel": (0.52, 0.38, 0.25), "rail": (0.6, 0.48, 0.34)}.get(kind, (0.3, 0.34, 0.33))
    leaf = materials.leaves[rng.integers(len(materials.leaves))]
    count = max(int(width / 4), 1)
    edges = z + width * np.arange(count + 1) / count
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        if choice == "none" or b < 1.5 or rng.random() < 0.08:
            continue
        start, end = (
            plan.at(side, plan.street.front + 0.25, float(a)),
            plan.at(side, plan.street.front + 0.25, float(b)),
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


def _tree(plan: Plan, x: float, z: float, bush: bool = False) -> None:
    if z < 3.5:
        return
    tree = random_tree(plan.rng, plan.style.materials, x, z, bush)
    draw = partial(draw_tree, tree=tree, materials=plan.style.materials)
    plan.add(x, z, draw, tree.radius * 1.3, tree.trunk + tree.crown * 1.6)


def _close_view(plan: Plan) -> None:
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
            _tree(plan, x + rng.uniform(0, width), front + rng.uniform(1.5, 4), bool(rng.random() < 0.3))
        x += width


def _line_kerb(plan: Plan, side: int) -> None:
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
            _tree(plan, x, z)
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


def _nearby(clear: list[float], rng: Rng) -> float:
    """A free distance, near ones more often."""
    return float(clear[int(min(len(clear), 26) * rng.random())] + rng.uniform(0, 1))


def _sign(plan: Plan, side: int, across: float, z: float) -> None:
    rng = plan.rng
    plate = str(rng.choice(list(furniture.PLATES)))
    x = plan.at(side, across, z)[0]
    dull = 0.3 * plan.style.materials.wear
    draw = partial(furniture.draw_sign, x=x, z=z, plate=plate, height=float(rng.uniform(2.0, 2.7)), dull=dull)
    plan.add(x, z, draw, 0.15, 2.5)


def _park_cars(plan: Plan, side: int, clear: list[float]) -> None:
    street, rng = plan.street, plan.rng
    if street.half < 4.2 or rng.random() > 0.7:
        return
    z = float(rng.uniform(4, 10))
    while z < 60:
        free = all(any(abs(z + step - c) < 1.5 for c in clear) for step in (-2.5, 0, 2.5))
        if free and rng.random() < plan.style.traffic.parked * 1.4:
            _car(plan, side, street.half - 1.05, z, 0.0 if side > 0 else np.pi, lights=False)
        z += rng.uniform(5.6, 7.0)


def _car(plan: Plan, side: int, across: float, z: float, turn: float, lights: bool) -> None:
    rng, street = plan.rng, plan.street
    heading = street.heading + street.curve * z
    kind = str(rng.choice(list(LENGTHS), p=(0.28, 0.24, 0.18, 0.20, 0.10)))
    colour = plan.style.materials.cars[rng.integers(len(plan.style.materials.cars))]
    shade = rng.uniform(0.85, 1.15)
    car = Car(plan.at(side, across, z)[0], z, turn + heading, kind, tuple(shade * c for c in colour), lights)
    plan.things.append(Thing(z, partial(draw_car, car=car, light=plan.style.light), car.footprint(), 1.3))


def _drive_cars(plan: Plan) -> None:
    """Traffic ahead, oncoming and on the side road."""
    street, rng = plan.street, plan.rng
    lights = plan.style.light.lit > 0.05
    last = street.gap[0] - 3 if street.ends and np.isfinite(street.crossing) else 70.0
    lane = street.half / 2 - (0.5 if street.half > 4.2 else 0)
    for side, turn in ((1, 0.0), (-1, np.pi)):
        z = float(rng.uniform(9, 24) if side > 0 else rng.uniform(7, 30))
        for _ in range(rng.poisson(plan.style.traffic.cars / 2)):
            if z < last:
                _car(plan, side, lane, z, turn, lights)
            z += rng.uniform(8, 20)
    if np.isfinite(street.crossing) and rng.random() < 0.4:
        direction = int(rng.choice([-1, 1]))
        heading = street.heading + street.curve * street.crossing
        z = street.crossing - direction * street.cross_half / 2
        _car(plan, 1, float(rng.uniform(-9, 9)), z, direction * np.pi / 2 - heading, lights)


def _place_people(plan: Plan) -> None:
    """Walkers on the pavements and crossing, cyclists at the road's edge."""
    street, rng, traffic = plan.street, plan.rng, plan.style.traffic
    clothes = plan.style.materials.clothes
    last = street.gap[0] if np.isfinite(street.crossing) and street.ends else 42.0
    for _ in range(rng.poisson(traffic.people)):
        z, side = float(5 + (min(last, 30.0) - 5) * rng.random() ** 1.2), int(rng.choice([-1, 1]))
        across = (
            rng.uniform(-street.half, street.half)
            if rng.random() < 0.15
            else rng.uniform(street.front - street.pavement + 0.6, street.front - 0.4)
        )
        x = plan.at(side, across, z)[0]
        scale = float(rng.uniform(0.92, 1.1) * (0.7 if rng.random() < 0.1 else 1) * rng.choice([-1, 1]))
        shapes = people.walker(rng, clothes)
        plan.add(x, z, partial(people.draw_flat, shapes=shapes, x=x, z=z, label=Class.PERSON, scale=scale), 0.5, 1.7)
    for _ in range(rng.poisson(traffic.cyclists)):
        z, side = float(6 + (min(last, 24.0) - 6) * rng.random() ** 1.2), int(rng.choice([-1, 1]))
        crosses = rng.random() < 0.5
        across = rng.uniform(0, street.half) if crosses else street.half - 0.8
        x = plan.at(side, across, z)[0]
        shapes = (people.rider if crosses else people.rider_from_behind)(rng, clothes)
        plan.add(
            x,
            z,
            partial(people.draw_flat, shapes=shapes, x=x, z=z, label=Class.CYCLIST, scale=float(rng.choice([-1, 1]))),
            0.9,
            1.6,
        )
