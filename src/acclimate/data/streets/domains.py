"""The two domains: how each draws the style of a picture, and the picture itself."""

from __future__ import annotations

from typing import Literal

import numpy as np

from acclimate.data.seeding import generator
from acclimate.data.streets import weather
from acclimate.data.streets.look import develop
from acclimate.data.streets.scene import draw_scene
from acclimate.data.streets.style import Colour, Lens, Materials, Palette, Style, Traffic, View

SIZE = (144, 256)
"""Height and width of the pictures."""

Domain = Literal["source", "target"]
Rng = np.random.Generator


def render(domain: Domain, seed: int, index: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``index`` of a domain: image (H, W, 3) and train ids (H, W), both uint8; 255 is ignored.

    A pure function of its arguments. The classes are those of label space ``streets``, see `Class`.
    """
    rng = generator(seed, f"streets/{domain}", index)
    style = source_style(rng) if domain == "source" else target_style(rng)
    canvas = draw_scene(style, rng, (2 * size[0], 2 * size[1]))
    return develop(canvas, style, rng)


def source_style(rng: Rng) -> Style:
    """A rendered, sunny town: bright clean colours, sharp shadows, a perfect lens on a fixed mount."""
    return Style(
        light=weather.sunny(rng),
        materials=_new_materials(rng),
        lens=Lens(
            exposure=0, gain=(1, 1, 1), gamma=1, saturation=1.15, vignette=0, blur=0, motion=0, noise=0, quality=0
        ),
        traffic=Traffic(
            cars=2.2, parked=0.35, people=2.2, cyclists=0.9, signs=1.2, lamps=0.9, clutter=0.4, trees=0.45,
            lots=(0.45, 0.30, 0.15, 0.10),
        ),
        view=View(
            height=rng.uniform(1.5, 1.7), pitch=rng.uniform(-0.015, 0.015), roll=0.0, field=rng.uniform(0.76, 0.82),
            bonnet=0.0,
        ),
    )  # fmt: skip


def target_style(rng: Rng) -> Style:
    """A photographed, older town: weathered materials, poor weather, a cheap camera in a shaking car."""
    sky = (weather.overcast, weather.dusk, weather.fog, weather.rain)[rng.choice(4, p=(0.32, 0.25, 0.20, 0.23))]
    return Style(
        light=sky(rng),
        materials=_old_materials(rng),
        lens=_cheap_lens(rng),
        traffic=Traffic(
            cars=3.0, parked=0.5, people=2.6, cyclists=1.0, signs=1.2, lamps=1.1, clutter=1.0, trees=0.55,
            lots=(0.40, 0.20, 0.20, 0.20),
        ),
        view=View(
            height=rng.uniform(1.2, 2.1), pitch=rng.normal(-0.03, 0.03), roll=rng.normal(0, 0.018),
            field=rng.uniform(0.66, 0.90), bonnet=rng.choice([0.0, 0.045]),
        ),
    )  # fmt: skip


def _new_materials(rng: Rng) -> Materials:
    return Materials(
        walls=_palette("f2dba8 edb285 cc6b52 f5f0e0 9ebddb e6cc6b b8d6ad"),
        kinds=("plaster", "plaster", "brick"),
        roofs=_palette("c74c33 b25c3d 6b4c47"),
        road=_tinted((0.42, 0.43, 0.46), rng, 0.05),
        pavement=_tinted((0.80, 0.74, 0.66), rng, 0.05),
        slab=1.0,
        grass=_palette("66ad38 75b842"),
        leaves=_palette("388c29 4c9e2e 297a33"),
        cars=_palette("d91a1a 1a47cc f2cc1a f5f5f5 1a9959 f2801a 33333d"),
        clothes=_palette("e62626 2659d9 f2d933 33b266 e6e6e6 993399"),
        marking=(0.96, 0.96, 0.94),
        texture=0.7,
        wear=0.0,
    )


def _old_materials(rng: Rng) -> Materials:
    return Materials(
        walls=_palette("754c3d 8a8070 6b6661 998a6b 5c4538 a8a194 667075"),
        kinds=("brick", "brick", "concrete", "timber", "glass", "plaster"),
        roofs=_palette("424042 574238 4c545c"),
        road=_tinted((0.36, 0.34, 0.32), rng, 0.18),
        pavement=_tinted((0.55, 0.52, 0.49), rng, 0.12),
        slab=rng.choice([0.0, 0.5, 0.8]),
        grass=_palette("6b6638 5c6638 807047"),
        leaves=_palette("4c5229 705724 3f5a33 75421f 56692e"),
        cars=_palette("1a1a1c 6b6e73 b2b2b2 383d47 8c2222 24407a 807566 d8d8d4"),
        clothes=_palette("1f1f24 3d3833 574c3d 29334c 8c8880 94302a 2f5a8c c2aa3c"),
        marking=(0.74, 0.73, 0.68),
        texture=rng.uniform(1.4, 2.4),
        wear=rng.uniform(0.4, 1.0),
    )


def _cheap_lens(rng: Rng) -> Lens:
    warmth = rng.normal(0, 0.06)
    return Lens(
        exposure=rng.uniform(0.36, 0.50),
        gain=(1 + warmth, 1.0, 1 - warmth),
        gamma=rng.uniform(0.85, 1.2),
        saturation=rng.uniform(0.6, 0.95),
        vignette=rng.uniform(0.15, 0.45),
        blur=rng.uniform(0.3, 0.8),
        motion=int(rng.choice([0, 0, 2, 3])),
        noise=rng.uniform(0.008, 0.024),
        quality=int(rng.integers(40, 75)),
    )


def _tinted(colour: Colour, rng: Rng, spread: float) -> Colour:
    shade = 1 + rng.uniform(-spread, spread)
    red, green, blue = (c * shade * (1 + rng.uniform(-spread, spread) / 3) for c in colour)
    return red, green, blue


def _palette(codes: str) -> Palette:
    """Colours from their hexadecimal codes."""
    values = (bytes.fromhex(code) for code in codes.split())
    return tuple((red / 255, green / 255, blue / 255) for red, green, blue in values)
