"""What a picture looks like: one record each of materials, light, lens, traffic and view."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]
Palette = tuple[Colour, ...]


def shaded(colour: Colour, by: float) -> Colour:
    """The colour times a factor."""
    red, green, blue = colour
    return red * by, green * by, blue * by


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share of the second."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


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
    motion: int
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
    """All of it."""

    materials: Materials
    light: Light
    lens: Lens
    traffic: Traffic
    view: View
