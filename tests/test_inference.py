"""From one image to scores: on either kind of grid, once or as the mean of several looks."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from acclimate.data.datasets import open_labelled
from acclimate.data.geometry import Grid
from acclimate.data.softlabels import SoftLabels
from acclimate.errors import UserError
from acclimate.evaluation import evaluate
from acclimate.inference import (
    Inference,
    cells,
    forward_image,
    forward_images,
    likeliest,
    predict_labels,
    prepare,
    scores,
    stretch,
    window_starts,
)
from acclimate.prediction import Model, predict_files
from acclimate.recipe import Folder
from acclimate.selflabel import PrototypeMeans
from acclimate.stages.initialise import label_target


class Cornered(nn.Module):
    """Looks at single points of the image, the outermost at its corners, as the paper's network does."""

    grid = Grid(8, corners=True, beyond=True)
    stride = 8
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(6.0))
        self.seen = []

    def forward(self, image_BCHW):
        self.seen.append(tuple(image_BCHW.shape[2:]))
        size = self.grid.cells(image_BCHW.shape[2:])
        points = F.interpolate(image_BCHW, size, mode="bilinear", align_corners=True)
        return (self.gain * points).contiguous(memory_format=torch.channels_last), points


@pytest.fixture
def cornered() -> Cornered:
    return Cornered()


def _probabilities(network, image, width, how=None):
    return Model(network, None, width, how or Inference()).probabilities(image)


def _noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Maps between corners


class Many(Cornered):
    """Has so many classes that another kernel would stretch maps that lie channels last."""

    num_classes = 12

    def forward(self, image_BCHW):
        logits, points = super().forward(image_BCHW)
        many = torch.cat([gain * logits for gain in (1, 0.7, -0.3, -1.1)], dim=1)
        return many.contiguous(memory_format=torch.channels_last), points


@pytest.mark.parametrize("size", [(64, 96), (50, 75), (57, 131)])
def test_corner_maps_are_stretched_as_in_the_official_evaluation(size):
    image, cornered = _noise(*size), Many()
    (logits,) = forward_images(cornered, [image], size[1])
    assert cornered.seen == [size], "the network sees the image without padding"
    with torch.no_grad():
        maps = cornered(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0].contiguous()
    official = F.interpolate(maps, size=size, mode="bilinear", align_corners=True)[0]
    assert torch.equal(logits, official)
    assert np.array_equal(predict_labels(cornered, image, size[1]), official.argmax(0).numpy())


def test_stretching_between_corners_keeps_the_place_of_pixels():
    """A ramp over the image stays the same ramp at any other size of the image."""
    grid = Grid(8, corners=True, beyond=True)
    for scaled, size in ((64, 64), (64, 128), (65, 40), (57, 171)):
        count = grid.cells((scaled, scaled))[0]
        ramp = torch.linspace(0.5, scaled - 0.5, count)  # the cells' centres, in pixels of the scaled image
        out = stretch(ramp.expand(1, count, count), (scaled, scaled), grid, (size, size))
        expected = ((torch.arange(size) + 0.5) * scaled / size).clamp(0.5, scaled - 0.5)
        assert out.shape == (1, size, size)
        torch.testing.assert_close(out[0, 0], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(out[0, :, 0], torch.full((size,), float(expected[0])), atol=1e-4, rtol=0)


@pytest.mark.parametrize("width", [128, 129, 131])
def test_corner_maps_are_neither_cut_nor_moved_by_mirroring(cornered, width):
    image = _noise(60, 90)
    straight, feat = forward_image(cornered, image, width)
    averaged, _ = forward_image(cornered, image, width, flip=True)
    rows, columns = (cornered.seen[0][0] + 1) // 8 + 1, (width + 1) // 8 + 1
    assert straight.shape == feat.shape == (3, rows, columns)
    torch.testing.assert_close(averaged, straight)


def test_tiny_images_are_enlarged_to_what_the_network_takes(cornered):
    assert predict_labels(cornered, _noise(9, 40), 40).shape == (9, 40)
    assert cornered.seen == [(32, 40)]


# Several looks


@pytest.mark.parametrize("kind", ["brightest", "cornered"])
def test_scales_are_averaged_as_probabilities(request, kind):
    network, image = request.getfixturevalue(kind), _noise(50, 75)
    each = [_probabilities(network, image, 150, Inference((scale,))) for scale in (0.75, 1, 1.3)]
    together = _probabilities(network, image, 150, Inference((0.75, 1, 1.3)))
    np.testing.assert_allclose(together, np.mean(each, axis=0), atol=1e-6)
    np.testing.assert_allclose(each[0], _probabilities(network, image, 112.5), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 0.01


class Sided(Cornered):
    """Finds red more likely towards the right."""

    def forward(self, image_BCHW):
        logits, points = super().forward(image_BCHW)
        logits[:, 0] = logits[:, 0] + torch.linspace(-2, 2, logits.shape[-1])
        return logits, points


def test_flip_is_the_mean_with_the_mirrored_image():
    network, image = Sided(), _noise(50, 75)
    straight = _probabilities(network, image, 101)
    mirrored = _probabilities(network, np.ascontiguousarray(image[:, ::-1]), 101)[..., ::-1]
    assert np.abs(straight - mirrored).max() > 0.1
    together = _probabilities(network, image, 101, Inference(flip=True))
    np.testing.assert_allclose(together, (straight + mirrored) / 2, atol=1e-5)


@pytest.mark.parametrize("kind", ["brightest", "cornered"])
def test_windows_are_averaged_where_they_overlap(request, kind):
    network, image = request.getfixturevalue(kind), _noise(70, 110)
    expected, count = np.zeros((3, 70, 110)), np.zeros((70, 110))
    for top in (0, 27, 30):  # 40 high, a step of two thirds, the last at the border
        for left in (0, 32, 62):
            part = slice(top, top + 40), slice(left, left + 48)
            expected[:, *part] += _probabilities(network, image[part], 48)
            count[part] += 1
    together = _probabilities(network, image, 110, Inference(window=(40, 48)))
    np.testing.assert_allclose(together, expected / count, atol=1e-5)


@given(length=st.integers(1, 300), window=st.integers(32, 120))
def test_windows_cover_a_side_and_overlap_by_a_third(length, window):
    starts = window_starts(length, window)
    assert starts[0] == 0
    assert starts[-1] == max(length - window, 0)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (window - steps >= math.floor(window / 3)).all()


def test_a_window_of_the_whole_image_is_no_window(cornered):
    image = _noise(60, 90)
    plain = _probabilities(cornered, image, 90)
    np.testing.assert_allclose(_probabilities(cornered, image, 90, Inference(window=(500, 500))), plain, atol=1e-6)


@pytest.mark.parametrize("kind", ["brightest", "cornered"])
def test_all_kinds_of_looks_together(request, kind, blocks):
    network = request.getfixturevalue(kind)
    image, truth = blocks(96, 150)
    model = Model(network, None, 120, Inference((0.8, 1.25), flip=True, window=(50, 70)))
    probabilities = model.probabilities(image)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    label = model.predict(image)
    assert np.array_equal(probabilities.argmax(0), label)
    assert (label == truth).mean() > 0.9


@pytest.mark.cuda
def test_a_gpu_looks_as_a_cpu_does(cornered):
    image, how = _noise(70, 110), Inference((0.8, 1.25), flip=True, window=(40, 48))
    on_cpu = _probabilities(cornered, image, 150, how)
    np.testing.assert_allclose(_probabilities(cornered.cuda(), image, 150, how), on_cpu, atol=1e-4)


@pytest.mark.cuda
def test_nothing_waits_for_a_gpu_before_the_labels_are_read(cornered):
    network, means = cornered.cuda(), PrototypeMeans(3, 3)
    hows = (Inference(), Inference((0.8, 1.25), flip=True, window=(40, 48)))
    shown = [prepare(network.grid, _noise(70, 110), 150, how) for how in hows]
    means.add(*(maps[None] for maps in reversed(cells(network, shown[0]))))  # the sums move to the GPU once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [likeliest(next(scores(network, [one], how))) for one, how in zip(shown, hows, strict=True)]
        means.add(*(maps[None] for maps in reversed(cells(network, shown[0], flip=True))))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for label, how in zip(found, hows, strict=True):
        assert np.array_equal(label.cpu().numpy(), predict_labels(network, _noise(70, 110), 150, how))


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """What the main thread reads from tensors: each would wait for a GPU."""
    found: list[str] = []

    def watched(name):
        original = getattr(torch.Tensor, name)

        def method(self, *args, **more):
            if threading.current_thread() is threading.main_thread():
                found.append(name)
            return original(self, *args, **more)

        monkeypatch.setattr(torch.Tensor, name, method)

    for name in ("cpu", "item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__"):
        watched(name)
    return found


@pytest.mark.parametrize("task", ["label", "evaluate", "predict"])
def test_passes_read_nothing_from_the_device_while_images_are_left(task, read, brightest, rgb_space, blocks, tmp_path):
    brightest.channels, brightest.directions = 3, lambda: torch.eye(3)
    counts = []
    for images in (2, 9):
        data = tmp_path / f"{images}"
        for kind in ("images", "labels"):
            (data / kind).mkdir(parents=True)
        for number in range(images):
            for kind, picture in zip(("images", "labels"), blocks(40, 60, number), strict=True):
                Image.fromarray(picture).save(data / kind / f"{number}.png")
        labelled = open_labelled(Folder(str(data)), "val", rgb_space)
        read.clear()
        if task == "label":
            names = tuple(sample.name for sample in labelled.samples)
            label_target(brightest, labelled, SoftLabels(data / "soft", names, rgb_space.classes, brightest.grid, 64))
        elif task == "evaluate":
            evaluate(brightest, labelled, rgb_space, 64)
        else:
            predict_files(Model(brightest, rgb_space, 64), data / "images", data / "masks")
        counts.append(len(read))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": ()}, "scales: expected numbers above 0"),
        ({"scales": (1, 0)}, "scales: expected"),
        ({"scales": (math.nan,)}, "scales: expected"),
        ({"scales": (math.inf,)}, "scales: expected"),
        ({"window": (64, 31)}, r"at least 32x32 pixels \(height x width\), found 64x31"),
    ],
)
def test_looks_that_cannot_be_taken_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        Inference(**wrong)
