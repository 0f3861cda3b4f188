import json

import numpy as np
import pytest

from acclimate.data.geometry import Grid
from acclimate.data.softlabels import SoftLabels
from acclimate.errors import UserError

CLASSES = ("road", "car", "sky")
NAMES = ("town/a", "town/b", "ürban/c")


def probabilities(seed: int, hw=(5, 7)) -> np.ndarray:
    scores = np.exp(np.random.default_rng(seed).normal(0, 2, (len(CLASSES), *hw)))
    return (scores / scores.sum(0)).astype(np.float32)


@pytest.fixture
def store(tmp_path) -> SoftLabels:
    store = SoftLabels(tmp_path / "soft", NAMES, CLASSES, grid=Grid(4), width=28)
    for index in (2, 0, 1):
        store.write(index, probabilities(index))
    store.finish()
    return store


def test_what_is_written_is_read_to_half_a_step(store):
    opened = SoftLabels.open(store.folder, list(NAMES))
    assert opened == store
    for index in range(3):
        soft = opened.read(index)
        assert soft.dtype == np.uint8
        assert np.abs(soft / 255 - probabilities(index)).max() <= 0.5 / 255 + 1e-6


def test_files_are_named_by_index_and_no_temporary_ones_remain(store):
    names = sorted(file.name for file in store.folder.iterdir())
    assert names == ["000000.npz", "000001.npz", "000002.npz", "manifest.json"]
    assert json.loads((store.folder / "manifest.json").read_text(encoding="utf-8"))["names"] == list(NAMES)


def test_values_just_outside_of_0_to_1_do_not_wrap(store):
    soft = probabilities(0)
    soft[0, 0, 0], soft[1, 0, 0] = 1.001, -0.001
    store.write(0, soft)
    assert store.read(0)[:2, 0, 0].tolist() == [255, 0]


def test_an_unfinished_store_does_not_open(tmp_path):
    store = SoftLabels(tmp_path, NAMES, CLASSES, grid=Grid(4), width=28)
    store.write(0, probabilities(0))
    with pytest.raises(UserError, match=r"manifest\.json.*not finished.*run again"):
        SoftLabels.open(tmp_path, NAMES)


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[:2], (*NAMES, "d"), ("x", "y", "z")])
def test_a_store_of_other_images_does_not_open(store, names):
    with pytest.raises(UserError, match=r"manifest\.json.*other images"):
        SoftLabels.open(store.folder, names)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"names": 3}', "\x00"])
def test_a_damaged_manifest_is_named(store, text):
    (store.folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json.*not a manifest.*delete the folder"):
        SoftLabels.open(store.folder, NAMES)


def test_missing_and_truncated_files_are_named_with_their_image(store):
    store.path(0).unlink()
    store.path(1).write_bytes(store.path(1).read_bytes()[:40])
    with pytest.raises(UserError, match=r"000000\.npz.*town/a"):
        store.read(0)
    with pytest.raises(UserError, match=r"000001\.npz.*town/b"):
        store.read(1)


def test_another_number_of_classes_is_refused(store):
    with pytest.raises(ValueError, match="3 classes"):
        store.write(0, np.zeros((4, 5, 7)))
