"""Whether label files mean what the recipe says, judged by the values that occur in them.

Two known schemes can be mistaken for each other without a single unknown value: train ids read as Cityscapes ids
are roads, sidewalks and poles in wrong places. What gives them away is that under the wrong scheme most classes
never occur, while another scheme explains every value and finds them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from acclimate.data.datasets import LabelledSet
from acclimate.data.layouts import Arrangement
from acclimate.data.releases import is_older_synthia
from acclimate.errors import UserError
from acclimate.label_tables import Colour
from acclimate.labels import IGNORE, LabelSpace, LabelTable, label_table, schemes

Value = int | Colour
"""A raw id, or a raw colour."""

_MOST = 300  # values of one file; what has more is no label, and no scheme lists that many
_ENOUGH = 20  # labels of which one at least would show a class that is not rare


@dataclass(frozen=True)
class Doubt:
    """What speaks against the scheme that labels are read with."""

    message: str
    grave: bool
    """Correct labels can hardly look like this."""
    covers_unknown: bool
    """The message says what becomes of the values that the scheme does not know."""


@dataclass(frozen=True)
class Misreading:
    """A known scheme explains the labels better than the one they are read with."""

    scheme: str
    """The scheme that fits."""
    classes: int
    """Classes of the label space that occur if the labels are read with it."""
    instead_of: int
    """Classes that occur as they are read now."""
    unknown: tuple[Value, ...]
    """Values without a meaning as they are read now."""
    grave: bool
    """Correct labels can hardly look like this."""


def values_in(raw: np.ndarray) -> set[Value]:
    """The different ids (HW) or colours (HW3) of one label file, 300 at most."""
    if raw.ndim == 3:
        code_HW = raw.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        return {(c >> 16, c >> 8 & 255, c & 255) for c in np.unique(code_HW)[:_MOST].tolist()}
    few = np.flatnonzero(np.bincount(raw.ravel())) if raw.dtype in (np.uint8, np.uint16) else np.unique(raw)
    return set(few[:_MOST].tolist())


def doubt(
    images: LabelledSet, arrangement: Arrangement, role: str, values: Collection[Value], files: int, refused: int
) -> Doubt | None:
    """What speaks against the reading of a set. An own label map is the user's word: never doubted.

    Args:
        images: the set as it is read.
        arrangement: its place on disk.
        role: its place in the recipe, for messages.
        values: raw values of all labels that were decoded.
        files: how many those were.
        refused: how many of them hold values that the scheme does not know.
    """
    if not images.scheme or not values:
        return None
    found = misreading(values, images.space, images.table, mostly_unknown=2 * refused >= files)
    if found is not None:
        return Doubt(_message(found, images, arrangement, role), found.grave, bool(found.unknown))
    if images.scheme == "synthia" and is_older_synthia(values):
        return Doubt(_OLDER_SYNTHIA.format(role=role, files=files), files >= _ENOUGH, False)
    return None


def misreading(
    values: Collection[Value], space: LabelSpace, table: LabelTable, mostly_unknown: bool = False
) -> Misreading | None:
    """The better reading of labels in which these values occur, if there is one and the evidence is clear.

    Args:
        values: all that occur in the labels.
        space: the classes wanted.
        table: of a known scheme, with which they are read now.
        mostly_unknown: whether half of the files or more hold values that the table does not list.
    """
    unknown = tuple(sorted(set(values) - _meanings(table).keys(), key=str))
    now = _classes(values, table)
    explained = {scheme: _explained(values, space, scheme) for scheme in schemes()}
    best = max(explained, key=lambda scheme: explained[scheme])
    gain = explained[best] - now
    if unknown:  # wrong in any case; the question is whether this scheme is the remedy
        credible, grave = gain >= 0 or (mostly_unknown and 2 * explained[best] >= now), True
    else:
        credible = gain >= max(3, len(space) / 4) and 2 * explained[best] >= len(space)
        grave = 3 * explained[best] >= 2 * len(space)
    if not credible or explained[best] < 2:
        return None
    return Misreading(best, explained[best], now, unknown, grave)


def _explained(values: Collection[Value], space: LabelSpace, scheme: str) -> int:
    """Number of classes that a scheme finds in the values; 0 where it does not know them all."""
    try:
        table = label_table(space, scheme)
    except UserError:  # the scheme lacks classes of the space
        return 0
    return _classes(values, table) if _meanings(table).keys() >= set(values) else 0


def _classes(values: Collection[Value], table: LabelTable) -> int:
    meanings = _meanings(table)
    return len({meanings.get(value, IGNORE) for value in values} - {IGNORE})


def _meanings(table: LabelTable) -> dict[Value, int]:
    return {**table.ids, **table.colours}


def _message(found: Misreading, images: LabelledSet, arrangement: Arrangement, role: str) -> str:
    shown = [str(value) if isinstance(value, int) else "#" + bytes(value).hex() for value in found.unknown[:6]]
    more = " …" if len(found.unknown) > len(shown) else ""
    unknown = f", and {', '.join(shown)}{more} mean nothing" if shown else ""
    # In layout cityscapes, ids chooses the kind of file too: name the files that are meant.
    files = f" and data.{role}.labels to {arrangement.labels}" if arrangement.instead[0] else ""
    return (
        f"data.{role}: read as scheme `{images.scheme}`, labels such as {images.samples[0].label} hold "
        f"{found.instead_of} of {len(images.space)} classes{unknown}; read as `{found.scheme}`, they hold "
        f"{found.classes} and every value has a meaning. Set data.{role}.ids to {found.scheme}{files}, or to a label "
        f"map that says what the values mean"
    )


_OLDER_SYNTHIA = (
    "data.{role}: road work, rider, bus, wall and lane marking (14, 17, 19, 21, 22) never occur in {files} labels, as "
    "in SYNTHIA's releases of 13 classes, in which 12 is lane marking and not motorcycle; download "
    "SYNTHIA-RAND-CITYSCAPES, or set data.{role}.ids to a label map that says what the values mean"
)
