"""What is wrong with the data of a recipe, found before hours are spent on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from acclimate import mistakes
from acclimate.data.datasets import ImageSet, LabelledSet, default_ids, open_images, open_labelled, open_space
from acclimate.data.decode import read_size
from acclimate.data.evidence import Value, doubt, values_in
from acclimate.data.forgiving import allowed
from acclimate.data.geometry import scaled_size
from acclimate.data.layouts import arrange, orphan_labels
from acclimate.data.releases import shortfalls
from acclimate.errors import UserError
from acclimate.labels import IGNORE, LabelSpace, UnknownValues
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
    unreadable: tuple[str, ...] = ()
    """Names of target images that cannot be read, where the recipe bears with that."""


@dataclass
class _Report:
    """Everything noticed so far."""

    sets: list[SetFindings] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    """By role, so that a thousand broken files of one set do not hide the one of another."""
    unreadable: list[str] = field(default_factory=list)
    """Names of target images to leave out."""
    files: dict[str, set[str]] = field(default_factory=dict)
    """Paths of all images, by role."""

    def problem(self, role: str, message: str) -> None:
        self.problems.setdefault(role, []).append(message)

    def notice(self, role: str, message: str, grave: bool) -> None:
        if grave:
            self.problem(role, message)
        else:
            self.warnings.append(message)


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
            found = _check_set(images, folder, recipe, role, decoded, report)
            left = len(images) - (len(report.unreadable) if role == "target" else 0)
            _check_batches(left, role, recipe, report)
            _note_files(images, folder, role, report)
            if found is not None:
                report.sets.append(found)
            report.files[role] = {str(sample.image) for sample in images.samples}
    if report.problems or space is None:
        raise UserError(_listing(report.problems))
    _note_absent_classes(space, report)
    report.warnings += [*mistakes.doubts(recipe, report.sets), *mistakes.overlaps(report.files)]
    return Findings(space, tuple(report.sets), tuple(report.warnings), tuple(report.unreadable))


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


@dataclass(frozen=True)
class _Look:
    """What reading one image and its label showed."""

    size: tuple[int, int] | None = None
    values: frozenset[Value] = frozenset()
    """Raw values of the label, where it was decoded."""
    histogram: np.ndarray | None = None
    """256 counts of train ids, where the label was decoded and understood."""
    problem: UserError | None = None


def _check_set(
    images: ImageSet, folder: Folder, recipe: Recipe, role: str, decoded: int, report: _Report
) -> SetFindings | None:
    """Read all headers and decode all files, or evenly spaced ones, in threads (Pillow releases the lock)."""
    count = min(len(images), decoded)
    to_decode = {i * len(images) // count for i in range(count)}
    width = recipe.data.width * recipe.data.scale[1]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        looks = list(threads.map(lambda i: _look(images, i, i in to_decode, width), range(len(images))))
    if role == "target" and recipe.data.on_bad_image == "skip":
        looks = _without_broken(images, looks, report)
    misread = isinstance(images, LabelledSet) and _check_meaning(images, folder, role, looks, report)
    for problem in (look.problem for look in looks if look.problem is not None):
        if not (misread and isinstance(problem, UnknownValues)):
            report.problem(role, str(problem))
    sizes = [look.size for look in looks if look.size and look.problem is None]
    if role == "target":
        _check_shapes(set(sizes), recipe, report)
    histograms = [look.histogram for look in looks if look.histogram is not None]
    return _summary(images, role, count, np.array(sizes), histograms) if sizes else None


def _without_broken(images: ImageSet, looks: list[_Look], report: _Report) -> list[_Look]:
    """Leave out the images with problems if they are few; what is left."""
    broken = [(sample.name, look.problem) for sample, look in zip(images.samples, looks, strict=True) if look.problem]
    count, most = f"{len(broken)} of {len(looks)} images cannot be used", allowed(len(looks))
    if len(broken) > most:
        report.problem("target", f"data.target: {count}; data.on_bad_image: skip bears with {most} at most")
        return looks
    if broken:
        lines = "".join(f"\n  - {problem}" for _, problem in broken[:_SHOWN])
        more = f"\n  - … and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        report.warnings.append(f"data.target: {count} and are skipped:{lines}{more}")
        report.unreadable += [name for name, _ in broken]
    return [look for look in looks if look.problem is None]


def _look(images: ImageSet, index: int, decode: bool, width: float) -> _Look:
    """Read one pair as far as wished; ``width`` is the greatest to which images will be scaled."""
    size, values = None, frozenset[Value]()
    try:
        size = images.size(index)
        try:
            scaled_size(size, width)
        except UserError as error:
            raise UserError(f"{images.samples[index].image}: {error}") from None
        if decode:
            images.image(index)
        if not isinstance(images, LabelledSet):
            return _Look(size)
        if decode:
            raw = images.raw(index)
            values = frozenset(values_in(raw))
            return _Look(size, values, np.bincount(images.translate(index, raw).ravel(), minlength=256))
        problem = images.size_problem(index, read_size(images.samples[index].label or ""))
        return _Look(size, problem=UserError(problem) if problem else None)
    except UserError as error:
        return _Look(size, values, problem=error)


def _check_meaning(images: LabelledSet, folder: Folder, role: str, looks: list[_Look], report: _Report) -> bool:
    """Judge by all labels together how they are read; True: what is said covers the unknown values of all files."""
    labels = [look for look in looks if look.values]
    refused = sum(isinstance(look.problem, UnknownValues) for look in labels)
    values = {value for look in labels for value in look.values}
    found = doubt(images, arrange(folder, role, labelled=True), role, values, len(labels), refused)
    if found is not None:
        report.notice(role, found.message, found.grave)
    understood = [look.histogram for look in labels if look.histogram is not None]
    if len(understood) == len(images) and not np.any([histogram[:IGNORE] for histogram in understood]):
        report.problem(role, _nothing_labelled(images, folder, role))
    return found is not None and found.covers_unknown


def _check_shapes(sizes: set[tuple[int, int]], recipe: Recipe, report: _Report) -> None:
    """Whole images can only be one batch if they are of one size once they are scaled."""
    shapes = sorted({scaled_size(size, recipe.data.width) for size in sizes})
    if recipe.selflabel.iterations and recipe.selflabel.teacher_view == "whole" and len(shapes) > 1:
        some = ", ".join(f"{width}x{height}" for height, width in shapes[:3]) + (", …" if len(shapes) > 3 else "")
        report.problem(
            "target",
            f"data.target: images of different shapes ({some} at data.width: {recipe.data.width}), but with "
            "selflabel.teacher_view: whole (method: official) the teacher takes whole images in batches; "
            "cut the images to one shape, or set selflabel.teacher_view: weak",
        )


def _nothing_labelled(images: LabelledSet, folder: Folder, role: str) -> str:
    remedy = f"correct data.{role}.ids, now {images.table.origin}, or data.{role}.labels"
    if folder.layout == "cityscapes" and folder.split == "test":
        remedy = f"Cityscapes keeps its test labels to itself, set data.{role}.split to val"
    return f"data.{role}: every pixel of all {len(images)} labels is ignored; {remedy}"


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


def _note_files(images: ImageSet, folder: Folder, role: str, report: _Report) -> None:
    """What the folders lack or have beyond the download, and labels without an image."""
    if folder.limit:
        return
    arrangement = arrange(folder, role, labelled=isinstance(images, LabelledSet))
    names = [sample.name for sample in images.samples]
    for shortfall in shortfalls(folder.layout, arrangement.split, names, arrangement.only):
        report.warnings.append(f"data.{role}: {shortfall}")
    orphans = orphan_labels(arrangement) if isinstance(images, LabelledSet) else []
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
