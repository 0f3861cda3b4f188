"""A picture of one of the two domains."""

from __future__ import annotations

from typing import Literal

import numpy as np

from acclimate.data.seeding import generator
from acclimate.data.streets.look import develop
from acclimate.data.streets.scene import draw_scene
from acclimate.data.streets.style import source_style, target_style

SIZE = (144, 256)
"""Height and width of the pictures."""

Domain = Literal["source", "target"]
_STYLES = {"source": source_style, "target": target_style}


def render(domain: Domain, seed: int, index: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``index`` of a domain: image (H, W, 3) and train ids (H, W), both uint8; 255 is ignored.

    A pure function of its arguments. The classes are those of label space ``streets``, see `Class`.
    """
    rng = generator(seed, f"streets/{domain}", index)
    style = _STYLES[domain](rng)
    canvas = draw_scene(style, rng, (2 * size[0], 2 * size[1]))
    return develop(canvas, style, rng)
