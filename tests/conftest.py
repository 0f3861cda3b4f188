"""What tests share: a network small enough to reason about, images, and which tests need a GPU."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import Tensor, nn

from acclimate import recipe
from acclimate.data.geometry import Grid
from acclimate.labels import LabelSpace

settings.register_profile("acclimate", deadline=None, derandomize=True)
settings.load_profile("acclimate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where the tests run in the background and the shell has switched it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Features(NamedTuple):
    logits_BKhw: Tensor
    feat_BDhw: Tensor


class Brightest(nn.Module):
    """Says which colour channel is the strongest in each cell; cells beyond the image are cut, as in real networks."""

    grid = Grid(4)
    stride = 4
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image_BCHW: Tensor) -> _Features:
        assert not self.training
        self.batches.append(tuple(image_BCHW.shape))
        mean_BChw = nn.functional.avg_pool2d(image_BCHW, self.stride, ceil_mode=True, count_include_pad=False)
        return _Features(self.gain * mean_BChw, mean_BChw)


@pytest.fixture
def brightest() -> Brightest:
    return Brightest()


@pytest.fixture(scope="session")
def brightest_class() -> type[Brightest]:
    return Brightest


@pytest.fixture(scope="session")
def rgb_space() -> LabelSpace:
    return LabelSpace("rgb", ("red", "green", "blue"), ((220, 40, 40), (40, 200, 60), (50, 80, 230)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, rgb_space: LabelSpace) -> Path:
    """A run folder as far as `load` is concerned: a real network with random weights."""
    from acclimate.networks import build
    from acclimate.networks.weights import save_model

    folder = tmp_path_factory.mktemp("run")
    choices = recipe.Network(weights="none", channels=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(choices, len(rgb_space))
    save_model(folder / "model.safetensors", network, rgb_space, choices, {"width": 64})
    return folder


@pytest.fixture
def blocks():
    """Image and its true labels: blocks of pure red, green and blue of random sizes."""

    def make(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        coarse = np.random.default_rng(seed).integers(0, 3, (3, 4), dtype=np.uint8)
        label_HW = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))
        return (np.eye(3, dtype=np.uint8) * 255)[label_HW], label_HW

    return make


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs of every stage on tiny streets: with labels to measure on and a ceiling, and without either."""
    from test_pipeline import tiny

    from acclimate.data import streets
    from acclimate.pipeline import adapt

    folder = tmp_path_factory.mktemp("runs")
    streets.write(folder / "streets", source=5, target=4, val=2, seed=3, size=(48, 80))
    measured = adapt(tiny(folder / "streets"), folder / "measured")
    blind = {"data__val__path": "''", "data__ceiling__path": "''"}
    return measured.folder, adapt(tiny(folder / "streets", **blind), folder / "blind", measured.folder).folder
