from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from acclimate.data.colour import Statistics, collect, from_lab, lab_statistics, to_lab, transfer
from acclimate.data.layouts import Sample

LEVELS = np.arange(0, 256, 5, dtype=np.uint8)
ALL_COLOURS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), -1).reshape(len(LEVELS), -1, 3)


def photo(seed: int, hw=(60, 80)) -> np.ndarray:
    """Noise about some colour."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(rng.uniform(80, 170, 3), rng.uniform(10, 30, 3), (*hw, 3)), 0, 255).astype(np.uint8)


@dataclass
class Pictures:
    """An image set in memory that counts how often images are opened."""

    names: list[str]
    opened: list[int] = field(default_factory=list)

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(name, Path(name), None) for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        self.opened.append(index)
        return photo(index, (90, 200))


def test_lab_agrees_with_skimage():
    oracle = pytest.importorskip("skimage.color", reason="scikit-image is not installed")
    lab = to_lab(ALL_COLOURS)
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, oracle.rgb2lab(ALL_COLOURS), atol=0.1)
    disturbed = lab + np.random.default_rng(0).normal(0, 15, lab.shape).astype(np.float32)  # also outside sRGB
    disturbed = disturbed[(disturbed[..., 0] + 16) / 116 > disturbed[..., 2] / 200]  # Z >= 0: skimage clips (and warns)
    assert np.abs(from_lab(disturbed) - np.clip(oracle.lab2rgb(disturbed), 0, 1) * 255).max() <= 1


def test_there_and_back_is_the_same_picture():
    assert np.array_equal(from_lab(to_lab(ALL_COLOURS)), ALL_COLOURS)


def test_statistics_of_known_colours():
    black_and_white = np.zeros((2, 2, 3), np.uint8)
    black_and_white[0] = 255
    statistics = lab_statistics(black_and_white)
    np.testing.assert_allclose(statistics.mean, [50, 0, 0], atol=0.05)
    np.testing.assert_allclose(statistics.std, [50, 0, 0], atol=0.05)  # of the population: 50, not 57.7


def test_transfer_brings_the_wanted_statistics():
    source, target = photo(0), photo(1)
    got = lab_statistics(transfer(source, lab_statistics(source), lab_statistics(target)))
    np.testing.assert_allclose(got.mean, lab_statistics(target).mean, atol=0.5)
    np.testing.assert_allclose(got.std, lab_statistics(target).std, atol=0.5)


def test_transfer_to_its_own_statistics_changes_nothing():
    own = lab_statistics(photo(0))
    assert np.abs(transfer(photo(0), own, own).astype(int) - photo(0)).max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_transfer_is_the_linear_map_in_lab_to_a_grey_level(seed):
    own, wanted = lab_statistics(ALL_COLOURS), lab_statistics(photo(seed))
    lab = (to_lab(ALL_COLOURS) - own.mean) * (wanted.std / own.std) + wanted.mean
    off = np.abs(transfer(ALL_COLOURS, own, wanted).astype(int) - from_lab(lab.astype(np.float32)))
    assert off.max() <= 1 and (off > 0).mean() < 1e-3  # where it is rounded the other way


def test_transfer_of_a_crop_is_the_crop_of_the_transfer():
    own, wanted = lab_statistics(photo(0)), lab_statistics(photo(1))
    assert np.array_equal(transfer(photo(0)[10:30, 5:50], own, wanted), transfer(photo(0), own, wanted)[10:30, 5:50])


def test_a_flat_grey_image_takes_the_mean_without_noise():
    grey = np.full((20, 20, 3), 90, np.uint8)
    result = transfer(grey, lab_statistics(grey), lab_statistics(photo(1)))
    assert np.ptp(result.reshape(-1, 3), axis=0).max() == 0
    np.testing.assert_allclose(lab_statistics(result).mean, lab_statistics(photo(1)).mean, atol=0.7)


def test_collect_measures_every_image_in_order(tmp_path):
    statistics = collect(Pictures(["a", "b", "c"]), tmp_path / "deep" / "colour.npz")
    assert statistics.shape == (3, 2, 3) and statistics.dtype == np.float32
    for index in range(3):
        whole = lab_statistics(photo(index, (90, 200)))
        np.testing.assert_allclose(statistics[index, 0], whole.mean, atol=1)
    assert len({tuple(row) for row in statistics[:, 0].tolist()}) == 3
    assert Statistics(*statistics[0]).std.shape == (3,)


def test_collect_reads_the_cache_while_the_names_are_the_same(tmp_path):
    cache = tmp_path / "colour.npz"
    first = collect(Pictures(["a", "b"]), cache)
    again, other = Pictures(["a", "b"]), Pictures(["a", "c"])
    assert np.array_equal(collect(again, cache), first) and again.opened == []
    collect(other, cache)
    assert sorted(other.opened) == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["colour.npz"]


def test_collect_mends_a_damaged_cache(tmp_path):
    cache = tmp_path / "colour.npz"
    first = collect(Pictures(["a", "b"]), cache)
    for damaged in (cache.read_bytes()[:50], b"", b"not an archive"):
        cache.write_bytes(damaged)
        assert np.array_equal(collect(Pictures(["a", "b"]), cache), first)
