"""What is wrong with the data of a recipe, found before hours are spent on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from acclimate.data.datasets import ImageSet, LabelledSet, default_ids, open_images, open_labelled, open_space
from acclimate.data.decode import read_size
from acclimate.data.layouts import arrange, orphan_labels
from acclimate.errors import UserError
from acclimate.labels import LabelSpace
from acclimate.recipe import Folder, Recipe

DECODED = 2000
"""Files of a set that are decoded; of more, that many evenly spaced ones (headers are read of all)."""

_SHOWN = 20  # problems in one message


@dataclass(frozen=True)
class SetFindings:
    """What one set of images consists of."""

    role: str
    images: int
    decoded: int
    """Images (and labels) that were read to the last pixel."""
    smallest_hw: tuple[int, int]
    largest_hw: tuple[int, int]
    """Least and greatest height and width, each on its own."""
    frequency_K: tuple[float, ...] | None = None
    """Share of each class among the labelled pixels that were decoded. None: unlabelled, or the ceiling, of
    whose labels nothing may become known but that they can be read."""
    ignored: float | None = None
    """Share of ignored pixels among all."""


@dataclass(frozen=True)
class Findings:
    """What the data of a recipe consist of, for a table."""

    space: LabelSpace
    sets: tuple[SetFindings, ...]
    warnings: tuple[str, ...]


@dataclass
class _Report:
    """Everything noticed so far."""

    sets: list[SetFindings] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    """By role, so that a thousand broken files of one set do not hide the one of another."""

    def problem(self, role: str, message: str) -> None:
        self.problems.setdefault(role, []).append(message)


def check(recipe: Recipe, log: Callable[[str], None] = lambda _: None, decoded: int = DECODED) -> Findings:
    """Look through all data that a recipe names: folders, pairs, sizes, every file, classes, batch sizes.

    Args:
        recipe: its ``data`` and batch sizes are looked at.
        log: told which set is being read.
        decoded: files of a set that are decoded at most.

    Raises:
        UserError: lists all problems with their number (the first 20 in words).
    """
    report = _Report()
    space = None
    try:
        space = open_space(recipe.data)
    except UserError as error:
        report.problem("classes", str(error))
    for role in ("source", "target", "val", "ceiling"):
        folder: Folder = getattr(recipe.data, role)
        if not folder.path and role in ("val", "ceiling"):
            continue
        images = _open(folder, role, space, default_ids(recipe.data), report)
        if images is not None:
            log(f"checking {role}: {len(images)} images")
            found = _check_set(images, role, decoded, report)
            _check_batches(len(images), role, recipe, report)
            _note_orphans(images, folder, role, report)
            if found is not None:
                report.sets.append(found)
                _note_padding(found, recipe, report)
    if report.problems or space is None:
        raise UserError(_listing(report.problems))
    _note_absent_classes(space, report)
    return Findings(space, tuple(report.sets), tuple(report.warnings))


def _open(folder: Folder, role: str, space: LabelSpace | None, ids: str, report: _Report) -> ImageSet | None:
    """The set; with its labels if it should have them and they can be opened."""
    try:
        if role != "target" and space is not None:
            return open_labelled(folder, role, space, ids)
    except UserError as error:
        report.problem(role, str(error))
    try:
        return open_images(folder, role)
    except UserError as error:
        if role not in report.problems:
            report.problem(role, str(error))
        return None


def _check_set(images: ImageSet, role: str, decoded: int, report: _Report) -> SetFindings | None:
    """Read all headers and decode all files, or evenly spaced ones, in threads (Pillow releases the lock)."""
    count = min(len(images), decoded)
    to_decode = {i * len(images) // count for i in range(count)}

    def look(index: int) -> tuple[tuple[int, int] | None, np.ndarray | None, str]:
        try:
            return images.size(index), _look(images, index, index in to_decode), ""
        except UserError as error:
            return None, None, str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        results = list(threads.map(look, range(len(images))))
    for message in (message for _, _, message in results if message):
        report.problem(role, message)
    sizes = [size for size, _, _ in results if size]
    histograms = [histogram for _, histogram, _ in results if histogram is not None]
    return _summary(images, role, count, np.array(sizes), histograms) if sizes else None


def _look(images: ImageSet, index: int, decode: bool) -> np.ndarray | None:
    """Read one pair as far as wished; returns the label's histogram, 256 counts, where it is decoded."""
    if decode:
        images.image(index)
    if not isinstance(images, LabelledSet):
        return None
    if decode:
        return np.bincount(images.label(index).ravel(), minlength=256)
    problem = images.size_problem(index, read_size(images.samples[index].label or ""))
    if problem:
        raise UserError(problem)
    return None


def _summary(images: ImageSet, role: str, decoded: int, sizes: np.ndarray, histograms: list[np.ndarray]) -> SetFindings:
    (low_h, low_w), (high_h, high_w) = sizes.min(axis=0).tolist(), sizes.max(axis=0).tolist()
    found = SetFindings(role, len(images), decoded, (low_h, low_w), (high_h, high_w))
    if not isinstance(images, LabelledSet) or role == "ceiling" or not histograms:
        return found
    total = np.sum(histograms, axis=0)
    count_K = total[: len(images.space)]
    share_K = count_K / max(1, count_K.sum())
    return replace(found, frequency_K=tuple(share_K.tolist()), ignored=float(1 - count_K.sum() / total.sum()))


def _check_batches(count: int, role: str, recipe: Recipe, report: _Report) -> None:
    """A batch must not hold an image twice."""
    for key, batch in _batches(recipe, role):
        if count < batch:
            images = f"{count} image{'s' * (count != 1)}"
            report.problem(role, f"data.{role}: {images}, fewer than {key}: {batch}; set {key} to {count} or less")


def _batches(recipe: Recipe, role: str) -> Iterator[tuple[str, int]]:
    """Key and value of the batch sizes in which a set is trained on."""
    if role in ("source", "ceiling"):
        yield f"{role}.batch", getattr(recipe, role).batch
    if role in ("source", "target"):
        if recipe.warmup.iterations:
            yield "warmup.batch", recipe.warmup.batch
        if recipe.selflabel.iterations:
            yield "selflabel.batch", recipe.selflabel.batch
        if recipe.distill.rounds:
            yield "distill.batch", recipe.distill.batch


def _note_padding(found: SetFindings, recipe: Recipe, report: _Report) -> None:
    """Crops may reach over the image's edge, but not mostly."""
    data = recipe.data
    height, width = data.width * found.largest_hw[0] / found.largest_hw[1], data.width
    if found.role != "val" and (data.crop[0] > 2 * height or data.crop[1] > 2 * width):
        report.warnings.append(
            f"data.{found.role}: crops of {data.crop[0]}x{data.crop[1]} pixels (height x width) are more than twice "
            f"the images' {height:.0f}x{width} at data.width: {width}, so most of a crop is padding; "
            f"lower data.crop or raise data.width"
        )


def _note_orphans(images: ImageSet, folder: Folder, role: str, report: _Report) -> None:
    if isinstance(images, LabelledSet) and not folder.limit:
        orphans = orphan_labels(arrange(folder, role, labelled=True), images.samples)
        if orphans:
            report.warnings.append(f"data.{role}: {len(orphans)} label files belong to no image, such as {orphans[0]}")


def _note_absent_classes(space: LabelSpace, report: _Report) -> None:
    for found in report.sets:
        if found.role == "source" and found.frequency_K is not None:
            absent = [name for name, share in zip(space.classes, found.frequency_K, strict=True) if share == 0]
            if absent:
                seen = "" if found.decoded == found.images else f" {found.decoded} decoded"
                report.warnings.append(
                    f"data.source: {', '.join(absent)} never occur{'s' * (len(absent) == 1)} in the{seen} labels, "
                    f"so the model cannot learn to predict this"
                )


def _listing(problems: dict[str, list[str]]) -> str:
    """The message: all problems by number, and a fair share of each set's in words."""
    total = sum(map(len, problems.values()))
    share = max(1, _SHOWN // max(1, len(problems)))
    lines = [f"{total} problem{'s' * (total > 1)} in the data:"]
    for role, messages in problems.items():
        lines += [f"  - {message}" for message in messages[:share]]
        if len(messages) > share:
            lines.append(f"  - … and {len(messages) - share} more in {role}")
    return "\n".join(lines)
