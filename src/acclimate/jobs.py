"""Which images are predicted, and the files that come of them: settled, and looked through, before one is written."""

from __future__ import annotations

import glob
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from acclimate import distributed
from acclimate.data.layouts import IMAGE_SUFFIXES, files_below, natural
from acclimate.errors import UserError

log = logging.getLogger(__name__)

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Job:
    """An image to predict, and the files to write."""

    image: Path
    mask: Path
    overlay: Path | None = None
    """The tinted photo."""
    probabilities: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files to write."""
        return tuple(path for path in (self.mask, self.overlay, self.probabilities) if path is not None)


def plan(inputs: Sequence[Path], out: Path, overlay: bool = False, probabilities: bool = False) -> list[Job]:
    """A job for every image, in natural order: frame 2 before frame 10.

    Raises:
        UserError: as `find_images` and `refuse_conflicts`.
    """
    jobs = [
        Job(
            image,
            out / f"{name}.png",
            out / f"{name}.overlay.jpg" if overlay else None,
            out / f"{name}.npz" if probabilities else None,
        )
        for image, name in find_images(inputs, out)
    ]
    jobs = list(dict.fromkeys(jobs))  # a folder, and an image in it besides
    refuse_conflicts(jobs, out)
    return jobs


def is_there(path: Path) -> bool:
    """Whether a file would be overwritten; links that lead nowhere are files, too."""
    return path.is_file() or path.is_symlink()


def pending(jobs: Sequence[Job], overwrite: bool) -> list[Job]:
    """The jobs of which a file is missing, or all of them; says how many are done already."""
    if overwrite:
        return list(jobs)
    left = [job for job in jobs if not all(map(is_there, job.outputs))]
    done = len(jobs) - len(left)
    if done and distributed.is_main():
        log.info("%d of %d masks are there already and stay as they are; --overwrite makes them anew", done, len(jobs))
    return left


def refuse_conflicts(jobs: Sequence[Job], out: Path) -> None:
    """Raise `UserError` for files that would be written twice, outside ``out``, or over photos."""
    writers = defaultdict(list)
    for job in jobs:
        for path in job.outputs:
            writers[path].append(str(job.image))
    doubled = [f"{path}: from {' and '.join(images)}" for path, images in writers.items() if len(images) > 1]
    if doubled:
        raise UserError(listing("several images would write one mask; predict them into different folders", doubled))
    outside = [str(path) for path in writers if not path.parent.resolve().is_relative_to(out.resolve())]
    if outside:
        raise UserError(listing(f"links lead out of {out}; remove them or choose another --out", outside))
    images = {job.image.resolve() for job in jobs}
    own = [str(path) for path in writers if path.resolve() in images]
    if own:
        raise UserError(listing("masks would take the place of photos; choose another --out", own))


def find_images(inputs: Sequence[Path], out: Path) -> list[tuple[Path, str]]:
    """Every image with its name below ``out``: without suffix, sub-folders kept. Earlier outputs are no inputs.

    Args:
        inputs: images, folders, or patterns such as ``photos/**/*.jpg``, whose names begin behind the part without
            wildcards.
        out: where masks go.

    Raises:
        UserError: a missing input, or no images.
    """
    images = [found for item in inputs for found in _images(item, out.resolve())]
    if not images:
        raise UserError(f"{', '.join(map(str, inputs))}: no images; looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def _images(item: Path, out: Path) -> Iterator[tuple[Path, str]]:
    if item.is_file():
        yield item, item.stem
        return
    base, found = _below(item)
    within = out != base.resolve()  # else photos lie where their masks go, which `refuse_conflicts` looks at
    named = [(path, path.relative_to(base).with_suffix("").as_posix()) for path in found]
    for path, name in sorted(named, key=lambda one: (natural(one[1]), one[0])):
        earlier = within and out in path.resolve().parents
        if path.suffix.lower() in IMAGE_SUFFIXES and not earlier:
            yield path, name


def _below(item: Path) -> tuple[Path, list[Path]]:
    """The files of a folder or a pattern, and the folder below which they have their names."""
    if item.is_dir():
        return item, list(files_below(item))
    fixed = list(takewhile(lambda part: not _WILD.search(part), item.parts))
    if len(fixed) == len(item.parts):
        raise UserError(f"{item}: no such file or folder")
    matches = [Path(match) for match in glob.glob(str(item), recursive=True)]
    files = [file for match in matches for file in (files_below(match) if match.is_dir() else [match])]
    return Path(*fixed), list(dict.fromkeys(files))


def listing(headline: str, lines: Sequence[str], most: int = 10) -> str:
    """A message with the first lines and the number of the rest."""
    rest = [f"  … and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{headline}:", *(f"  {line}" for line in lines[:most]), *rest])
