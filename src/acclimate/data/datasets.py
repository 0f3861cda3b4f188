"""The sets of a recipe: images that may have labels, and images that cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from acclimate import labels, recipe
from acclimate.data.decode import read_image, read_label, read_picture, read_size
from acclimate.data.geometry import Geometry
from acclimate.data.layouts import Sample, arrange, find
from acclimate.errors import UserError
from acclimate.files import expanded

T = TypeVar("T")

__all__ = [
    "ImageSet",
    "LabelledSet",
    "Sample",
    "default_ids",
    "open_images",
    "open_labelled",
    "open_space",
    "read_image",
]


@dataclass(frozen=True)
class ImageSet:
    """Images without labels: there is no way to open one from here."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> np.ndarray:
        """uint8 HWC RGB, upright. Raises `UserError` for a broken file."""
        return read_image(self.samples[index].image)

    def views(self, index: int, *views: Geometry) -> list[np.ndarray]:
        """What views show of an image, uint8 HWC RGB; decoded only as far down as they reach. Raises as `image`."""
        picture = read_picture(self.samples[index].image, max(view.reach()[0].stop for view in views))
        return [view.image(picture) for view in views]

    def read(self, index: int, task: Callable[[int], T]) -> T:
        """What a task makes of an image: of another than that of ``index`` only in a set that forgives broken files."""
        return task(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of `image`, read from the file's header alone."""
        return read_size(self.samples[index].image)


@dataclass(frozen=True)
class LabelledSet(ImageSet):
    """Images with labels in a label space."""

    space: labels.LabelSpace
    table: labels.LabelTable
    resize: bool = False
    """Bring labels of another size than their image to the image's (nearest); else they are an error."""
    scheme: str = ""
    """Name of the known scheme that the table is of. Empty: an own label map."""

    def label(self, index: int) -> np.ndarray:
        """uint8 HW: train ids or `labels.IGNORE`, same height and width as the image.

        Raises:
            UserError: a broken file, values that the label table does not know, or another size.
        """
        return self.translate(index, self.raw(index))

    def label_view(self, index: int, view: Geometry) -> np.ndarray:
        """What a view shows of `label`; only the part that it looks at is decoded, translated, and can be wrong."""
        rows, columns = view.reach()
        raw = read_label(self._file(index), self.table.by_colour, rows.stop)
        if raw.shape[:2] != view.image_hw:
            return view.label(self.label(index))
        label_HW = np.full(view.image_hw, labels.IGNORE, np.uint8)
        label_HW[rows, columns] = self.table.encode(raw[rows, columns], self._file(index))
        return view.label(label_HW)

    def raw(self, index: int) -> np.ndarray:
        """What the label file holds, ids HW or colours HW3; raises `UserError` for a broken file."""
        return read_label(self._file(index), self.table.by_colour)

    def translate(self, index: int, raw: np.ndarray) -> np.ndarray:
        """The second half of `label`: from raw values to train ids."""
        label_HW = self.table.encode(raw, self._file(index))
        height, width = self.size(index)
        if label_HW.shape == (height, width):
            return label_HW
        if self.resize:
            return np.array(Image.fromarray(label_HW).resize((width, height), Image.Resampling.NEAREST))
        raise UserError(self.size_problem(index, label_HW.shape))

    def _file(self, index: int) -> Path:
        path = self.samples[index].label
        assert path is not None  # a labelled set is made of pairs
        return path

    def size_problem(self, index: int, label_hw: tuple[int, ...]) -> str:
        """Message for a label whose size is not that of its image, or "" where all is well."""
        height, width = self.size(index)
        if self.resize or tuple(label_hw) == (height, width):
            return ""
        sample = self.samples[index]
        return (
            f"{sample.label}: the label has {label_hw[1]}x{label_hw[0]} pixels (width x height), its image "
            f"{sample.image} {width}x{height}; bring both to one size (labels by nearest neighbour)"
        )


def open_images(folder: recipe.Folder, role: str) -> ImageSet:
    """The images of a folder; labels are neither required nor looked at.

    Args:
        folder: where and how the files lie.
        role: ``source``, ``target``, ``val`` or ``ceiling``; named in messages, selects the usual split.

    Raises:
        UserError: missing folder, no images, two images of one name.
    """
    return ImageSet(find(arrange(folder, role, labelled=False), role, labelled=False, limit=folder.limit))


def open_labelled(folder: recipe.Folder, role: str, space: labels.LabelSpace, default_ids: str = "") -> LabelledSet:
    """The images and labels of a folder.

    Args:
        folder: where and how the files lie. ``folder.ids`` says what raw label values mean; if it is empty, the
            layout does, else ``default_ids``, else they are train ids.
        role: as in `open_images`.
        space: the classes that labels are translated to.
        default_ids: scheme or label map, see the function `default_ids`.

    Raises:
        UserError: as `open_images`; images without label; unknown scheme or a label map with problems.
    """
    arrangement = arrange(folder, role, labelled=True)
    ids = arrangement.scheme or default_ids or "train"
    table = _table(ids, space)
    samples = find(arrangement, role, labelled=True, limit=folder.limit)
    resize = folder.layout == "gta5"  # a few of GTA5's own labels differ from their images
    return LabelledSet(samples, space, table, resize, "" if _is_map(ids) else ids)


def open_space(data: recipe.Data) -> labels.LabelSpace:
    """The classes of a recipe: a built-in label space, or those of a label map."""
    if _is_map(data.classes):
        return labels.read_label_map(expanded(data.classes))[0]
    return labels.label_space(data.classes)


def evenly_spaced(count: int, length: int) -> list[int]:
    """Up to so many indices of 0 … length-1, each in the middle of its part."""
    count = min(count, length)
    return [(2 * number + 1) * length // (2 * count) for number in range(count)]


def default_ids(data: recipe.Data) -> str:
    """Meaning of labels in plain folders: an own label map means its own ids, a built-in space train ids."""
    return data.classes if _is_map(data.classes) else ""


def _is_map(name: str) -> bool:
    return Path(name).suffix.lower() in (".yaml", ".yml")


def _table(ids: str, space: labels.LabelSpace) -> labels.LabelTable:
    if _is_map(ids):
        return labels.read_label_map(expanded(ids), space)[1]
    return labels.label_table(space, ids)
