from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.data import views
from acclimate.data.colour import lab_statistics
from acclimate.data.geometry import Geometry, Grid, resample, scaled_size
from acclimate.data.seeding import Schedule
from acclimate.data.softlabels import SoftLabels
from acclimate.data.views import SourceBatch, SourceViews, TargetBatch, TargetViews, loader
from acclimate.errors import UserError
from acclimate.labels import IGNORE
from acclimate.recipe import Augment, Data

PALETTE = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
SIZES = [(60, 80), (75, 66), (48, 100), (90, 120), (64, 64)]
DATA = Data(width=96, crop=(48, 56), scale=(0.6, 1.5))
SHAPE_ONLY = Augment(blur=0, jitter=0, operations=0, cutout=0.3)
STRIDE = 4
GRID = Grid(STRIDE)
FRAME = (DATA.crop, GRID)
KEYS = [(epoch, index) for epoch in range(4) for index in range(5)]


@dataclass(frozen=True)
class Scenes:
    """Images whose colours are their labels: three blobs, different in each image."""

    broken: int = -1

    def __len__(self) -> int:
        return len(SIZES)

    def label(self, index: int) -> np.ndarray:
        h, w = SIZES[index]
        y, x = np.mgrid[:h, :w]
        return (x * 2 > w + 7 * index).astype(np.uint8) + (y * 3 > 2 * h - 5 * index)

    def size(self, index: int) -> tuple[int, int]:
        return SIZES[index]

    def image(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise UserError(f"scene {index}: broken; mend it")
        return PALETTE[self.label(index)]

    def views(self, index: int, *views: Geometry) -> list[np.ndarray]:
        return [view.image(self.image(index)) for view in views]

    def label_view(self, index: int, view: Geometry) -> np.ndarray:
        return view.label(self.label(index))

    def read(self, index: int, task: Callable[[int], Any]) -> Any:
        return task(index)


def source_views(**changes) -> SourceViews:
    return replace(SourceViews(Scenes(), DATA, Augment(), seed=3, stream="source"), **changes)


def target_views(**changes) -> TargetViews:
    return replace(TargetViews(Scenes(), DATA, Augment(), seed=3, stream="target", grid=GRID), **changes)


@pytest.fixture
def soft(tmp_path) -> SoftLabels:
    """Certain soft labels: the scenes' own labels at stride."""
    store = SoftLabels(tmp_path / "soft", tuple("abcde"), ("red", "green", "blue"), GRID, DATA.width)
    for index in range(len(SIZES)):
        scaled_hw = scaled_size(SIZES[index], DATA.width)
        h, w = GRID.cells(scaled_hw)
        y = ((np.arange(h) + 0.5) * STRIDE * SIZES[index][0] / scaled_hw[0]).astype(int).clip(max=SIZES[index][0] - 1)
        x = ((np.arange(w) + 0.5) * STRIDE * SIZES[index][1] / scaled_hw[1]).astype(int).clip(max=SIZES[index][1] - 1)
        store.write(index, np.eye(3)[Scenes().label(index)[y[:, None], x]].transpose(2, 0, 1))
    store.finish()
    return store


def equal(a, b) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=True) for f in fields(a))


def colour_of_cells(image_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, h, w): which of the palette's colours a cell's centre is nearest to."""
    centres = image_BCHW[:, :, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].float()
    palette = torch.from_numpy(PALETTE).float()
    return (centres[:, None] - palette[None, :, :, None, None]).square().sum(2).argmin(1)


def test_source_items_are_images_with_labels_that_fit():
    image, label = source_views(augment=SHAPE_ONLY)[0, 1]
    assert image.shape == (3, 48, 56) and image.dtype == torch.uint8
    assert label.shape == (48, 56) and label.dtype == torch.int64
    seen = label != IGNORE
    nearest = (image.permute(1, 2, 0)[..., None, :].float() - torch.from_numpy(PALETTE)).square().sum(-1).argmin(-1)
    assert (nearest == label)[seen].float().mean() > 0.97  # all but the borders


def test_source_items_depend_on_epoch_index_seed_and_stream_alone():
    views = source_views()
    first = views[0, 1]
    assert all(torch.equal(a, b) for a, b in zip(first, source_views()[0, 1], strict=True))
    for other in (views[1, 1], views[0, 2], source_views(seed=4)[0, 1], source_views(stream="other")[0, 1]):
        assert not torch.equal(first[0], other[0])


def test_source_images_take_the_colours_of_a_target_image_and_keep_labels():
    own = np.array([lab_statistics(Scenes().image(i)) for i in range(5)], np.float32)
    wanted = np.array([[(60, 0, 0), (5, 1, 1)]], np.float32)
    image, label = source_views(colour=(own, wanted))[0, 3]
    plain_image, plain_label = source_views()[0, 3]
    assert torch.equal(label, plain_label)
    assert plain_image.float().std(0).mean() > 80 > 20 > image.float().std(0).mean()  # (nearly) grey now


def test_source_images_can_be_jittered_and_keep_their_labels():
    image, label = source_views()[0, 3]
    disturbed, same = source_views(jitter=True)[0, 3]
    assert torch.equal(label, same)
    assert not torch.equal(image, disturbed)
    assert not torch.equal(disturbed, source_views(jitter=True)[1, 3][0])


def test_source_images_give_up_their_own_colours_and_no_others():
    own = np.array([lab_statistics(Scenes().image(i)) for i in range(5)], np.float32)
    image, _ = source_views(colour=(own, own[3:4]))[0, 3]
    assert (image.int() - source_views()[0, 3][0].int()).abs().max() <= 1


def test_target_batch_has_the_documented_shapes(soft):
    views = target_views(soft=soft)
    batch = views.batch([(0, 4), (0, 2)]).to("cpu")
    assert batch.weak_BCHW.shape == batch.strong_BCHW.shape == (2, 3, 48, 56)
    assert batch.weak_BCHW.dtype == batch.strong_BCHW.dtype == torch.uint8
    assert batch.soft_BKhw.shape == (2, 3, 12, 14) and batch.soft_BKhw.dtype == torch.float32
    assert batch.valid_Bhw.shape == batch.strong_valid_Bhw.shape == (2, 12, 14)
    assert batch.valid_Bhw.dtype == batch.strong_valid_Bhw.dtype == torch.bool
    assert batch.strong_to_weak_B33.shape == (2, 3, 3) and batch.strong_to_weak_B33.dtype == torch.float32
    assert batch.index_B.tolist() == [4, 2] and batch.index_B.dtype == torch.int64


def test_soft_labels_lie_where_the_weak_view_shows_their_class(soft):
    views = target_views(soft=soft, augment=SHAPE_ONLY)
    batch = views.batch(KEYS)
    agree = batch.soft_BKhw.argmax(1) == colour_of_cells(batch.weak_BCHW)
    assert agree[batch.valid_Bhw].float().mean() > 0.95
    sums = batch.soft_BKhw.sum(1)
    torch.testing.assert_close(sums, batch.valid_Bhw.float())
    assert not batch.valid_Bhw.all() and batch.valid_Bhw.float().mean() > 0.6  # some views are padded


def test_soft_labels_carried_over_lie_where_the_strong_view_shows_their_class(soft):
    choices = Augment(blur=0, jitter=0, operations=0, cutout=0.4)
    views = target_views(soft=soft, augment=choices)
    batch = views.batch(KEYS)
    carried = resample(batch.soft_BKhw, batch.strong_to_weak_B33, FRAME, FRAME)
    agree = carried.argmax(1) == colour_of_cells(batch.strong_BCHW)
    assert agree[batch.strong_valid_Bhw].float().mean() > 0.95
    assert (batch.strong_to_weak_B33[:, 0, 0] < 0).any()


def test_strong_validity_excludes_cutouts_and_what_the_weak_view_does_not_show():
    batch = target_views().batch(KEYS)
    carried = resample(batch.valid_Bhw[:, None], batch.strong_to_weak_B33, FRAME, FRAME, "nearest")[:, 0]
    assert (batch.strong_valid_Bhw & ~carried.bool()).float().mean() < 0.01  # ties at the edge
    assert (carried.bool() & ~batch.strong_valid_Bhw).any()


def test_without_soft_labels_there_are_no_channels_and_the_same_views(soft):
    plain, labelled = target_views()[0, 1], target_views(soft=soft)[0, 1]
    assert plain[2].shape == (0, 12, 14)
    assert torch.equal(plain[0], labelled[0]) and torch.equal(plain[1], labelled[1])


def test_the_strong_view_can_be_left_out():
    weak, strong, _, valid, to_weak, strong_valid, *_ = target_views(strong=False)[0, 1]
    assert torch.equal(weak, strong) and torch.equal(to_weak, torch.eye(3)) and torch.equal(valid, strong_valid)
    assert torch.equal(weak, target_views()[0, 1][0])


def test_soft_labels_of_another_size_are_refused(soft):
    with pytest.raises(UserError, match=r"width 96, .* has width 100.*delete the folder"):
        target_views(soft=soft, data=replace(DATA, width=100))


def test_soft_labels_can_be_wanted_in_other_cells_than_they_are_stored_in(soft):
    batch = target_views(soft=soft, grid=Grid(8), augment=SHAPE_ONLY).batch(KEYS)
    finer = target_views(soft=soft, augment=SHAPE_ONLY).batch(KEYS)
    assert batch.soft_BKhw.shape[2:] == Grid(8).cells(DATA.crop)
    middle = finer.soft_BKhw.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    whole = finer.valid_Bhw.unfold(1, 2, 2).unfold(2, 2, 2).all(-1).all(-1)
    agree = (batch.soft_BKhw.argmax(1) == middle.argmax(1))[whole]
    assert agree.float().mean() > 0.95


def test_the_whole_image_and_the_place_of_the_view_come_along(soft):
    batch = target_views(whole=True).batch([(epoch, 0) for epoch in range(6)])
    assert batch.whole_BCHW.shape == (6, 3, 72, 96)
    for weak_CHW, placed_7 in zip(batch.weak_BCHW, batch.placed_B7.tolist(), strict=True):
        height, width, y0, y1, x0, x1, mirrored = placed_7
        top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
        scaled = torch.from_numpy(np.array(Image.fromarray(Scenes().image(0)).resize((width, height), 2)))
        view = weak_CHW.flip(-1) if mirrored else weak_CHW
        shown = view[:, top - y0 : bottom - y0, left - x0 : right - x0].permute(1, 2, 0)
        off = (shown.int() - scaled[top:bottom, left:right].int()).abs()
        assert off.float().mean() < 2, "resized in one step or two"


def test_crops_that_are_no_multiple_of_the_stride(soft):
    item = target_views(soft=soft, data=replace(DATA, crop=(45, 58)))[0, 0]
    assert item[2].shape == (3, 12, 15) and item[3].shape == item[5].shape == (12, 15)


@pytest.mark.parametrize("kind", ["source", "target"])
def test_batches_do_not_depend_on_the_workers(soft, kind):
    views = source_views() if kind == "source" else target_views(soft=soft)
    alone, shared = (list(loader(views, Schedule(5, 1, "s"), 3, 2, 7, workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 5
    assert isinstance(alone[0], SourceBatch if kind == "source" else TargetBatch)
    assert all(equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_a_loader_that_starts_later_goes_on_where_the_first_was():
    schedule, views = Schedule(5, 1, "s"), target_views()
    whole = list(loader(views, schedule, 3, 0, 6, 0))
    rest = list(loader(views, Schedule(5, 1, "s"), 3, 4, 6, 0))
    assert all(equal(a, b) for a, b in zip(whole[4:], rest, strict=True))
    shown = torch.cat([batch.index_B for batch in whole]).tolist()
    assert shown == [schedule(position)[1] for position in range(18)]


def test_pinned_batches_are_the_same_in_other_memory(soft, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    batch = target_views(soft=soft).batch([(0, 1), (0, 2)])
    assert equal(batch.pin_memory(), batch) and len(pinned) == len(fields(batch))


@pytest.mark.parametrize("pin", [False, True])
def test_batches_are_pinned_where_asked_for(pin, monkeypatch):
    wanted = []
    monkeypatch.setattr(views, "DataLoader", lambda *args, pin_memory, **rest: wanted.append(pin_memory) or [])
    list(loader(source_views(), Schedule(5, 1, "s"), 3, 0, 1, 0, pin=pin))
    assert wanted == [pin]


@dataclass(frozen=True)
class Many(Scenes):
    """A thousand images, of which it is kept which are asked for."""

    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return 1000

    def size(self, index: int) -> tuple[int, int]:
        self.asked.append(index)
        return super().size(index % len(SIZES))

    def label(self, index: int) -> np.ndarray:
        return super().label(index % len(SIZES))


def test_a_step_looks_at_its_own_images_alone():
    images, schedule = Many(), Schedule(1000, 1, "s")
    list(loader(target_views(images=images), schedule, 4, 100, 101, 0))
    assert images.asked == [schedule(position)[1] for position in range(400, 404)]


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(loader(source_views(), Schedule(5, 1, "s"), 2, 0, 1, 0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_reported_by_its_own_message(workers):
    views = target_views(images=Scenes(broken=2))
    with pytest.raises(UserError, match=r"^scene 2: broken; mend it$"):
        list(loader(views, Schedule(5, 1, "s"), 5, 0, 1, workers))
