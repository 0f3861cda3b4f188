import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import adjust_hue

from acclimate.data import augment
from acclimate.data.augment import (
    GEOMETRIC,
    OFFICIAL_VALUES,
    OPERATIONS,
    PHOTOMETRIC,
    blur_and_jitter,
    official_look,
    sample_weak,
    strong_view,
)
from acclimate.data.geometry import FILL, Geometry, affine
from acclimate.recipe import Augment, Data

SHAPE_ONLY = Augment(flip=True, blur=0, jitter=0, operations=0, cutout=0)
NOTHING = Augment(flip=False, blur=0, jitter=0, operations=0, cutout=0)


def photo(hw=(100, 140)) -> np.ndarray:
    """A smooth, colourful picture."""
    y, x = np.mgrid[: hw[0], : hw[1]] / max(hw)
    return np.stack([200 * x + 20, 180 * y + 60, 120 + 80 * np.sin(9 * x + 5 * y)], -1).astype(np.uint8)


def weak_view(rng: np.random.Generator, crop=(64, 80)) -> tuple[np.ndarray, Geometry]:
    image = photo()
    view = sample_weak(image.shape[:2], Data(width=140, crop=crop), True, rng)
    return view.image(image), view


def only(monkeypatch, *names: str) -> None:
    """Let RandAugment draw from these operations alone."""
    monkeypatch.setattr(augment, "OPERATIONS", names)


def test_weak_views_cover_the_ranges_asked_for():
    rng = np.random.default_rng(0)
    views = [sample_weak((100, 140), Data(width=280, crop=(64, 80), scale=(0.5, 2.0)), True, rng) for _ in range(300)]
    scales = [140 / 280 / abs(v.matrix[0]) for v in views]
    assert min(scales) < 0.55 and max(scales) > 1.9 and min(scales) >= 0.5 and max(scales) <= 2.01
    assert 100 < sum(v.matrix[0] < 0 for v in views) < 200
    assert all(v.visible().all() for v in views)  # the scaled image is never smaller than the crop here
    left_most = [v.relative_to(Geometry.whole((100, 140), (100, 140)))[0, 2] for v in views if v.matrix[0] > 0]
    assert min(left_most) < 3 and len(set(left_most)) > 80


def test_small_images_lie_whole_within_the_crop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = sample_weak((50, 40), Data(width=40, crop=(64, 80), scale=(1, 1)), False, rng)
        assert view.visible().sum() == 50 * 40


def test_no_flip_means_no_flip():
    rng = np.random.default_rng(0)
    assert all(sample_weak((90, 120), Data(), False, rng).matrix[0] > 0 for _ in range(30))


def test_equal_generators_give_equal_views():
    crop, weak = weak_view(np.random.default_rng(1))
    choices = Augment(operations=4, magnitude=1.0)
    a, b = (strong_view(crop, weak, choices, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(a.image_HWC, b.image_HWC) and a.geometry == b.geometry
    assert torch.equal(a.replay.pack().nan_to_num(-1), b.replay.pack().nan_to_num(-1))
    assert not np.array_equal(a.image_HWC, strong_view(crop, weak, choices, np.random.default_rng(8)).image_HWC)


def test_without_choices_the_strong_view_is_the_weak_one():
    crop, weak = weak_view(np.random.default_rng(1))
    strong, geometry, _ = strong_view(crop, weak, NOTHING, np.random.default_rng(0))
    assert np.array_equal(strong, crop)
    assert np.array_equal(geometry.relative_to(weak), np.eye(3))


def test_the_record_redraws_the_strong_view_from_the_file(monkeypatch):
    """Where only the shape changes, image and record must say the same, cutout and padding included."""
    only(monkeypatch, *GEOMETRIC)
    choices = Augment(blur=0, jitter=0, operations=3, magnitude=1.0, cutout=0.5)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        crop, weak = weak_view(rng)
        strong, geometry, _ = strong_view(crop, weak, choices, rng)
        assert np.array_equal(strong, geometry.image(photo()))


def test_operations_compose_in_drawn_order(monkeypatch):
    crop, weak = weak_view(np.random.default_rng(1))
    choices = Augment(flip=False, blur=0, jitter=0, operations=3, magnitude=1.0, cutout=0)
    only(monkeypatch, *GEOMETRIC)
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(augment, "affine", lambda *what: drawn.append(affine(*what)) or drawn[-1])
    for seed in range(10):
        drawn.clear()
        _, strong, _ = strong_view(crop, weak, choices, np.random.default_rng(seed))
        first, second, third = drawn
        np.testing.assert_allclose(strong.relative_to(weak), first @ second @ third, atol=1e-6)


def test_an_operation_drawn_twice_acts_twice(monkeypatch):
    crop, weak = weak_view(np.random.default_rng(1))
    only(monkeypatch, "rotate")
    monkeypatch.setattr(augment, "VALUES", {"rotate": lambda strength, hw: 10})
    choices = Augment(flip=False, blur=0, jitter=0, operations=2, cutout=0)
    _, strong, _ = strong_view(crop, weak, choices, np.random.default_rng(0))
    np.testing.assert_allclose(strong.relative_to(weak), affine("rotate", 20, weak.view_hw), atol=1e-6)


def test_the_extra_flip_mirrors_half_of_the_views():
    crop, weak = weak_view(np.random.default_rng(1))
    views = [strong_view(crop, weak, SHAPE_ONLY, np.random.default_rng(seed)) for seed in range(60)]
    mirrored = [image for image, geometry, _ in views if geometry.relative_to(weak)[0, 0] == -1]
    assert 15 < len(mirrored) < 45
    assert all(np.array_equal(image, crop[:, ::-1]) for image in mirrored)


def test_cutout_stays_in_its_limits_and_is_grey():
    crop, weak = weak_view(np.random.default_rng(1))
    choices = Augment(flip=False, blur=0, jitter=0, operations=0, cutout=0.5)
    sides = []
    for seed in range(60):
        strong, geometry, _ = strong_view(crop, weak, choices, np.random.default_rng(seed))
        if geometry.cutout is not None:
            y0, x0, y1, x1 = geometry.cutout
            assert 0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 80
            sides.append(((y1 - y0) / 64, (x1 - x0) / 80))
            assert (strong[y0:y1, x0:x1] == FILL).all()
            assert np.array_equal(geometry.visible() | (strong == FILL).all(-1), np.ones((64, 80), bool))
    assert 0.45 < np.max(sides) <= 0.51


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 0.5, 1.0])
def test_every_operation_gives_a_picture_at_every_magnitude(monkeypatch, name, magnitude):
    crop, weak = weak_view(np.random.default_rng(1))
    only(monkeypatch, name)
    choices = Augment(flip=False, blur=0, jitter=0, operations=1, magnitude=magnitude, cutout=0)
    strong, geometry, _ = strong_view(crop, weak, choices, np.random.default_rng(0))
    assert strong.shape == crop.shape and strong.dtype == np.uint8
    moved = not np.allclose(geometry.relative_to(weak), np.eye(3))
    assert moved == (name in GEOMETRIC and magnitude > 0)
    if magnitude == 0 and name not in ("autocontrast", "equalize"):
        assert np.array_equal(strong, crop)
    if magnitude == 1 and name != "identity":
        assert not np.array_equal(strong, crop)


def test_photometric_and_geometric_operations_have_different_names():
    assert not set(PHOTOMETRIC) & set(GEOMETRIC)


def blurred_and_jittered(picture: np.ndarray, choices: Augment, seed: int) -> np.ndarray:
    return np.asarray(blur_and_jitter(Image.fromarray(picture), choices, np.random.default_rng(seed)))


def test_jitter_stays_in_its_limits():
    """Grey pictures keep their hue and saturation, so only brightness moves their mean."""
    grey = np.full((32, 40, 3), 100, np.uint8)
    choices = Augment(blur=0, jitter=0.4)
    means = [blurred_and_jittered(grey, choices, seed) for seed in range(100)]
    assert all(np.ptp(picture.astype(int), axis=-1).max() <= 1 for picture in means)
    levels = [picture.mean() for picture in means]
    assert 58 < min(levels) < 66 and 134 < max(levels) < 142


def test_jitter_of_colour_keeps_luminance_apart_from_brightness():
    picture = photo()
    choices = Augment(blur=0, jitter=0.1)
    luminance = picture @ [0.299, 0.587, 0.114]
    for seed in range(10):
        jittered = blurred_and_jittered(picture, choices, seed) @ [0.299, 0.587, 0.114]
        assert np.corrcoef(luminance.ravel(), jittered.ravel())[0, 1] > 0.999


def test_blur_smooths():
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    blurred = [blurred_and_jittered(noise, Augment(blur=1.0, jitter=0), s) for s in range(20)]
    spreads = [picture.std() for picture in blurred]
    assert min(spreads) < 0.5 * noise.std() and max(spreads) <= noise.std()
    assert np.array_equal(blurred_and_jittered(noise, Augment(blur=0.0, jitter=0), 0), noise)


OFFICIAL = Augment(policy="official", flip=False, blur=0, jitter=0, operations=2)


def official_views(choices: Augment, count: int = 400, crop=(64, 80)) -> list[augment.StrongView]:
    picture, weak = weak_view(np.random.default_rng(1), crop)
    return [strong_view(picture, weak, choices, np.random.default_rng(seed)) for seed in range(count)]


def test_official_operations_apply_half_of_the_time(monkeypatch):
    only(monkeypatch, "shear_x")
    applied = [not np.isnan(v.replay.shear_x) for v in official_views(dataclasses.replace(OFFICIAL, operations=1))]
    assert 0.42 < np.mean(applied) < 0.58


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shear_x", {round(0.03 * v, 2) for v in range(1, 10)}),
        ("shear_y", {round(0.03 * v, 2) for v in range(1, 10)}),
        ("rotate", {3 * v for v in range(1, 10)}),
        ("translate_x", {int(0.03 * v * 80) for v in range(1, 10)}),
        ("translate_y", {int(0.03 * v * 64) for v in range(1, 10)}),
    ],
)
def test_official_strengths_are_nine_steps_in_either_direction(monkeypatch, name, values):
    only(monkeypatch, name)
    drawn = {round(getattr(view.replay, name), 4) for view in official_views(OFFICIAL)}
    drawn = {value for value in drawn if not np.isnan(value)}
    assert drawn == values | {-value for value in values}


def test_official_factors_bits_and_thresholds():
    tenths = [v / 10 for v in range(1, 10)]
    for name in ("brightness", "contrast", "colour", "sharpness"):
        factors = [OFFICIAL_VALUES[name](s, (8, 8)) for s in (*tenths, *(-t for t in tenths))]
        np.testing.assert_allclose(factors, [0.09 * v + 0.05 for v in range(1, 10)] * 2)
    assert [OFFICIAL_VALUES["posterize"](s, (8, 8)) for s in tenths] == [4, 4, 5, 5, 6, 6, 6, 7, 7]
    assert [OFFICIAL_VALUES["solarize"](s, (8, 8)) for s in tenths] == [231, 205, 180, 154, 128, 103, 77, 52, 26]


def test_official_memory_keeps_the_last_of_two_while_the_picture_has_both(monkeypatch):
    only(monkeypatch, "rotate")
    both = []
    for view in official_views(OFFICIAL, 100):
        relative = view.geometry.relative_to(view.geometry.parent)
        turned = np.degrees(np.arctan2(relative[1, 0], relative[0, 0]))
        remembered = np.nan_to_num(view.replay.rotate)
        both.append(abs(turned - remembered) > 1)
        assert abs(turned - remembered) <= 27.01  # the first of the two
    assert 10 < sum(both) < 40


def test_official_cutout_is_always_there_and_a_third_of_the_shorter_side():
    picture, weak = weak_view(np.random.default_rng(1))
    whole = 0
    for seed in range(200):
        choices = dataclasses.replace(OFFICIAL, operations=0, cutout=0)
        strong, geometry, remembered = strong_view(picture, weak, choices, np.random.default_rng(seed))
        y0, x0, y1, x1 = geometry.cutout
        assert (y0, x0) == (remembered.y0, remembered.x0)
        assert (y1, x1) == (min(remembered.y1 + 1, 64), min(remembered.x1 + 1, 80))
        sides = remembered.y1 - remembered.y0, remembered.x1 - remembered.x0
        assert max(sides) <= 21 and min(sides) > 10  # at least half of it lies within
        whole += sides == (21, 21)
        assert (strong[y0:y1, x0:x1] == FILL).all()
        changed = (strong != picture).any(-1)
        assert not changed[:y0].any() and not changed[y1:].any() and not changed[:, x1:].any()
    assert 100 < whole < 190


def test_official_picture_and_exact_record_agree(monkeypatch):
    only(monkeypatch, *GEOMETRIC)
    for view in official_views(dataclasses.replace(OFFICIAL, flip=True, operations=3), 30):
        assert np.array_equal(view.image_HWC, view.geometry.image(photo()))


def test_official_look_jitters_half_of_the_time():
    picture = Image.fromarray(photo())
    choices = dataclasses.replace(OFFICIAL, jitter=0.4)
    looks = [np.asarray(official_look(picture, choices, np.random.default_rng(seed))) for seed in range(200)]
    changed = [look for look in looks if not np.array_equal(look, picture)]
    assert 70 < len(changed) < 130
    brightness = np.array([look.mean() for look in changed]) / photo().mean()
    assert brightness.min() > 0.5 and brightness.max() < 1.5 and brightness.std() > 0.1
    assert all(
        np.array_equal(official_look(picture, OFFICIAL, np.random.default_rng(seed)), picture) for seed in range(20)
    )


def test_official_hue_turns_as_in_torchvision(monkeypatch):
    monkeypatch.setattr(augment, "PHOTOMETRIC", dict.fromkeys(PHOTOMETRIC, lambda image, value: image))
    picture = Image.fromarray(photo())
    for seed in range(12):
        ours = official_look(picture, dataclasses.replace(OFFICIAL, jitter=0.4), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()
        if rng.random() < 0.5:
            order = rng.permutation(["brightness", "contrast", "colour", "hue"]).tolist()
            turn = [rng.uniform(-1, 1) for _ in order][order.index("hue")] * 0.4
            assert np.array_equal(ours, adjust_hue(picture, turn))
        else:
            assert np.array_equal(ours, picture)


def test_our_policy_remembers_its_views_too(monkeypatch):
    only(monkeypatch, "translate_x")
    picture, weak = weak_view(np.random.default_rng(1))
    choices = Augment(flip=True, blur=0, jitter=0, operations=1, cutout=0)
    for seed in range(20):
        _, geometry, remembered = strong_view(picture, weak, choices, np.random.default_rng(seed))
        relative = geometry.relative_to(weak)
        assert remembered.mirrored == (relative[0, 0] < 0)
        moved = 80 - relative[0, 2] if remembered.mirrored else relative[0, 2]
        assert abs(remembered.translate_x - moved) < 1e-6
        assert np.isnan(remembered.rotate) and np.isnan(remembered.x0)
