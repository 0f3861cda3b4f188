"""The benchmark on disk: the four folders that a recipe reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from acclimate.data.streets.domains import SIZE, Domain, render
from acclimate.errors import UserError
from acclimate.files import atomic, read_json, write_json
from acclimate.interrupts import ignore
from acclimate.labels import label_space

EDITION = 7
"""Raised whenever the drawing changes, so that old pictures are drawn again."""
MARKER = "streets.json"
ROLES = ("source", "target", "val", "ceiling")
VAL_START = 1 << 20
"""Validation scenes are numbered from here, so that they stay the same however many others there are."""


@dataclass(frozen=True)
class _Picture:
    """One picture to draw, the image files and the label files it becomes."""

    domain: Domain
    seed: int
    index: int
    size: tuple[int, int]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def write(
    folder: Path, source: int = 240, target: int = 160, val: int = 60, seed: int = 0, size: tuple[int, int] = SIZE
) -> None:
    """Draw the benchmark into ``folder``, unless it is there already, with all processors.

    ``source``, ``val`` and ``ceiling`` hold ``images`` and ``labels``; ``target`` holds ``images`` alone.
    ``val`` are other scenes of the target domain; ``ceiling`` are the pictures of ``target`` again, with
    labels, for the reference model. Labels are palette PNGs of train ids. Equal arguments, equal bytes.

    Raises:
        UserError: the folder holds something that was not drawn by this function.
    """
    folder = Path(folder)
    wanted = {"edition": EDITION, "source": source, "target": target, "val": val, "seed": seed, "size": list(size)}
    if _found(folder) == wanted | {"finished": True}:
        return
    for role in ROLES:
        shutil.rmtree(folder / role, ignore_errors=True)
    write_json(folder / MARKER, wanted | {"finished": False})
    pictures = list(_pictures(folder, {"source": source, "target": target, "val": val}, seed, size))
    _draw_all(pictures)
    write_json(folder / MARKER, wanted | {"finished": True})


def _found(folder: Path) -> dict:
    """What the folder's marker says; empty where nothing was drawn yet."""
    if (folder / MARKER).is_file():
        return read_json(folder / MARKER, f"delete the folder {folder} and run again to have it drawn anew")
    taken = [role for role in ROLES if (folder / role).exists()]
    if taken:
        raise UserError(
            f"{folder / taken[0]}: exists, but was not drawn by Acclimate; choose another folder for the benchmark"
        )
    return {}


def _pictures(folder: Path, counts: dict[str, int], seed: int, size: tuple[int, int]) -> Iterator[_Picture]:
    """Every picture of the benchmark."""
    plans: tuple[tuple[str, Domain, int, tuple[str, ...], tuple[str, ...]], ...] = (
        ("source", "source", 0, ("source",), ("source",)),
        ("target", "target", 0, ("target", "ceiling"), ("ceiling",)),
        ("val", "target", VAL_START, ("val",), ("val",)),
    )
    for count, domain, start, image_roles, label_roles in plans:
        for i in range(counts[count]):
            images = tuple(folder / role / "images" / f"{i:04d}.png" for role in image_roles)
            labels = tuple(folder / role / "labels" / f"{i:04d}.png" for role in label_roles)
            yield _Picture(domain, seed, start + i, size, images, labels)


def _draw_all(pictures: list[_Picture]) -> None:
    workers = min(os.cpu_count() or 1, 16)
    if workers == 1 or len(pictures) < 16:  # starting processes would take longer than drawing
        for picture in pictures:
            _draw(picture)
        return
    with ProcessPoolExecutor(workers, initializer=ignore) as pool:
        for _ in pool.map(_draw, pictures, chunksize=8):
            pass


def _draw(picture: _Picture) -> None:
    """Draw one picture and save it wherever it belongs."""
    image, label = render(picture.domain, picture.seed, picture.index, picture.size)
    for path in picture.images:
        _save(Image.fromarray(image), path)
    for path in picture.labels:
        _save(_with_palette(label), path)


def _with_palette(label: np.ndarray) -> Image.Image:
    picture = Image.fromarray(label)
    picture.putpalette(label_space("streets").palette())
    return picture


def _save(picture: Image.Image, path: Path) -> None:
    with atomic(path) as temporary:
        picture.save(temporary, "PNG")
