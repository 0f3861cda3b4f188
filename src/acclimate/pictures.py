"""Label maps to look at: in colour, over their photo, and side by side through the stages of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from acclimate.files import atomic
from acclimate.labels import IGNORE, LabelSpace

INK, FAINT, PAPER, DARK = (32, 33, 36), (120, 124, 130), (255, 255, 255), (28, 28, 32)
"""Colours of text, of what stands back, of the background, and of ignored pixels."""

CELL, GAP, MARGIN = 288, 8, 24
"""Pixels: width of the pictures in a comparison, space between them, space around all."""

TITLE, NOTE = 25, 19
"""Sizes of text: legible where seven columns are shown at half their size."""


def colourise(label_HW: np.ndarray, space: LabelSpace) -> np.ndarray:
    """The label map in the classes' colours, uint8 HWC; ignored pixels are dark."""
    colours = space.colour_map()
    colours[IGNORE] = DARK
    return colours[label_HW]


def overlay(image_HWC: np.ndarray, label_HW: np.ndarray, space: LabelSpace, opacity: float = 0.55) -> np.ndarray:
    """The photo (uint8 HWC) tinted with the classes' colours; where the label is ignored it shows through, darkened."""
    mixed = (1 - opacity) * image_HWC + opacity * colourise(label_HW, space)
    return mixed.round().astype(np.uint8)


def mask(label_HW: np.ndarray, space: LabelSpace) -> Image.Image:
    """The label map as a palette image: its values are the label ids, viewers show the classes' colours."""
    image = Image.fromarray(label_HW)
    image.putpalette(space.palette())
    return image


def comparison(
    rows: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]], headers: Sequence[str], space: LabelSpace, path: Path
) -> None:
    """Write one PNG: a row per photo, a column per label map of it, headers above, the classes' colours below.

    Args:
        rows: photo (uint8 HWC) and its label maps (uint8 HW), the same number in each row.
        headers: one per column, the photo's included; what follows a line break is shown smaller, such as a score.
        path: the file to write.
    """
    cells = [[_fit(photo, Image.Resampling.BICUBIC),
              *(_fit(colourise(label, space), Image.Resampling.NEAREST) for label in labels)]
             for photo, labels in rows]  # fmt: skip
    heights = [max(cell.height for cell in row) for row in cells]
    width = len(headers) * (CELL + GAP) - GAP
    head, legend = _head(headers, width), _legend(space, width)

    sheet = Image.new("RGB", (width, head.height + sum(heights) + GAP * len(rows) + legend.height), PAPER)
    sheet.paste(head, (0, 0))
    y = head.height
    for row, height in zip(cells, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (CELL + GAP), y))
        y += height + GAP
    sheet.paste(legend, (0, y))
    save(ImageOps.expand(sheet, MARGIN, PAPER), path)


def save(picture: Image.Image | np.ndarray, path: Path) -> None:
    """Write a picture (PNG, or JPEG by the path's suffix), whole or not at all."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    with atomic(path) as temporary:
        if path.suffix in {".jpg", ".jpeg"}:
            image.save(temporary, "JPEG", quality=90)
        else:
            image.save(temporary, "PNG")


def _fit(picture_HWC: np.ndarray, growing: Image.Resampling) -> Image.Image:
    """The picture at the width of a cell, height in proportion; smooth when it shrinks."""
    image = Image.fromarray(picture_HWC)
    how = Image.Resampling.BOX if image.width > CELL else growing
    return image.resize((CELL, max(1, round(image.height * CELL / image.width))), how)


def _head(headers: Sequence[str], width: int) -> Image.Image:
    """The line of headers, with a second one in small where a header has a line break."""
    strip = Image.new("RGB", (width, TITLE + 12 + (NOTE + 8) * any("\n" in header for header in headers)), PAPER)
    draw = ImageDraw.Draw(strip)
    for column, header in enumerate(headers):
        first, _, second = header.partition("\n")
        draw.text((column * (CELL + GAP), 0), first, INK, ImageFont.load_default(TITLE))
        draw.text((column * (CELL + GAP), TITLE + 8), second, FAINT, ImageFont.load_default(NOTE))
    return strip


def _legend(space: LabelSpace, width: int) -> Image.Image:
    """A chip of colour and the name for every class, left to right in as many lines as it takes."""
    font, chip, line = ImageFont.load_default(NOTE), NOTE + 8, NOTE + 14
    places, x, y = [], 0, 12
    for name in space.classes:
        length = chip + 8 + round(font.getlength(name))
        if x and x + length > width:
            x, y = 0, y + line
        places.append((x, y))
        x += length + 24
    strip = Image.new("RGB", (width, y + line), PAPER)
    draw = ImageDraw.Draw(strip)
    for (x, y), name, colour in zip(places, space.classes, space.colours, strict=True):
        draw.rounded_rectangle((x, y + 3, x + chip, y + NOTE + 1), 4, colour)
        draw.text((x + chip + 8, y), name, INK, font)
    return strip
