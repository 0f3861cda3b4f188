"""Charts as inline SVG: shapes alone, which stretch with the page.

Their words are HTML around them, so that text keeps its size on a phone. Horizontal places are percentages, vertical
ones pixels.

Colours are classes of the style sheet (``c0`` …), since they differ in light and dark; a dash pattern goes with each,
since not everyone tells colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

COLOURS = 8
"""How many the style sheet has."""


class Line(NamedTuple):
    """A line of a chart: points (x, y), and what its colour is called in the style sheet."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    error: Sequence[float] = ()
    """Half the height of a bar at each point."""


class Bar(NamedTuple):
    """A bar from 0 to a value in 0 … 1."""

    name: str
    value: float | None
    colour: str
    error: float = 0.0


def colour(number: int) -> str:
    """Class of the style sheet for the colour of a thing in a list."""
    return f"c{number % COLOURS}"


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; text and values are escaped, ``_`` in attribute names becomes ``-``, a last one goes."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{said}>{''.join(map(escape, children))}</{name}>")


def bars(rows: Sequence[Bar], mark: Bar | None = None, label: str = "", thickness: int = 11) -> Markup:
    """Bars below each other on a track from 0 to 1, with one mark across them (such as the ceiling)."""
    height = len(rows) * (thickness + 2) + 4
    parts = [tag("rect", class_="track", x=0, y=0, width="100%", height=height, rx=3)]
    for number, bar in enumerate(rows):
        if bar.value is None:
            continue
        y = 3 + number * (thickness + 2)
        at = _percent(bar.value)
        parts.append(tag("rect", _title(bar), class_=f"bar {bar.colour}", x=0, y=y, width=at, height=thickness, rx=2))
        if bar.error:
            low, high = (_percent(bar.value + sign * bar.error) for sign in (-1, 1))
            middle = y + thickness / 2
            parts.append(tag("line", class_="error", x1=low, x2=high, y1=middle, y2=middle))
    if mark is not None and mark.value is not None:
        at = _percent(mark.value)
        parts.append(tag("line", _title(mark), class_=f"mark {mark.colour}", x1=at, x2=at, y1=0, y2=height))
    return _svg(height, label, parts, "bars")


def lines(
    drawn: Sequence[Line],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    height: int = 150,
    label: str = "",
    grid: Sequence[float] = (),
    dots: bool = False,
    level: tuple[float, str] | None = None,
) -> Markup:
    """Lines over a common range.

    Args:
        grid: values of y at which a faint line crosses.
        dots: mark every point.
        level: a value of y with a line across, and the colour of that.
    """

    def place(x: float, y: float) -> tuple[float, float]:
        return _share(x, x_range), (height - 8) * (1 - _share(y, y_range)) + 4

    parts = []
    for value in grid:
        y = place(x_range[0], value)[1]
        parts.append(tag("line", class_="grid", x1=0, x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}"))
    if level is not None:
        y = place(x_range[0], level[0])[1]
        parts.append(tag("line", class_=f"level {level[1]}", x1=0, x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}"))
    for line in drawn:
        points = [place(x, y) for x, y in line.points if math.isfinite(y)]
        path = " ".join(f"{100 * x:.2f},{y:.1f}" for x, y in points)
        stretched = tag("polyline", class_=f"line {line.colour}", points=path)
        view = {"viewBox": f"0 0 100 {height}", "preserveAspectRatio": "none"}
        parts.append(tag("svg", stretched, width="100%", height=height, **view))
        for (x, y), half in zip(line.points, line.error, strict=False):
            (at, low), (_, high) = place(x, y - half), place(x, y + half)
            across = _percent(at)
            parts.append(tag("line", class_="error", x1=across, x2=across, y1=f"{low:.1f}", y2=f"{high:.1f}"))
        for (x, y), (_, value) in zip(points, line.points, strict=False):
            if dots or len(points) == 1:
                said = tag("title", f"{line.name}: {_short(value)}")
                parts.append(tag("circle", said, class_=f"dot {line.colour}", cx=_percent(x), cy=f"{y:.1f}", r=4))
    return _svg(height, label, parts, "lines")


def nice(top: float, parts: int = 4) -> list[float]:
    """Round values from 0 to at least ``top``, in about so many parts."""
    if not (math.isfinite(top) and top > 0):
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(top / parts))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * parts >= top * (1 - 1e-9))
    return [step * number for number in range(math.ceil(top / step - 1e-9) + 1)]


def _svg(height: int, label: str, parts: Sequence[str], kind: str) -> Markup:
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return tag("svg", *parts, class_=f"chart {kind}", width="100%", height=height, **named)


def _title(bar: Bar) -> Markup:
    return tag("title", f"{bar.name}: {100 * (bar.value or 0):.1f} %")


def _share(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return (value - low) / (high - low) if high > low else 0.5


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _short(value: float) -> str:
    return f"{value:.3g}"
