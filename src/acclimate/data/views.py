"""Training items: random views of source and target images, as typed batches.

Items are keyed by (epoch, index), and all of an item's randomness follows from its key: a batch is the
same whichever process prepares it, and whether or not the run was interrupted before it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from acclimate.data.augment import StrongView, sample_weak, strong_view
from acclimate.data.colour import Statistics, transfer
from acclimate.data.datasets import ImageSet, LabelledSet
from acclimate.data.geometry import PIXELS, Geometry, Grid, Size, scaled_size
from acclimate.data.replay import Replay
from acclimate.data.seeding import generator
from acclimate.data.softlabels import SoftLabels
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
        return type(self)(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


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

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        epoch, index = key
        rng = generator(self.seed, self.stream, epoch, index)
        image_HWC, label_HW = self.images.image(index), self.images.label(index)
        view = sample_weak(image_HWC.shape[:2], self.data, self.augment.flip, rng)
        crop_HWC = view.image(image_HWC)
        if self.colour is not None:
            own, wanted = self.colour
            crop_HWC = transfer(crop_HWC, Statistics(*own[index]), Statistics(*wanted[rng.integers(len(wanted))]))
        return _image(crop_HWC), torch.from_numpy(view.label(label_HW)).long()

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
        index, image_HWC = self.images.read(index)
        rng = generator(self.seed, self.stream, epoch, index)
        weak = sample_weak(image_HWC.shape[:2], self.data, self.augment.flip, rng)
        weak_HWC = weak.image(image_HWC)
        strong = strong_view(weak_HWC, weak, self.augment, rng) if self.strong else StrongView(weak_HWC, weak, Replay())
        return (
            _image(weak_HWC),
            _image(strong.image_HWC),
            self._soft(index, weak),
            torch.from_numpy(weak.visible(self.grid)),
            torch.from_numpy(strong.geometry.relative_to(weak)).float(),
            torch.from_numpy(strong.geometry.visible(self.grid)),
            strong.replay.pack(),
            _image(self._whole(image_HWC)),
            torch.tensor(weak.placed()),
            torch.tensor(index),
        )

    def batch(self, keys: Sequence[Key]) -> TargetBatch:
        """The items of these keys, stacked."""
        return TargetBatch.collate([self[key] for key in keys])

    def _soft(self, index: int, view: Geometry) -> Tensor:
        if self.soft is None:
            return torch.zeros(0, *self.grid.cells(view.view_hw))
        scaled_hw = scaled_size(view.image_hw, self.data.width)
        return view.soft(self.soft.read(index), scaled_hw, self.soft.grid, self.grid)

    def _whole(self, image_HWC: np.ndarray) -> np.ndarray:
        """The whole image at scale 1, or nothing of it."""
        if not self.whole:
            return image_HWC[:0, :0, :0]
        image_hw = image_HWC.shape[:2]
        return Geometry.whole(image_hw, scaled_size(image_hw, self.data.width)).image(image_HWC)


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
) -> Iterator[BatchT]:
    """Batches of the steps ``start_step`` … ``steps`` - 1; step t holds the schedule's positions from t · ``batch`` on.

    Args:
        workers: processes that prepare batches ahead. 0: none; -1: half of the processors, at most 4.
            The batches do not depend on it.
        part: of each batch, which is given: with many processes each has its own.

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
    return torch.from_numpy(picture_HWC).permute(2, 0, 1).contiguous()
