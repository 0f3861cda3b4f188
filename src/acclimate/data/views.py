"""Training items: random views of source and target images, as typed batches.

Items are keyed by (epoch, index), and all of an item's randomness follows from its key: a batch is the
same whichever process prepares it, and whether or not the run was interrupted before it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from acclimate.data.augment import StrongView, blur_and_jitter, sample_weak, strong_view
from acclimate.data.colour import Statistics, transfer
from acclimate.data.datasets import ImageSet, LabelledSet
from acclimate.data.geometry import PIXELS, Geometry, Grid, Size, scaled_size
from acclimate.data.replay import Replay
from acclimate.data.seeding import generator
from acclimate.data.softlabels import SoftLabels
from acclimate.devices import upload
from acclimate.errors import UserError
from acclimate.interrupts import ignore
from acclimate.recipe import Augment, Data

Key = tuple[int, int]
"""(epoch, index of the image)"""


@dataclass
class Batch:
    """Tensors of several items, stacked."""

    @classmethod
    def collate(cls, items: Sequence[tuple[Tensor, ...]]) -> Self:
        """Stack items whose tensors come in the order of the fields."""
        return cls(*(torch.stack(tensors) for tensors in zip(*items, strict=True)))

    def to(self, device: torch.device | str) -> Self:
        """The batch on a device."""
        return type(self)(*(upload(getattr(self, field.name), device) for field in dataclasses.fields(self)))

    def pin_memory(self) -> Self:
        """The batch in memory that a GPU can copy from while it computes; a `DataLoader` calls this."""
        return type(self)(*(getattr(self, field.name).pin_memory() for field in dataclasses.fields(self)))

    def parts(self, count: int) -> list[Self]:
        """The batch as ``count`` batches of equal size; each has every count-th item.

        Not a run of neighbours: so a part holds the same items if the batch was divided among processes before.
        """
        tensors = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return [type(self)(*(tensor[first::count] for tensor in tensors)) for first in range(count)]


@dataclass
class SourceBatch(Batch):
    """Labelled weak views of source images; H, W = ``data.crop``."""

    image_BCHW: Tensor
    """Uint8 RGB."""
    label_BHW: Tensor
    """Int64 class ids, or IGNORE."""


@dataclass
class TargetBatch(Batch):
    """Weak and strong views of target images; H, W = ``data.crop``; h, w are the cells on it."""

    weak_BCHW: Tensor
    """Uint8 RGB."""
    strong_BCHW: Tensor
    """Uint8 RGB: the weak view disturbed."""
    soft_BKhw: Tensor
    """Float32 soft pseudo labels of the weak view; zeros where it shows nothing. K is 0 without soft labels."""
    valid_Bhw: Tensor
    """Bool: the weak view shows a pixel of the image."""
    strong_to_weak_B33: Tensor
    """Float32: pixels of the strong view → pixels of the weak view, at full resolution."""
    strong_valid_Bhw: Tensor
    """Bool: the strong view shows a pixel of the weak view that shows one of the image, not cut out."""
    replay_BP: Tensor
    """Float32: the strong view as the official code remembers it (`replay.Replay`)."""
    whole_BCHW: Tensor
    """Uint8 RGB: the whole image at scale 1. C is 0 where the teacher does not ask for it."""
    placed_B7: Tensor
    """Int64: height and width of the scaled image; y0, y1, x0, x1 of the weak view on it; mirrored or not."""
    index_B: Tensor
    """Int64 index of the image."""

    @property
    def size_hw(self) -> Size:
        """H, W of the views."""
        return self.weak_BCHW.shape[-2], self.weak_BCHW.shape[-1]


@dataclass(frozen=True)
class SourceViews(Dataset[tuple[Tensor, ...]]):
    """Random weak views of labelled images: the items of a `SourceBatch`."""

    images: LabelledSet
    data: Data
    augment: Augment
    seed: int
    stream: str
    colour: tuple[np.ndarray, np.ndarray] | None = None
    """Statistics (n, 2, 3) of the source images and of the target images (`colour.collect`): each view
    takes on those of a random target image. None: colours stay."""
    jitter: bool = False
    """Blur and change colours as in strong views."""

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        epoch, index = key
        rng = generator(self.seed, self.stream, epoch, index)
        view = sample_weak(self.images.size(index), self.data, self.augment.flip, rng)
        (crop_HWC,) = self.images.views(index, view)
        if self.colour is not None:
            own, wanted = self.colour
            crop_HWC = transfer(crop_HWC, Statistics(*own[index]), Statistics(*wanted[rng.integers(len(wanted))]))
        if self.jitter:
            crop_HWC = np.asarray(blur_and_jitter(Image.fromarray(crop_HWC), self.augment, rng))
        return _image(crop_HWC), torch.from_numpy(self.images.label_view(index, view)).long()

    def batch(self, keys: Sequence[Key]) -> SourceBatch:
        """The items of these keys, stacked."""
        return SourceBatch.collate([self[key] for key in keys])


@dataclass(frozen=True)
class TargetViews(Dataset[tuple[Tensor, ...]]):
    """Random weak and strong views of unlabelled images: the items of a `TargetBatch`."""

    images: ImageSet
    data: Data
    augment: Augment
    seed: int
    stream: str
    soft: SoftLabels | None = None
    """Soft pseudo labels of the images at ``data.width``."""
    grid: Grid = PIXELS
    """Of the soft labels and masks of a view."""
    strong: bool = True
    """False: the weak view stands in for the strong one."""
    whole: bool = False
    """Give the whole image, too; the images must have one aspect ratio."""

    def __post_init__(self) -> None:
        if self.soft is not None and self.soft.width != self.data.width:
            raise UserError(
                f"{self.soft.folder}: these soft labels were made at width {self.soft.width}, but the recipe has width "
                f"{self.data.width}; restore the recipe, or delete the folder to have them made anew"
            )

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        epoch, index = key
        index, rng, weak, (weak_HWC, whole_HWC) = self.images.read(index, partial(self._seen, epoch))
        strong = strong_view(weak_HWC, weak, self.augment, rng) if self.strong else StrongView(weak_HWC, weak, Replay())
        return (
            _image(weak_HWC),
            _image(strong.image_HWC),
            self._soft(index, weak),
            torch.from_numpy(weak.visible(self.grid)),
            torch.from_numpy(strong.geometry.relative_to(weak)).float(),
            torch.from_numpy(strong.geometry.visible(self.grid)),
            strong.replay.pack(),
            _image(whole_HWC),
            torch.tensor(weak.placed()),
            torch.tensor(index),
        )

    def batch(self, keys: Sequence[Key]) -> TargetBatch:
        """The items of these keys, stacked."""
        return TargetBatch.collate([self[key] for key in keys])

    def _seen(self, epoch: int, index: int) -> tuple[int, np.random.Generator, Geometry, list[np.ndarray]]:
        """All that an image file is asked for: a weak view's picture and that of the whole image, or nothing of it."""
        image_hw = self.images.size(index)
        rng = generator(self.seed, self.stream, epoch, index)
        weak = sample_weak(image_hw, self.data, self.augment.flip, rng)
        if not self.whole:
            return index, rng, weak, [*self.images.views(index, weak), np.zeros((0, 0, 0), np.uint8)]
        whole = Geometry.whole(image_hw, scaled_size(image_hw, self.data.width))
        return index, rng, weak, self.images.views(index, weak, whole)

    def _soft(self, index: int, view: Geometry) -> Tensor:
        if self.soft is None:
            return torch.zeros(0, *self.grid.cells(view.view_hw))
        scaled_hw = scaled_size(view.image_hw, self.data.width)
        return view.soft(self.soft.read(index), scaled_hw, self.soft.grid, self.grid)


ALL = slice(None)
BatchT = TypeVar("BatchT", bound=Batch, covariant=True)


class Views(Protocol[BatchT]):
    """What a `loader` needs: `SourceViews` and `TargetViews` have it."""

    def batch(self, keys: Sequence[Key]) -> BatchT:
        """The items of these keys, stacked."""
        ...


def loader(
    views: Views[BatchT],
    schedule: Callable[[int], Key],
    batch: int,
    start_step: int,
    steps: int,
    workers: int,
    part: slice = ALL,
    pin: bool = False,
) -> Iterator[BatchT]:
    """Batches of the steps ``start_step`` … ``steps`` - 1; step t holds the schedule's positions from t · ``batch`` on.

    Args:
        workers: processes that prepare batches ahead. 0: none; -1: half of the processors, at most 4.
            The batches do not depend on it.
        part: of each batch, which is given: with many processes each has its own.
        pin: keep batches in memory that a GPU can copy from while it computes.

    Raises:
        UserError: from reading a file, also when that happened in a worker.
    """
    positions = (range(step * batch, (step + 1) * batch)[part] for step in range(start_step, steps))
    batches = DataLoader(
        _Reported(views),
        batch_sampler=([schedule(p) for p in step] for step in positions),  # type: ignore[arg-type]
        num_workers=min(4, (os.cpu_count() or 1) // 2) if workers < 0 else workers,
        collate_fn=_as_it_is,
        worker_init_fn=ignore,
        pin_memory=pin,
        generator=torch.Generator(),  # the default would draw from the global one
    )
    for result in batches:
        if isinstance(result, UserError):
            raise result
        yield result


@dataclass(frozen=True)
class _Reported(Dataset[Any], Generic[BatchT]):
    """Whole batches; a `UserError` becomes the result, since one raised in a worker would lose its plain message."""

    views: Views[BatchT]

    def __getitems__(self, keys: list[Key]) -> BatchT | UserError:
        try:
            return self.views.batch(keys)
        except UserError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    """Views collate by themselves."""
    return batch


def _image(picture_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture_HWC.transpose(2, 0, 1)))
