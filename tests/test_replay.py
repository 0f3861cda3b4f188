"""The official implementation's memory of views, against the exact geometry. Its golden vectors: tests/conformance."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acclimate.data.geometry import Geometry, Grid, affine, resample
from acclimate.data.replay import Replay, replay, whole_to_weak

STRIDE = 4
FILL = 255


def label_map(hw=(48, 84), seed=0) -> torch.Tensor:
    """Labels 0 … 18 in random blotches, 1 x 1 x h x w."""
    noise = torch.from_numpy(np.random.default_rng(seed).random((1, 19, hw[0] // 6, hw[1] // 6)))
    return F.interpolate(noise, hw, mode="bilinear").argmax(1, keepdim=True)


def replayed(maps_BChw: torch.Tensor, *views: Replay, stride: int = STRIDE) -> torch.Tensor:
    return replay(maps_BChw, torch.stack([view.pack() for view in views]), stride, FILL)


def exact(maps_1Chw: torch.Tensor, matrix: np.ndarray, cutout=None) -> torch.Tensor:
    """By the view's own geometry."""
    hw = (maps_1Chw.shape[2] * STRIDE, maps_1Chw.shape[3] * STRIDE)
    whole = Geometry.whole(hw, hw)
    view, place = whole.then(matrix, cutout), (hw, Grid(STRIDE))
    matrix_133 = torch.from_numpy(view.relative_to(whole))[None]
    warped = resample(maps_1Chw, matrix_133, place, place, "nearest", fill=FILL)
    return warped.masked_fill(~torch.from_numpy(view.visible(Grid(STRIDE))), FILL)


def test_nothing_drawn_changes_nothing():
    for maps in (label_map(), torch.rand(1, 3, 7, 9) - 0.5, torch.rand(1, 2, 5, 5, dtype=torch.float64)):
        result = replayed(maps, Replay())
        assert torch.equal(result, maps) and result.dtype == maps.dtype


def test_a_view_travels_as_numbers():
    view = Replay(True, shear_y=-0.25, translate_x=12.0, x0=1.0, y0=2.0, x1=3.0, y1=4.0)
    packed = view.pack()
    assert packed.dtype == torch.float32 and packed.ndim == 1
    assert str(Replay.unpack(packed)) == str(view)  # NaN does not equal itself


@pytest.mark.parametrize("hw", [(48, 84), (60, 60), (84, 48), (33, 50)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_y", "rotate"])
def test_one_operation_agrees_with_the_exact_geometry(name, seed, hw):
    largest = {"shear_x": 0.3, "shear_y": 0.3, "translate_y": 10 * STRIDE, "rotate": 30}[name]
    value = float(np.float32(largest * np.random.default_rng(seed).uniform(-1, 1)))
    if name == "translate_y":
        value = STRIDE * round(value / STRIDE)  # fractions of a cell are dropped by the one, not by the other
    labels = label_map(hw, seed)
    matrix = affine(name, value, (hw[0] * STRIDE, hw[1] * STRIDE))
    differ = replayed(labels, Replay(**{name: value})) != exact(labels, matrix)
    assert differ.float().mean() <= (0.005 if name != "translate_y" else 0)


def test_flip_and_cutout_agree_to_the_cell():
    labels = label_map()
    mirrored = replayed(labels, Replay(True))
    assert torch.equal(mirrored, labels.flip(-1))
    assert torch.equal(mirrored, exact(labels, affine("flip", 0, (48 * STRIDE, 84 * STRIDE))))
    box = {"x0": 40, "y0": 16, "x1": 120, "y1": 88}
    cut = replayed(labels, Replay(**box))
    assert torch.equal(cut, exact(labels, np.eye(3), (16, 40, 88, 120)))
    assert (cut == FILL).sum() == 18 * 20


@pytest.mark.parametrize("value", [24, -24])
def test_translate_x_is_scaled_by_the_height(value):
    """Right on square maps; on others everything moves width / height times too far."""
    square, wide = label_map((48, 48)), label_map((48, 96))
    matrix = affine("translate_x", value, (48 * STRIDE, 48 * STRIDE))
    assert torch.equal(replayed(square, Replay(translate_x=value)), exact(square, matrix))
    too_far = affine("translate_x", 2 * value, (48 * STRIDE, 96 * STRIDE))
    assert torch.equal(replayed(wide, Replay(translate_x=value)), exact(wide, too_far))


def test_order_is_fixed_and_what_left_the_map_is_gone():
    labels = label_map((48, 48))
    both = Replay(translate_y=40, rotate=20)
    one_by_one = replayed(replayed(labels, Replay(translate_y=40)), Replay(rotate=20))
    assert torch.equal(replayed(labels, both), one_by_one)
    assert not torch.equal(one_by_one, replayed(replayed(labels, Replay(rotate=20)), Replay(translate_y=40)))
    assert torch.equal(replayed(labels, Replay(True, shear_x=0.2)), replayed(labels.flip(-1), Replay(shear_x=0.2)))


def test_every_item_has_its_own_view():
    views = [Replay(True), Replay(rotate=12.0), Replay(), Replay(shear_x=0.1, x0=8, y0=8, x1=40, y1=30)]
    maps = torch.cat([label_map(seed=seed) for seed in range(4)])
    together = replayed(maps, *views)
    for index, view in enumerate(views):
        assert torch.equal(together[index : index + 1], replayed(maps[index : index + 1], view))


def test_all_channels_move_alike_and_pixels_are_divided_by_the_stride():
    similarities = torch.rand(1, 19, 24, 30) * 2 - 1
    moved = replayed(similarities, Replay(translate_y=20), stride=8)
    assert torch.equal(moved[:, :, :-2], similarities[:, :, 2:]) and (moved[:, :, -2:] == FILL).all()


def whole_view(maps, resized, crop, mirrored, stride=STRIDE):
    return whole_to_weak(maps, torch.tensor([resized]), torch.tensor([crop]), torch.tensor([mirrored]), stride)


def test_whole_to_weak_cuts_and_mirrors():
    maps = torch.rand(1, 5, 20, 30)
    view = whole_view(maps, (80, 120), (8, 56, 20, 100), False)  # y0, y1, x0, x1
    assert torch.equal(view, maps[:, :, 2:14, 5:25])
    assert torch.equal(whole_view(maps, (80, 120), (8, 56, 20, 100), True), view.flip(-1))


def test_whole_to_weak_keeps_corners_in_place_and_drops_fractions():
    ramp = torch.linspace(0, 1, 30).expand(1, 1, 20, 30)
    view = whole_view(ramp, (83, 163), (0, 80, 0, 160), False)
    assert view.shape == (1, 1, 20, 40)
    torch.testing.assert_close(view[0, 0], torch.linspace(0, 1, 40).expand(20, 40))
    assert torch.equal(
        whole_view(ramp, (83, 163), (3, 67, 7, 107), False), whole_view(ramp, (83, 163), (0, 64, 4, 104), False)
    )


def test_whole_to_weak_gives_each_item_its_own_crop():
    maps = torch.rand(2, 3, 20, 30)
    resized, crop = torch.tensor([[80, 120], [60, 90]]), torch.tensor([[0, 40, 0, 60], [12, 52, 20, 80]])
    together = whole_to_weak(maps, resized, crop, torch.tensor([0, 1]), STRIDE)
    assert torch.equal(together[0], maps[0, :, :10, :15])
    assert torch.equal(together[1:], whole_view(maps[1:], (60, 90), (12, 52, 20, 80), True))


def test_whole_to_weak_is_zero_where_the_crop_leaves_the_image():
    maps = torch.rand(1, 2, 10, 10) + 1
    view = whole_view(maps, (40, 40), (-8, 40, 4, 52), False)
    assert torch.equal(view[:, :, 2:, :9], maps[:, :, :, 1:])
    assert (view[:, :, :2] == 0).all() and (view[:, :, :, 9:] == 0).all()
