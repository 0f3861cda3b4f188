"""Light and air: a sunny day, and four kinds of worse ones."""

from __future__ import annotations

import numpy as np

from acclimate.data.streets.style import Colour, Light

Rng = np.random.Generator


def sunny(rng: Rng) -> Light:
    """Clear air under a blue sky."""
    return Light(
        direction=_sun(rng, 35, 65),
        sun=(0.62, 0.58, 0.50), ambient=(0.46, 0.49, 0.56), softness=1.0,
        zenith=(0.25, 0.50, 0.92), horizon=(0.72, 0.87, 1.0), cloud=(1.0, 1.0, 1.0), cover=rng.uniform(0.1, 0.45),
        haze=0.0012, wet=0.0, lit=0.0,
    )  # fmt: skip


def overcast(rng: Rng) -> Light:
    """A closed grey sky, almost without shadows."""
    grey = rng.uniform(0.70, 0.92)
    return Light(
        direction=_sun(rng, 40, 70),
        sun=(0.12, 0.12, 0.11), ambient=(0.78, 0.80, 0.84), softness=9.0,
        zenith=_times(grey, 0.72, 0.78, 0.88), horizon=_times(grey, 1, 1, 1.02), cloud=_times(grey, 0.96, 0.97, 0.99),
        cover=0.9, haze=rng.uniform(0.003, 0.008), wet=0.0, lit=0.03,
    )  # fmt: skip


def dusk(rng: Rng) -> Light:
    """A low orange sun, long shadows, lamps in the windows."""
    return Light(
        direction=_sun(rng, 10, 20),
        sun=(0.62, 0.36, 0.16), ambient=(0.38, 0.36, 0.46), softness=2.0,
        zenith=(0.36, 0.46, 0.74), horizon=(0.98, 0.66, 0.42), cloud=(0.86, 0.56, 0.50), cover=rng.uniform(0.3, 0.7),
        haze=rng.uniform(0.003, 0.007), wet=0.0, lit=0.25,
    )  # fmt: skip


def fog(rng: Rng) -> Light:
    """Grey air that swallows the end of the street."""
    grey = rng.uniform(0.66, 0.82)
    return Light(
        direction=_sun(rng, 40, 70),
        sun=(0.05, 0.05, 0.05), ambient=(0.74, 0.75, 0.77), softness=9.0,
        zenith=_times(grey, 1, 1, 1.02), horizon=_times(grey, 1, 1, 1.01), cloud=_times(grey, 1, 1, 1), cover=0.3,
        haze=rng.uniform(0.011, 0.022), wet=0.15, lit=0.06,
    )  # fmt: skip


def rain(rng: Rng) -> Light:
    """Dark clouds over wet, mirroring roads."""
    grey = rng.uniform(0.48, 0.66)
    return Light(
        direction=_sun(rng, 40, 70),
        sun=(0.05, 0.05, 0.05), ambient=(0.60, 0.63, 0.68), softness=9.0,
        zenith=_times(grey, 0.70, 0.76, 0.84), horizon=_times(grey, 1, 1, 1.04), cloud=_times(grey, 0.80, 0.82, 0.86),
        cover=1.0, haze=rng.uniform(0.007, 0.014), wet=rng.uniform(0.35, 0.6), lit=0.2,
    )  # fmt: skip


def _times(grey: float, red: float, green: float, blue: float) -> Colour:
    return grey * red, grey * green, grey * blue


def _sun(rng: Rng, lowest: float, highest: float) -> tuple[float, float, float]:
    """A direction with an elevation between two angles (degrees), from anywhere but straight ahead."""
    azimuth, elevation = np.radians(rng.uniform(30, 330)), np.radians(rng.uniform(lowest, highest))
    flat = np.cos(elevation)
    return float(np.sin(azimuth) * flat), float(np.sin(elevation)), float(np.cos(azimuth) * flat)
