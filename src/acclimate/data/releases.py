"""What the public data sets have when they are downloaded in full, and GTA5's list of splits.

GTA5: download.visinf.tu-darmstadt.de/data/from_games. SYNTHIA-RAND-CITYSCAPES: its README. Cityscapes: the file
names of its packages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from acclimate.errors import UserError

_NUMBERED = {
    "gta5": ("GTA5", range(1, 24967), "05d"),
    "synthia": ("SYNTHIA-RAND-CITYSCAPES", range(9400), "07d"),
}
"""Name of the release, and the numbers that name its images, by layout."""

_CITIES: dict[str, dict[str, int]] = {
    "train": {
        "aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221, "erfurt": 109,
        "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94, "strasbourg": 365,
        "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {"berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398},
}  # fmt: skip
"""Images of each city by split of Cityscapes."""

_SYNTHIA_ONLY_NEW = frozenset({14, 17, 19, 21, 22})
"""Ids that occur in SYNTHIA-RAND-CITYSCAPES and that its predecessors of 13 classes lack."""

_SHOWN = 8
_SPLITS = ("train", "val", "test")


def shortfalls(layout: str, split: str, names: Sequence[str], only: Collection[str] | None = None) -> Iterator[str]:
    """What a set lacks, or has beyond, its published release; nothing for layouts without one.

    Args:
        layout: as in the recipe.
        split: of Cityscapes or GTA5.
        names: of the images found.
        only: names that the split's list holds; None: the whole release.
    """
    if layout in _NUMBERED:
        yield from _numbered(layout, names, only)
    elif layout == "cityscapes" and split in _CITIES:
        yield from _cities(split, Counter(name.partition("/")[0] for name in names))


def _numbered(layout: str, names: Sequence[str], only: Collection[str] | None) -> Iterator[str]:
    release, numbers, form = _NUMBERED[layout]
    expected = [format(number, form) for number in numbers]
    if only is not None:
        release, expected = f"this split of {release}", [name for name in expected if name in only]
    missing = sorted(set(expected) - set(names))
    if missing:
        have = len(expected) - len(missing)
        yield f"{have:,} of the {len(expected):,} images of {release}, missing: {_spans(missing)}; {_CONSEQUENCE}"
    foreign = sorted(set(names) - set(expected))
    if foreign:
        yield f"{len(foreign)} images are not of {release}, such as {foreign[0]}; {_CONSEQUENCE}"


def _cities(split: str, found: Counter[str]) -> Iterator[str]:
    cities = _CITIES[split]
    missing = [f"{city} ({count} images)" for city, count in cities.items() if city not in found]
    if missing:
        have = len(cities) - len(missing)
        yield f"{have} of the {len(cities)} cities of Cityscapes {split}, missing: {', '.join(missing)}; {_CONSEQUENCE}"
    short = [f"{found[city]} of {count} images of {city}" for city, count in cities.items() if 0 < found[city] < count]
    if short:
        more = f" and {len(short) - _SHOWN} more cities" if len(short) > _SHOWN else ""
        yield f"{', '.join(short[:_SHOWN])}{more}; {_CONSEQUENCE}"
    homes = {city: other for other in _CITIES for city in _CITIES[other]}
    foreign = [f"{city} (of {homes[city]})" if city in homes else city for city in sorted(found) if city not in cities]
    if foreign:
        yield f"cities that are not of Cityscapes {split}: {', '.join(foreign[:_SHOWN])}; {_CONSEQUENCE}"


_CONSEQUENCE = "scores will not be comparable with published ones"


def _spans(names: list[str]) -> str:
    """``00003, 00007–00009`` for sorted numbers."""
    spans: list[list[str]] = []
    for name in names:
        if spans and int(name) == int(spans[-1][-1]) + 1:
            spans[-1][1:] = [name]
        else:
            spans.append([name])
    more = f" and {len(spans) - _SHOWN} more gaps" if len(spans) > _SHOWN else ""
    return ", ".join("–".join(span) for span in spans[:_SHOWN]) + more


def is_older_synthia(ids: Collection[object]) -> bool:
    """Whether the raw ids are those of SYNTHIA's first releases, in which 12 is lane marking and not motorcycle."""
    return 12 in ids and _SYNTHIA_ONLY_NEW.isdisjoint(ids)


def read_split(file: Path, split: str, role: str) -> frozenset[str]:
    """Names of a split's images in GTA5's ``split.mat`` (MATLAB 5: ``trainIds``, ``valIds``, ``testIds``, from 1).

    Raises:
        UserError: no such split, the file is missing or is another one, or SciPy is not installed.
    """
    key = f"data.{role}.split"
    every = f"leave {key} empty for all images"
    if split not in _SPLITS:
        raise UserError(f"{key}: GTA5 has the splits {', '.join(_SPLITS)}, found {split!r}; or {every}")
    if not file.is_file():
        raise UserError(f"{file}: no such file, which lists the splits (in GTA5's read_mapping.zip); or {every}")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError(f"{key}: needs SciPy to read {file}: pip install 'acclimate[gta5]'; or {every}") from None
    try:
        numbers = loadmat(file, variable_names=[f"{split}Ids"])[f"{split}Ids"]
        return frozenset(f"{int(number):05d}" for number in numbers.ravel())
    except Exception as error:  # SciPy raises whatever it stumbles over
        raise UserError(f"{file}: holds no {split}Ids ({error}); download it again, or {every}") from None
