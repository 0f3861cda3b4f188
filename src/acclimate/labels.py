"""Label spaces (what a model predicts) and label tables (what raw values in label files mean)."""

from __future__ import annotations

import colorsys
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from acclimate import label_tables, yamls
from acclimate.errors import UserError
from acclimate.label_tables import Colour
from acclimate.printable import is_plain, shown

IGNORE = 255
"""Label id of pixels that neither teach nor count."""

_UNKNOWN = 254  # marks raw values without a meaning while encoding; never leaves this file
_LARGEST_ID = 65535  # of a 16-bit label file


class UnknownValues(UserError):
    """A label file holds values that the table does not list, or colours for ids, or ids for colours."""


@dataclass(frozen=True)
class LabelSpace:
    """What a model predicts: class ``i`` has the name ``classes[i]`` and the colour ``colours[i]`` (RGB, 0 … 255).

    Raises `UserError` for an empty list, doubled names, or colours that do not match the names.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        problem = _space_problem(self.classes, self.colours)
        if problem:
            raise UserError(f"label space {self.name}: {problem}")

    def __len__(self) -> int:
        return len(self.classes)

    def colour_map(self) -> np.ndarray:
        """uint8 256x3: colour of every label id; ids without a class, such as `IGNORE`, are black."""
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self)] = self.colours
        return colours

    def palette(self) -> bytes:
        """The colour map as the 768 bytes that ``PIL.Image.putpalette`` takes."""
        return self.colour_map().tobytes()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON."""
        return {"name": self.name, "classes": list(self.classes), "colours": [list(c) for c in self.colours]}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> LabelSpace:
        """Inverse of `to_dict`; raises `UserError` where the tree is not one."""
        try:
            name, classes = str(tree["name"]), tuple(tree["classes"])
            colours = tuple((int(r), int(g), int(b)) for r, g, b in tree["colours"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a label space (name, classes, colours): {error!r}") from None
        return cls(name, classes, colours)


@dataclass(frozen=True)
class LabelTable:
    """Meaning of the raw values in label files: either ids or RGB colours → train id (or `IGNORE`)."""

    ids: Mapping[int, int] = field(default_factory=dict)
    """Raw ids in -1 … 65535."""
    colours: Mapping[Colour, int] = field(default_factory=dict)
    unknown: Literal["error", "ignore"] = "error"
    """What becomes of values that are not listed."""
    origin: str = "label table"
    """Where the table comes from, for messages: a scheme's name or a label map's path."""

    @property
    def by_colour(self) -> bool:
        """Whether label files hold colours (RGB) rather than ids (one value per pixel)."""
        return bool(self.colours)

    def encode(self, raw: np.ndarray, file: Path) -> np.ndarray:
        """Train ids, uint8 HW, of raw ids (any integer type, HW) or raw colours (uint8 HW3).

        Raises:
            UnknownValues: values that the table does not list, or colours for ids and the reverse.
        """
        if self.by_colour != (raw.ndim == 3):
            expected, found = ("colours", "single ids") if self.by_colour else ("single ids", "colours")
            raise UnknownValues(
                f"{file}: holds {found}, but {self.origin} lists {expected}; set `ids` of this data to a label map "
                f"that lists {found}, or give the label files that hold {expected}"
            )
        label_HW = self._colour_lut[_colour_code(raw)] if self.by_colour else self._id_lut[_lut_index(raw)]
        unknown_HW = label_HW == _UNKNOWN
        if unknown_HW.any():
            raise UnknownValues(self._unknown_message(raw[unknown_HW], file))
        return label_HW

    @cached_property
    def _id_lut(self) -> np.ndarray:
        """uint8: train id at the raw id; the last entry, at index -1, is raw id -1; before it, out of range."""
        lut = np.full(_LARGEST_ID + 3, self._otherwise, np.uint8)
        lut[list(self.ids)] = list(self.ids.values())
        return lut

    @cached_property
    def _colour_lut(self) -> np.ndarray:
        """uint8: train id at the 24-bit colour code; 16 MiB buy a lookup faster than decoding the file."""
        lut = np.full(1 << 24, self._otherwise, np.uint8)
        lut[_colour_code(np.array(list(self.colours), np.uint8))] = list(self.colours.values())
        return lut

    @property
    def _otherwise(self) -> int:
        return IGNORE if self.unknown == "ignore" else _UNKNOWN

    def _unknown_message(self, values: np.ndarray, file: Path) -> str:
        found = [_show(v) for v in np.unique(values, axis=0).tolist()]
        shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        kind = ("colour" if self.by_colour else "id") + ("s" if len(found) > 1 else "")
        return (
            f"{file}: label {kind} {shown} not in {self.origin}; add to the label map what they mean (`ignore` is a "
            f"meaning too), write `other: ignore` in it, or correct `ids` of this data"
        )


def label_space(name: str) -> LabelSpace:
    """A built-in label space; raises `UserError` with the nearest name where there is none."""
    table = label_tables.SPACES.get(name)
    if table is None:
        nearest = _nearest(name, label_tables.SPACES)
        raise UserError(f"label space {name!r} is unknown{nearest}; or give the path of a label map (*.yaml)")
    return LabelSpace(name, tuple(table), tuple(table.values()))


def schemes() -> tuple[str, ...]:
    """Names of all schemes that `label_table` knows."""
    return (*label_tables.ID_SCHEMES, *label_tables.COLOUR_SCHEMES, "train")


def label_table(space: LabelSpace, scheme: str) -> LabelTable:
    """What a scheme's raw values mean in a label space; scheme ``train``: 0 … K-1, and 255 is ignored.

    Raises:
        UserError: the scheme is unknown, or it cannot tell all classes of the space apart.
    """
    origin = f"scheme `{scheme}`"
    if scheme == "train":
        return LabelTable({**{i: i for i in range(len(space))}, IGNORE: IGNORE}, origin=origin)
    train_ids = {name: i for i, name in enumerate(space.classes)}
    groups = label_tables.GROUPS.get(space.name, {})

    def train_id(raw_name: str) -> int:
        return train_ids.get(groups.get(raw_name, raw_name), IGNORE)

    ids = {i: train_id(name) for i, name in label_tables.ID_SCHEMES.get(scheme, {}).items()}
    colours = {c: train_id(name) for c, name in label_tables.COLOUR_SCHEMES.get(scheme, {}).items()}
    if not ids and not colours:
        nearest = _nearest(scheme, schemes())
        raise UserError(f"label scheme {scheme!r} is unknown{nearest}; or give the path of a label map (*.yaml)")
    reached = {*ids.values(), *colours.values()}
    missing = [name for name, i in train_ids.items() if i not in reached]
    if missing:
        raise UserError(
            f"{origin} has no value for {', '.join(missing)} of label space {space.name}; "
            f"set `ids` to a label map that says which values mean these classes"
        )
    return LabelTable(ids, colours, origin=origin)


def read_label_map(path: str | Path, space: LabelSpace | None = None) -> tuple[LabelSpace, LabelTable]:
    """Read an own label map: YAML with ``raw id or "#rrggbb": class name`` lines.

    The name ``ignore`` marks values to ignore; ``other: ignore`` ignores all values that are not listed (else
    they are errors); ``colours:`` may give display colours by class name. Classes are numbered as they first
    appear, unless ``space`` is given: then every name must be in it, and it is returned.

    Raises:
        UserError: the file cannot be read, or the map has problems (all are listed).
    """
    path = Path(path)
    tree, problems = _load_map(path)
    shown_as, other = tree.pop("colours", None) or {}, tree.pop("other", None)
    if other not in (None, "ignore"):
        problems.append(f"other: only `other: ignore` is known, found {shown(other)}")
    values: dict[Any, str] = {}
    for key, name in tree.items():
        value = _raw_value(key)
        if value is None:
            problems.append(f"{key}: expected a raw id in -1 … {_LARGEST_ID} or a quoted colour such as '#804080'")
        elif not isinstance(name, str) or not name:
            found = shown(name)
            problems.append(f"{key}: expected a class name or ignore, found {found}; put names in quotes if need be")
        else:
            values[value] = name
    names = list(dict.fromkeys(name for name in values.values() if name != "ignore"))
    problems += _map_problems(values, names, space)
    given, colour_problems = _display_colours(shown_as, names)
    problems += colour_problems
    if problems:
        listing = "\n".join(f"  - {p}" for p in problems)
        raise UserError(f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)} in the label map:\n{listing}")
    if space is None:
        space = LabelSpace(path.stem, tuple(names), _distinct_colours(names, given))
    meaning = {v: IGNORE if name == "ignore" else space.classes.index(name) for v, name in values.items()}
    ids = {v: i for v, i in meaning.items() if isinstance(v, int)}
    colours = {v: i for v, i in meaning.items() if isinstance(v, tuple)}
    return space, LabelTable(ids, colours, "ignore" if other else "error", origin=str(path))


def _load_map(path: Path) -> tuple[dict[Any, Any], list[str]]:
    """The map's top level, and problems that YAML passes over in silence: doubled keys, unquoted colours."""
    try:
        text = yamls.read_text(path)
        tree, node = yamls.parse(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such label map") from None
    except OSError as error:
        raise UserError(f"{path}: the label map cannot be read: {error.strerror}") from None
    except yamls.NotReadable as error:
        raise UserError(f"{path}: the label map cannot be read: {error}") from None
    if not isinstance(tree, dict) or node is None:
        raise UserError(f"{path}: a label map has lines such as `7: road`, found {type(tree).__name__}")
    keys = [key.value.lower() for key, _ in node.value]
    problems = [f"{key}: listed {keys.count(key)} times" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    unquoted = re.findall(r"^\s*(#[0-9a-fA-F]{6})\s*:", text, re.MULTILINE)
    problems += [f"{colour}: YAML takes this line as a comment; write '{colour}' in quotes" for colour in unquoted]
    return tree, problems


def _raw_value(key: Any) -> int | Colour | None:
    """A raw id, a colour, or None where the key is neither."""
    if isinstance(key, int) and not isinstance(key, bool) and -1 <= key <= _LARGEST_ID:
        return key
    return _parse_colour(key)


def _parse_colour(text: Any) -> Colour | None:
    if not isinstance(text, str) or not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _map_problems(values: Mapping[Any, str], names: list[str], space: LabelSpace | None) -> Iterator[str]:
    if len({type(value) for value in values}) > 1:
        yield "lists both ids and colours; label files hold one or the other"
    for name in names:
        if not is_plain(name):
            yield f"class names must be plain text without control characters, found {name!r}"
    if space is not None:
        for name in names:
            if name not in space.classes:
                nearest = _nearest(name, space.classes, "classes are")
                yield f"{name}: not a class of label space {space.name}{nearest}"
    elif len(names) < 2:
        yield f"names {len(names)} classes; at least 2 are needed"
    elif len(names) >= _UNKNOWN:
        yield f"names {len(names)} classes; at most {_UNKNOWN - 1} are possible"


def _display_colours(shown_as: Any, names: list[str]) -> tuple[dict[str, Colour], list[str]]:
    if not isinstance(shown_as, dict):
        return {}, [f"colours: expected lines such as `road: '#804080'`, found {shown(shown_as)}"]
    parsed = {name: _parse_colour(colour) for name, colour in shown_as.items()}
    problems = [f"colours: {name} is not a class of this map{_nearest(str(name), names, 'classes are')}"
                for name in parsed if name not in names]  # fmt: skip
    problems += [f"colours: {name}: expected a quoted colour such as '#804080', found {shown(shown_as[name])}"
                 for name, colour in parsed.items() if colour is None]  # fmt: skip
    return {name: colour for name, colour in parsed.items() if colour is not None}, problems


def _distinct_colours(names: Iterable[str], given: Mapping[str, Colour]) -> tuple[Colour, ...]:
    """The given colour, else that of a known space's class of this name, else a new hue."""
    known = {**label_tables.CAMVID, **label_tables.STREETS, **label_tables.CITYSCAPES}
    colours: list[Colour] = []
    for i, name in enumerate(names):
        colour = given.get(name) or known.get(name)
        if colour is None or (name not in given and colour in colours):
            colour = _hue(i)
        colours.append(colour)
    return tuple(colours)


def _hue(index: int) -> Colour:
    """Hues in golden-ratio steps lie far apart however many are drawn."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.55 + 0.15 * (index % 3), 0.95 - 0.2 * (index % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def _space_problem(classes: tuple[str, ...], colours: tuple[Colour, ...]) -> str:
    if not 0 < len(classes) < _UNKNOWN:
        return f"has {len(classes)} classes, expected 1 … {_UNKNOWN - 1}"
    if any(not isinstance(name, str) or not name for name in classes) or len(set(classes)) < len(classes):
        return f"class names must be different, non-empty texts, found {shown(classes)}"
    unseen = [name for name in classes if not is_plain(name)]
    if unseen:
        return f"class names must be plain text without control characters, found {unseen[0]!r}"
    if len(colours) != len(classes) or any(not 0 <= v <= 255 for colour in colours for v in colour):
        return "expected one colour of three values in 0 … 255 for each class"
    return ""


def _lut_index(raw: np.ndarray) -> np.ndarray:
    """Raw ids as places in the table's array; values that no file format intends share one place."""
    if raw.dtype in (np.uint8, np.uint16):
        return raw
    return np.where((raw < -1) | (raw > _LARGEST_ID), _LARGEST_ID + 1, raw)


def _colour_code(rgb: np.ndarray) -> np.ndarray:
    return (rgb[..., 0].astype(np.int32) << 16) | (rgb[..., 1].astype(np.int32) << 8) | rgb[..., 2]


def _show(value: int | list[int]) -> str:
    return str(value) if isinstance(value, int) else "#" + "".join(f"{v:02x}" for v in value)


def _nearest(word: str, known: Iterable[str], listing: str = "known are") -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return (f" (did you mean {close[0]}?)" if close else "") + f"; {listing}: {', '.join(known)}"
