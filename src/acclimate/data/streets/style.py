"""What sets the two domains apart: one record of light, materials, traffic and lens, drawn per picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator
Colour = tuple[float, float, float]
Palette = tuple[Colour, ...]


@dataclass(frozen=True)
class Materials:
    """Colours and roughness of everything."""

    walls: Palette
    kinds: tuple[str, ...]
    """Facade kinds to choose from: plaster, brick, concrete, timber, glass."""
    roofs: Palette
    road: Colour
    pavement: Colour
    slab: float
    """Edge of the pavement's slabs in metres; 0: asphalt."""
    grass: Palette
    leaves: Palette
    cars: Palette
    clothes: Palette
    marking: Colour
    texture: float
    """Strength of surface noise: 1 is plain, 3 is weathered."""
    wear: float
    """0 … 1: cracks, patches, stains, faded markings."""


@dataclass(frozen=True)
class Light:
    """Sun, sky and air. Colours multiply albedo, so that sun + ambient near 1 is full daylight."""

    direction: tuple[float, float, float]
    """Unit vector towards the sun."""
    sun: Colour
    ambient: Colour
    softness: float
    """Blur of shadows in pixels."""
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    """Clouds: 0 none … 1 closed."""
    haze: float
    """Extinction per metre."""
    wet: float
    """0 … 1: how much the road mirrors."""
    lit: float
    """Share of windows and lamps that shine."""


@dataclass(frozen=True)
class Lens:
    """From light to file."""

    exposure: float
    """Mean brightness that the camera aims at; 0: none, light is taken as it comes."""
    gain: Colour
    gamma: float
    saturation: float
    vignette: float
    blur: float
    """Standard deviation in pixels."""
    motion: float
    """Length of motion blur in pixels."""
    noise: float
    quality: int
    """JPEG quality; 0: uncompressed."""


@dataclass(frozen=True)
class Traffic:
    """How often things occur: mean counts per picture, and weights of the kinds of lots."""

    cars: float
    parked: float
    """Share of free kerb with parked cars."""
    people: float
    cyclists: float
    signs: float
    lamps: float
    clutter: float
    trees: float
    """Chance of a tree per place for one."""
    lots: tuple[float, float, float, float]
    """Weights of terraces, detached houses, parks, yards."""


@dataclass(frozen=True)
class View:
    """How the camera is mounted; ``pitch`` is in picture heights, ``field`` is the focal length in picture widths."""

    height: float
    pitch: float
    roll: float
    field: float
    bonnet: float
    """Height of the own car's bonnet in picture heights; 0: not visible."""


@dataclass(frozen=True)
class Style:
    materials: Materials
    light: Light
    lens: Lens
    traffic: Traffic
    view: View


def _sun(rng: Rng, lowest: float, highest: float) -> tuple[float, float, float]:
    """A direction with an elevation between two angles (degrees), from anywhere but straight ahead."""
    azimuth, elevation = np.radians(rng.uniform(30, 330)), np.radians(rng.uniform(lowest, highest))
    flat = np.cos(elevation)
    return float(np.sin(azimuth) * flat), float(np.sin(elevation)), float(np.cos(azimuth) * flat)


def _tinted(colour: Colour, rng: Rng, spread: float) -> Colour:
    shade = 1 + rng.uniform(-spread, spread)
    return tuple(float(c * shade * (1 + rng.uniform(-spread, spread) / 3)) for c in colour)


def source_style(rng: Rng) -> Style:
    """A rendered, sunny town: bright clean colours, sharp shadows, a perfect lens."""
    materials = Materials(
        walls=((0.95, 0.86, 0.66), (0.93, 0.70, 0.52), (0.80, 0.42, 0.32), (0.96, 0.94, 0.88), (0.62, 0.74, 0.86), (0.90, 0.80, 0.42), (0.72, 0.84, 0.68)),
        kinds=("plaster", "plaster", "brick"),
        roofs=((0.78, 0.30, 0.20), (0.70, 0.36, 0.24), (0.42, 0.30, 0.28)),
        road=_tinted((0.42, 0.43, 0.46), rng, 0.05),
        pavement=_tinted((0.80, 0.74, 0.66), rng, 0.05),
        slab=1.0,
        grass=((0.40, 0.68, 0.22), (0.46, 0.72, 0.26)),
        leaves=((0.22, 0.55, 0.16), (0.30, 0.62, 0.18), (0.16, 0.48, 0.20)),
        cars=((0.85, 0.10, 0.10), (0.10, 0.28, 0.80), (0.95, 0.80, 0.10), (0.96, 0.96, 0.96), (0.10, 0.60, 0.35), (0.95, 0.50, 0.10), (0.2, 0.2, 0.24)),
        clothes=((0.90, 0.15, 0.15), (0.15, 0.35, 0.85), (0.95, 0.85, 0.20), (0.20, 0.70, 0.40), (0.9, 0.9, 0.9), (0.6, 0.2, 0.6)),
        marking=(0.96, 0.96, 0.94), texture=0.7, wear=0.0,
    )  # fmt: skip
    light = Light(
        direction=_sun(rng, 35, 65), sun=(0.62, 0.58, 0.50), ambient=(0.46, 0.49, 0.56), softness=1.0,
        zenith=(0.25, 0.50, 0.92), horizon=(0.72, 0.87, 1.0), cloud=(1.0, 1.0, 1.0), cover=float(rng.uniform(0.1, 0.45)),
        haze=0.0012, wet=0.0, lit=0.0,
    )  # fmt: skip
    lens = Lens(0.0, (1, 1, 1), gamma=1.0, saturation=1.15, vignette=0.0, blur=0.0, motion=0.0, noise=0.0, quality=0)
    traffic = Traffic(
        cars=2.2, parked=0.35, people=1.8, cyclists=0.6, signs=1.7, lamps=0.9, clutter=0.4, trees=0.45,
        lots=(0.45, 0.30, 0.15, 0.10),
    )  # fmt: skip
    view = View(
        height=float(rng.uniform(1.5, 1.7)), pitch=float(rng.uniform(-0.015, 0.015)), roll=0.0,
        field=float(rng.uniform(0.76, 0.82)), bonnet=0.0,
    )  # fmt: skip
    return Style(materials, light, lens, traffic, view)


def target_style(rng: Rng) -> Style:
    """A photographed, older town: weathered materials, poor weather, a cheap camera."""
    light = (_overcast, _dusk, _fog, _rain)[rng.choice(4, p=(0.34, 0.24, 0.20, 0.22))](rng)
    materials = Materials(
        walls=((0.46, 0.30, 0.24), (0.54, 0.50, 0.44), (0.42, 0.40, 0.38), (0.60, 0.54, 0.42), (0.36, 0.27, 0.22), (0.66, 0.63, 0.58), (0.40, 0.44, 0.46)),
        kinds=("brick", "brick", "concrete", "timber", "glass", "plaster"),
        roofs=((0.26, 0.25, 0.26), (0.34, 0.26, 0.22), (0.30, 0.33, 0.36)),
        road=_tinted((0.36, 0.34, 0.32), rng, 0.18),
        pavement=_tinted((0.50, 0.48, 0.46), rng, 0.12),
        slab=float(rng.choice([0.0, 0.5, 0.8])),
        grass=((0.42, 0.40, 0.22), (0.36, 0.40, 0.22), (0.50, 0.44, 0.28)),
        leaves=((0.30, 0.32, 0.16), (0.44, 0.34, 0.14), (0.24, 0.28, 0.20), (0.46, 0.26, 0.12)),
        cars=((0.10, 0.10, 0.11), (0.42, 0.43, 0.45), (0.70, 0.70, 0.70), (0.22, 0.24, 0.28), (0.36, 0.10, 0.10), (0.12, 0.16, 0.26), (0.50, 0.46, 0.40)),
        clothes=((0.12, 0.12, 0.14), (0.24, 0.22, 0.20), (0.34, 0.30, 0.24), (0.16, 0.20, 0.30), (0.40, 0.38, 0.36), (0.40, 0.14, 0.12)),
        marking=(0.74, 0.73, 0.68), texture=float(rng.uniform(1.4, 2.4)), wear=float(rng.uniform(0.4, 1.0)),
    )  # fmt: skip
    warmth = rng.normal(0, 0.06)
    lens = Lens(
        exposure=float(rng.uniform(0.34, 0.46)), gain=(float(1 + warmth), 1.0, float(1 - warmth)), gamma=float(rng.uniform(0.85, 1.2)),
        saturation=float(rng.uniform(0.55, 0.95)), vignette=float(rng.uniform(0.15, 0.45)), blur=float(rng.uniform(0.3, 0.8)),
        motion=float(rng.choice([0, 0, 2, 3])), noise=float(rng.uniform(0.010, 0.030)), quality=int(rng.integers(40, 75)),
    )  # fmt: skip
    traffic = Traffic(
        cars=3.0, parked=0.5, people=2.3, cyclists=0.75, signs=1.7, lamps=1.1, clutter=1.0, trees=0.55,
        lots=(0.40, 0.20, 0.20, 0.20),
    )  # fmt: skip
    view = View(
        height=float(rng.uniform(1.2, 2.1)), pitch=float(rng.normal(-0.03, 0.03)), roll=float(rng.normal(0, 0.018)),
        field=float(rng.uniform(0.66, 0.90)), bonnet=float(rng.choice([0, 0.045])),
    )  # fmt: skip
    return Style(materials, light, lens, traffic, view)


def _overcast(rng: Rng) -> Light:
    grey = float(rng.uniform(0.70, 0.92))
    return Light(
        direction=_sun(rng, 40, 70), sun=(0.12, 0.12, 0.11), ambient=(0.78, 0.80, 0.84), softness=9.0,
        zenith=(0.62 * grey, 0.66 * grey, 0.72 * grey), horizon=(grey, grey, grey), cloud=(0.94 * grey, 0.95 * grey, 0.97 * grey),
        cover=0.9, haze=float(rng.uniform(0.003, 0.008)), wet=0.0, lit=0.03,
    )  # fmt: skip


def _dusk(rng: Rng) -> Light:
    return Light(
        direction=_sun(rng, 10, 20), sun=(0.62, 0.36, 0.16), ambient=(0.38, 0.36, 0.46), softness=2.0,
        zenith=(0.34, 0.38, 0.58), horizon=(0.98, 0.66, 0.42), cloud=(0.86, 0.56, 0.50), cover=float(rng.uniform(0.3, 0.7)),
        haze=float(rng.uniform(0.003, 0.007)), wet=0.0, lit=0.25,
    )  # fmt: skip


def _fog(rng: Rng) -> Light:
    grey = float(rng.uniform(0.66, 0.82))
    return Light(
        direction=_sun(rng, 40, 70), sun=(0.05, 0.05, 0.05), ambient=(0.74, 0.75, 0.77), softness=9.0,
        zenith=(grey, grey, grey * 1.02), horizon=(grey, grey, grey * 1.01), cloud=(grey, grey, grey), cover=0.3,
        haze=float(rng.uniform(0.014, 0.028)), wet=0.15, lit=0.06,
    )  # fmt: skip


def _rain(rng: Rng) -> Light:
    grey = float(rng.uniform(0.48, 0.66))
    return Light(
        direction=_sun(rng, 40, 70), sun=(0.05, 0.05, 0.05), ambient=(0.60, 0.63, 0.68), softness=9.0,
        zenith=(0.7 * grey, 0.76 * grey, 0.84 * grey), horizon=(grey, grey, grey * 1.04), cloud=(0.8 * grey, 0.82 * grey, 0.86 * grey),
        cover=1.0, haze=float(rng.uniform(0.007, 0.014)), wet=float(rng.uniform(0.35, 0.6)), lit=0.2,
    )  # fmt: skip
