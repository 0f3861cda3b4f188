import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acclimate.data import geometry
from acclimate.data.geometry import FILL, PIXELS, Geometry, Grid, affine, enlarge, resample, scaled_size
from acclimate.labels import IGNORE

PALETTE = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)], np.uint8)
COLOURS = np.vstack([PALETTE, np.full((IGNORE - len(PALETTE) + 1, 3), FILL, np.uint8)])
CROP = (48, 64)
GRIDS = (Grid(4), Grid(8), Grid(4, corners=True), Grid(8, corners=True, beyond=True))


def scene(hw=(90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """An image without symmetry whose colours are its labels, and the labels."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    label = np.zeros(hw, np.uint8)
    label[y > 0.6 * hw[0]] = 1
    label[(x - 0.3 * hw[1]) ** 2 + (y - 0.4 * hw[0]) ** 2 < (0.25 * hw[0]) ** 2] = 2
    label[x - y > 0.6 * hw[1]] = 3
    label[(y > 0.75 * hw[0]) & (x < 0.2 * hw[1])] = 4
    return PALETTE[label], label


def interior(label: np.ndarray) -> np.ndarray:
    """Pixels whose 5x5 neighbourhood lies in the view and has one label."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(label, 2, constant_values=254), (5, 5))
    return windows.max((2, 3)) == windows.min((2, 3))


def random_crop(rng: np.random.Generator, image_hw=(90, 120), crop_hw=CROP) -> Geometry:
    scaled_hw = scaled_size(image_hw, rng.uniform(50, 200))
    top_left = tuple(int(rng.integers(-10, 40)) for _ in range(2))
    return Geometry.crop(image_hw, scaled_hw, top_left, crop_hw, bool(rng.integers(2)))


def random_affine(rng: np.random.Generator, hw=CROP) -> np.ndarray:
    values = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 20, "translate_y": 20, "rotate": 30, "flip": 1}
    matrix = np.eye(3)
    for operation in rng.choice(list(values), 3):
        matrix = matrix @ affine(operation, values[operation] * rng.uniform(-1, 1), hw)
    return matrix


def random_cutout(rng: np.random.Generator) -> tuple[int, int, int, int]:
    y0, x0 = int(rng.integers(30)), int(rng.integers(40))
    return y0, x0, y0 + 15, x0 + 20


def batch(*matrices: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(matrices))


seeds = given(st.integers(0, 1 << 30))
few = settings(max_examples=25, deadline=None)


@few
@seeds
def test_image_and_label_of_a_crop_agree(seed):
    image, label = scene()
    view = random_crop(np.random.default_rng(seed))
    inside = interior(view.label(label))
    assert np.array_equal(view.image(image)[inside], COLOURS[view.label(label)][inside])


@few
@seeds
def test_image_and_label_of_a_transformed_view_agree(seed):
    image, label = scene()
    rng = np.random.default_rng(seed)
    view = random_crop(rng).then(random_affine(rng), random_cutout(rng))
    inside = interior(view.label(label))
    difference = np.abs(view.image(image).astype(int) - COLOURS[view.label(label)])[inside]
    assert (difference > 1).mean() < 0.002  # Pillow rounds down; slivers between nearest and bilinear


@few
@seeds
def test_visible_is_where_there_is_a_label(seed):
    rng = np.random.default_rng(seed)
    weak = random_crop(rng)
    for view in (weak, weak.then(random_affine(rng), random_cutout(rng))):
        seen = view.label(scene()[1]) != IGNORE
        assert (view.visible() != seen).mean() < 0.002  # the file's very edge may round either way


@few
@seeds
def test_what_is_out_of_reach_may_be_anything(seed):
    rng = np.random.default_rng(seed)
    image, label = scene()
    view = random_crop(rng, crop_hw=(32, 40))
    rows, columns = view.reach()
    seen = np.zeros(label.shape, bool)
    seen[rows, columns] = True
    for whole, shown in ((image, view.image), (label, view.label)):
        spoiled = rng.integers(0, 256, whole.shape, dtype=np.uint8)
        spoiled[seen] = whole[seen]
        assert np.array_equal(shown(spoiled), shown(whole))
    turned = view.then(random_affine(rng))
    assert turned.reach() == view.reach()
    assert rows.stop - rows.start <= 32 * abs(view.array[1, 1]) + 2 * max(view.array[1, 1], 1) + 4


@pytest.mark.parametrize("matrix", [np.eye(3), affine("flip", 0, (90, 120))])
def test_views_that_need_no_look_up_are_what_it_would_give(matrix):
    picture = Image.fromarray(scene()[0])
    looked_up = geometry._warped(picture, matrix, (90, 120), Image.Resampling.BILINEAR, FILL)
    assert np.array_equal(geometry._moved(picture, matrix, (90, 120)), looked_up)


def test_a_crop_at_scale_one_is_a_slice():
    image, label = scene()
    view = Geometry.crop((90, 120), (90, 120), (7, 30), CROP, flip=True)
    assert np.array_equal(view.image(image), image[7 : 7 + 48, 30 : 30 + 64][:, ::-1])
    assert np.array_equal(view.label(label), label[7 : 7 + 48, 30 : 30 + 64][:, ::-1])


def test_a_crop_beyond_the_image_is_padded():
    image, label = scene()
    view = Geometry.crop((90, 120), (90, 120), (-5, 80), CROP, flip=False)
    padded_image = np.full((*CROP, 3), FILL, np.uint8)
    padded_image[5:, :40] = image[:43, 80:]
    padded_label = np.full(CROP, IGNORE, np.uint8)
    padded_label[5:, :40] = label[:43, 80:]
    assert np.array_equal(view.image(image), padded_image)
    assert np.array_equal(view.label(label), padded_label)
    assert np.array_equal(view.visible(), padded_label != IGNORE)


def test_a_crop_wholly_outside_shows_nothing():
    image, label = scene()
    view = Geometry.crop((90, 120), (90, 120), (200, 0), CROP, flip=False)
    assert (view.image(image) == FILL).all() and (view.label(label) == IGNORE).all() and not view.visible().any()


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (affine("flip", 0, CROP), lambda a: a[:, ::-1]),
        (affine("translate_x", 9, CROP), lambda a: np.pad(a[:, 9:], ((0, 0), (0, 9)), constant_values=IGNORE)),
        (affine("translate_y", -6, CROP), lambda a: np.pad(a[:-6], ((6, 0), (0, 0)), constant_values=IGNORE)),
        (affine("rotate", 180, CROP), lambda a: a[::-1, ::-1]),
    ],
)
def test_flips_and_whole_shifts_are_exact(transform, expected):
    image, label = scene()
    weak = Geometry.crop((90, 120), (96, 128), (3, 11), CROP, flip=False)  # no pixel centre falls between two
    view = weak.then(transform)
    shown = view.visible()
    assert np.array_equal(view.label(label), expected(weak.label(label)))
    assert np.array_equal(view.image(image)[shown], expected_channels(expected, weak.image(image))[shown])


def expected_channels(expected, image: np.ndarray) -> np.ndarray:
    return np.stack([expected(image[..., c]) for c in range(3)], axis=-1)


def test_rotation_turns_counter_clockwise_as_pillow_does():
    label = np.zeros((64, 64), np.uint8)
    label[:, 40:] = 1  # right half
    whole = Geometry.whole((64, 64), (64, 64))
    assert np.array_equal(whole.then(affine("rotate", 90, (64, 64))).label(label), np.rot90(label))


@few
@seeds
def test_composition_is_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    a, b, crop = random_affine(rng), random_affine(rng), random_crop(rng)
    one_by_one, at_once = crop.then(a).then(b), crop.then(a @ b)
    np.testing.assert_allclose(one_by_one.matrix, at_once.matrix, atol=1e-9)
    _, label = scene()
    both_see = one_by_one.visible()
    differ = one_by_one.label(label)[both_see] != at_once.label(label)[both_see]
    assert differ.mean() < 0.002 if differ.size else True
    assert not (both_see & ~at_once.visible()).any()


@few
@seeds
def test_relative_to_and_back_is_the_identity(seed):
    rng = np.random.default_rng(seed)
    a, b = random_crop(rng).then(random_affine(rng)), random_crop(rng)
    np.testing.assert_allclose(a.relative_to(b) @ b.relative_to(a), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(b.array @ a.relative_to(b), a.array, atol=1e-7)


@few
@seeds
def test_resample_agrees_with_the_labels_of_files(seed):
    rng = np.random.default_rng(seed)
    _, label = scene()
    weak = random_crop(rng)
    strong = weak.then(random_affine(rng))
    weak_label = torch.from_numpy(weak.label(label))[None, None]
    warped = resample(weak_label, batch(strong.relative_to(weak)), *[(CROP, PIXELS)] * 2, "nearest", fill=IGNORE)
    inside = interior(strong.label(label))
    assert np.array_equal(warped[0, 0].numpy()[inside], strong.label(label)[inside])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_resample_by_the_identity_changes_nothing(grid):
    hw = (27, 34)
    maps = torch.rand(2, 3, *grid.cells(hw))
    eye = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(resample(maps, eye, (hw, grid), (hw, grid)), maps, rtol=1e-5, atol=1e-5)
    assert torch.equal(resample(maps, eye, (hw, grid), (hw, grid), "nearest"), maps)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("finer", [1, 2])
def test_enlarged_maps_are_what_resampling_finds(grid, finer):
    hw = (27, 34)
    maps = torch.rand(1, 2, *grid.cells(hw))
    new = Grid(finer, grid.corners)
    ours, looked_up = enlarge(maps, grid, hw, finer), resample(maps, torch.eye(3)[None], (hw, grid), (hw, new))
    assert ours.shape[2:] == new.cells(hw)
    torch.testing.assert_close(ours, looked_up, rtol=1e-4, atol=1e-4)


def test_maps_in_their_own_cells_are_not_enlarged():
    maps = torch.rand(1, 2, 7, 9)
    assert enlarge(maps, Grid(4), (27, 34), 4) is maps


def test_corners_lie_on_the_outermost_pixels():
    for grid in (Grid(8, corners=True), Grid(8, corners=True, beyond=True)):
        centres = grid.centres(64)
        assert (centres[0], centres[-1]) == (0.5, 63.5)
        assert grid.index(torch.from_numpy(centres), 64).tolist() == pytest.approx(range(len(centres)), abs=1e-9)
    assert (len(Grid(8, True).centres(64)), len(Grid(8, True, True).centres(64))) == (8, 9)


def test_a_crop_tells_where_it_was_placed():
    view = Geometry.crop((90, 120), (135, 180), (7, -3), (48, 64), flip=True)
    assert view.placed() == (135, 180, 7, 55, -3, 61, 1)
    assert Geometry.whole((90, 120), (45, 60)).placed() == (45, 60, 0, 45, 0, 60, 0)


def test_resample_shifts_each_item_by_its_own_matrix_and_fills():
    labels = torch.arange(2 * 1 * 3 * 5).reshape(2, 1, 3, 5)
    shift = batch(affine("translate_x", 8, (12, 20)), affine("flip", 0, (12, 20)))
    frame = ((12, 20), Grid(4))
    moved = resample(labels, shift, frame, frame, mode="nearest", fill=-1)
    assert torch.equal(moved[0, 0, :, :3], labels[0, 0, :, 2:]) and (moved[0, 0, :, 3:] == -1).all()
    assert torch.equal(moved[1], labels[1].flip(-1))


def test_resample_does_not_fade_at_the_edges():
    ones = torch.ones(1, 1, 6, 8)
    matrix = batch(affine("translate_x", 1.9, (24, 32)))
    frame = ((24, 32), Grid(4))
    torch.testing.assert_close(resample(ones, matrix, frame, frame), ones)


@few
@seeds
def test_soft_maps_are_looked_up_at_the_exact_place(seed):
    """Probabilities that grow linearly over the scaled image come out linear in the view's own coordinates."""
    rng = np.random.default_rng(seed)
    image_hw, (grid, view_grid) = (90, 121), rng.choice(GRIDS, 2)
    scaled_hw = scaled_size(image_hw, 101)  # no multiple of the stride: the last cells reach beyond the image
    rows, _ = grid.cells(scaled_hw)
    centres = grid.centres(scaled_hw[1])
    x = np.broadcast_to(centres / 120, (rows, len(centres)))
    view = random_crop(rng, image_hw)
    soft = view.soft(np.stack([x, 1 - x]), scaled_hw, grid, view_grid).numpy()

    (a, _, c), _ = view.array[:2]
    scaled_x = (a * view_grid.centres(view.view_hw[1]) + c) * scaled_hw[1] / image_hw[1]
    inner = (scaled_x > centres[0]) & (scaled_x < centres[-1]) & view.visible(view_grid)
    np.testing.assert_allclose(soft[0][inner], np.broadcast_to(scaled_x / 120, inner.shape)[inner], atol=1e-5)
    assert (soft[:, ~view.visible(view_grid)] == 0).all()
    np.testing.assert_allclose(soft.sum(0)[view.visible(view_grid)], 1, atol=1e-5)


def test_cells_of_a_view_round_up_and_centres_beyond_it_are_not_visible():
    view = Geometry.crop((90, 120), (90, 120), (0, 0), (41, 50), flip=False)
    seen = view.visible(Grid(8))
    assert seen.shape == Grid(8).cells((41, 50)) == (6, 7)
    assert not seen[5].any() and not seen[:, 6].any() and seen[:5, :6].all()


def test_turned_or_cut_out_views_need_a_parent():
    with pytest.raises(ValueError, match="then"):
        Geometry((4, 4), (4, 4), (1, 0.1, 0, 0, 1, 0, 0, 0, 1))
