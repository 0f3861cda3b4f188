"""What holds for images of any shape, label maps of any content, and YAML of any form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate import yamls
from acclimate.data.augment import sample_weak, strong_view
from acclimate.data.geometry import FILL, Geometry, Grid, scaled_size
from acclimate.data.seeding import generator
from acclimate.errors import UserError
from acclimate.labels import IGNORE, read_label_map
from acclimate.printable import is_plain
from acclimate.recipe import Augment, Data

sides = st.integers(1, 300) | st.sampled_from([1, 2, 3000])
grids = st.builds(Grid, st.sampled_from([1, 2, 4, 8]), st.booleans(), st.booleans())


class TestViews:
    @settings(max_examples=40)
    @given(sides, sides, st.integers(32, 80), st.integers(32, 80), st.integers(32, 400), st.integers(0, 99))
    def test_a_view_of_any_image_has_the_crops_size_and_ignores_what_it_does_not_show(
        self, height: int, width: int, crop_h: int, crop_w: int, at: int, seed: int
    ) -> None:
        data, rng = Data(width=at, crop=(crop_h, crop_w)), generator(seed, "x")
        try:
            weak = sample_weak((height, width), data, True, rng)
        except UserError:
            assert height * (1.5 * at) ** 2 / width > 1 << 27, "refused for its size alone"
            return
        image_HWC = np.full((height, width, 3), 200, np.uint8)
        crop_HWC, label_HW = weak.image(image_HWC), weak.label(np.full((height, width), 3, np.uint8))
        assert crop_HWC.shape == (crop_h, crop_w, 3) and label_HW.shape == (crop_h, crop_w)
        assert set(np.unique(label_HW)) <= {3, IGNORE} and set(np.unique(crop_HWC)) <= {200, FILL}
        strong = strong_view(crop_HWC, weak, Augment(), rng)
        assert strong.image_HWC.shape == crop_HWC.shape
        assert not (strong.geometry.label(np.full((height, width), 3, np.uint8)) == 3)[
            ~strong.geometry.visible()
        ].any(), "a label where nothing of the image is seen"
        assert not strong.geometry.visible()[~_reachable(weak, strong.geometry)].any()

    @given(st.integers(1, 3000), st.integers(1, 3000), grids)
    def test_cells_lie_on_the_picture_in_order(self, height: int, width: int, grid: Grid) -> None:
        rows, columns = grid.cells((height, width))
        for count, side in ((rows, height), (columns, width)):
            centres = grid.centres(side)
            assert count == len(centres) >= 1 and bool((np.diff(centres) > 0).all())
            assert centres[0] > 0 and centres[-1] < max(grid.reach(side), side) + 1

    @given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1, 40000))
    def test_a_scaled_size_keeps_the_shape_or_is_refused(self, height: int, width: int, to: float) -> None:
        try:
            scaled_h, scaled_w = scaled_size((height, width), to)
        except UserError as error:
            assert f"{width}x{height}" in str(error)
            return
        assert 1 <= scaled_h * scaled_w <= 1 << 29
        assert scaled_h == 1 or abs(scaled_h - height * to / width) <= 0.5


def _reachable(weak: Geometry, strong: Geometry) -> np.ndarray:
    """Pixels of the strong view whose centre lies within the weak one."""
    matrix = strong.relative_to(weak)
    y, x = np.mgrid[: strong.view_hw[0], : strong.view_hw[1]] + 0.5
    u, v = (row[0] * x + row[1] * y + row[2] for row in matrix[:2])
    return (u >= 0) & (u < weak.view_hw[1]) & (v >= 0) & (v < weak.view_hw[0])


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda name: is_plain(name) and name not in ("ignore", "other", "colours")
)


class TestLabelMaps:
    @settings(max_examples=60)
    @given(meaning=st.dictionaries(st.integers(-1, 65535), NAMES | st.just("ignore"), min_size=2), rest=st.booleans())
    def test_a_map_means_what_it_says(
        self, meaning: dict[int, str], rest: bool, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "map.yaml"
        tree = {**meaning, **({"other": "ignore"} if rest else {})}
        path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
        names = dict.fromkeys(name for name in meaning.values() if name != "ignore")
        if len(names) < 2:
            with pytest.raises(UserError, match="at least 2"):
                read_label_map(path)
            return
        space, table = read_label_map(path)
        assert space.classes == tuple(names)
        ids = table.encode(np.array([list(meaning)], np.int32), path)[0]
        assert [space.classes[i] if i != IGNORE else "ignore" for i in ids] == list(meaning.values())
        foreign = np.array([[i for i in (-1, 0, 7, 65535, 70000, -9) if i not in meaning][:1]], np.int64)
        if rest:
            assert table.encode(foreign, path).tolist() == [[IGNORE]]
        else:
            with pytest.raises(UserError, match="not in"):
                table.encode(foreign, path)


TEXT = st.text(st.characters(codec="utf-8"), max_size=20).filter(is_plain)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


class TestYaml:
    @settings(max_examples=100)
    @given(PLAIN)
    def test_plain_values_are_read_as_they_were_written(self, tree: object) -> None:
        text = yaml.dump(tree, Dumper=WithoutAliases, allow_unicode=True)
        value, node = yamls.parse(text)
        assert value == tree
        assert list(yamls.doubled(node)) == []

    @settings(max_examples=150)
    @given(st.text(st.characters(codec="utf-8") | st.sampled_from("[]{}:-&*!|>'\"%@`#,?\n\t "), max_size=60))
    def test_any_text_is_a_value_or_not_readable(self, text: str) -> None:
        try:
            yamls.parse(text)
        except yamls.NotReadable as error:
            assert str(error)

    @settings(max_examples=50)
    @given(content=st.binary(max_size=200))
    def test_any_bytes_are_a_text_or_not_readable(
        self, content: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path: Path = tmp_path_factory.getbasetemp() / "bytes.yaml"
        path.write_bytes(content)
        try:
            yamls.read_text(path)
        except yamls.NotReadable as error:
            assert "UTF-8" in str(error)
