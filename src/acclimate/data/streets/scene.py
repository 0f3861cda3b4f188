"""A street scene: a plan drawn by lot, then painted onto a canvas."""

from __future__ import annotations

import numpy as np

from acclimate.data.streets.buildings import draw_house
from acclimate.data.streets.camera import Camera
from acclimate.data.streets.canvas import Canvas
from acclimate.data.streets.ground import paint_ground
from acclimate.data.streets.kerbs import line_kerb
from acclimate.data.streets.lots import close_view, line_side
from acclimate.data.streets.plan import Plan
from acclimate.data.streets.sky import paint_backdrop, paint_sky
from acclimate.data.streets.street import Street, random_street
from acclimate.data.streets.style import Style
from acclimate.data.streets.traffic import drive_cars, place_people


def draw_scene(style: Style, rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    """A new street in a style, at ``size`` pixels."""
    height, width = size
    view, street = style.view, random_street(style, rng)
    camera = Camera(
        height=view.height, focal=view.field * width,
        centre=(width * rng.uniform(0.47, 0.53), height * (0.46 + view.pitch)),
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
    """Before anything stands on the ground, so that shadows lie on the ground alone."""
    for house in plan.houses:
        canvas.shadow(house.plot.footprint(), house.height)
    for thing in plan.things:
        if thing.foot is not None and thing.z < 50:
            canvas.shadow(thing.foot, thing.height)
    canvas.apply_shadows(plan.style.light.softness)


def make_plan(style: Style, street: Street, rng: np.random.Generator) -> Plan:
    """Fill the lots, then the kerbs, then the traffic."""
    plan = Plan(style, street, rng)
    for side in (-1, 1):
        line_side(plan, side)
        line_kerb(plan, side)
    if street.ends and np.isfinite(street.crossing):
        close_view(plan)
    drive_cars(plan)
    place_people(plan)
    return plan
