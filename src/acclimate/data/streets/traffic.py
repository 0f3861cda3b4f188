"""What moves: cars, people on foot and cyclists."""

from __future__ import annotations

from functools import partial

import numpy as np

from acclimate.data.streets import people
from acclimate.data.streets.classes import Class
from acclimate.data.streets.plan import Plan, Thing
from acclimate.data.streets.style import shaded
from acclimate.data.streets.vehicles import LENGTHS, Car, draw_car


def add_car(plan: Plan, side: int, across: float, z: float, turn: float, lights: bool) -> None:
    """Add a car of a random kind, ``turn`` radians off the road's direction."""
    rng, street = plan.rng, plan.street
    heading = street.heading + street.curve * z
    kind = str(rng.choice(list(LENGTHS), p=(0.28, 0.24, 0.18, 0.20, 0.10)))
    colour = plan.style.materials.cars[rng.integers(len(plan.style.materials.cars))]
    shade = rng.uniform(0.85, 1.15)
    car = Car(plan.at(side, across, z)[0], z, turn + heading, kind, shaded(colour, shade), lights)
    plan.things.append(Thing(z, partial(draw_car, car=car, light=plan.style.light), car.footprint(), 1.3))


def drive_cars(plan: Plan) -> None:
    """Traffic ahead, oncoming and on the side road."""
    street, rng = plan.street, plan.rng
    lights = plan.style.light.lit > 0.05
    last = street.gap[0] - 3 if street.ends and np.isfinite(street.crossing) else 70.0
    lane = street.half / 2 - (0.6 if street.half > 4.5 else 0)
    for side, turn in ((1, 0.0), (-1, np.pi)):
        z = float(rng.uniform(9, 24) if side > 0 else rng.uniform(7, 30))
        for _ in range(rng.poisson(plan.style.traffic.cars / 2)):
            if z < last:
                add_car(plan, side, lane, z, turn, lights)
            z += rng.uniform(8, 20)
    if np.isfinite(street.crossing) and rng.random() < 0.4:
        direction = int(rng.choice([-1, 1]))
        heading = street.heading + street.curve * street.crossing
        z = street.crossing - direction * street.cross_half / 2
        add_car(plan, 1, float(rng.uniform(-9, 9)), z, direction * np.pi / 2 - heading, lights)


def place_people(plan: Plan) -> None:
    """People on foot and cyclists, near enough to be recognised."""
    street = plan.street
    last = street.gap[0] if np.isfinite(street.crossing) and street.ends else np.inf
    for _ in range(plan.rng.poisson(plan.style.traffic.people)):
        _walker(plan, float(plan.rng.uniform(5, min(last, 22))))
    for _ in range(plan.rng.poisson(plan.style.traffic.cyclists)):
        _cyclist(plan, float(plan.rng.uniform(6, min(last, 18))))


def _walker(plan: Plan, z: float) -> None:
    """Somebody on the pavement, or now and then on the road; some are children."""
    rng, street, side = plan.rng, plan.street, int(plan.rng.choice([-1, 1]))
    on_road = rng.random() < 0.15
    low, high = (-street.half, street.half) if on_road else (street.half + street.verge + 0.6, street.front - 0.4)
    x = plan.at(side, rng.uniform(low, high), z)[0]
    scale = float(rng.uniform(0.92, 1.1) * (0.7 if rng.random() < 0.1 else 1) * rng.choice([-1, 1]))
    shapes = people.walker(rng, plan.style.materials.clothes)
    plan.add(x, z, partial(people.draw_flat, shapes=shapes, x=x, z=z, label=Class.PERSON, scale=scale), 0.5, 1.7)


def _cyclist(plan: Plan, z: float) -> None:
    """Somebody who rides across, or along the road's edge."""
    rng, street, side = plan.rng, plan.street, int(plan.rng.choice([-1, 1]))
    crosses = rng.random() < 0.5
    x = plan.at(side, rng.uniform(0, street.half) if crosses else street.half - 0.8, z)[0]
    shapes = (people.rider if crosses else people.rider_from_behind)(rng, plan.style.materials.clothes)
    scale = float(rng.choice([-1, 1]))
    plan.add(x, z, partial(people.draw_flat, shapes=shapes, x=x, z=z, label=Class.CYCLIST, scale=scale), 0.9, 1.6)
