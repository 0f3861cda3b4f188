"""Label spaces, schemes of the known data sets, own label maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate import labels
from acclimate.errors import UserError
from acclimate.labels import IGNORE, LabelSpace, LabelTable, label_space, label_table, read_label_map

FILE = Path("labels/0001.png")
SPACES = ("cityscapes19", "cityscapes16", "cityscapes13", "camvid11", "streets")


def meaning(space_name: str, scheme: str) -> dict[object, str]:
    """Raw value → class name, without the ignored values."""
    space = label_space(space_name)
    table = label_table(space, scheme)
    return {raw: space.classes[i] for raw, i in {**table.ids, **table.colours}.items() if i != IGNORE}


@pytest.mark.parametrize("name", SPACES)
def test_space_survives_json_and_paints_ignored_pixels_black(name: str) -> None:
    space = label_space(name)
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert len(space.palette()) == 768
    assert space.colour_map()[0].tolist() == list(space.colours[0])
    assert not space.colour_map()[len(space) :].any()
    assert len(set(space.colours)) == len(space)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"name": "a", "classes": ["x", "y"], "colours": [[0, 0, 0]]},
        {"name": "a", "classes": ["x", "x"], "colours": [[0, 0, 0], [1, 1, 1]]},
        {"name": "a", "classes": ["x"], "colours": [[0, 0, 256]]},
        {"name": "a", "classes": ["x"], "colours": ["red"]},
        {"name": "a", "classes": [], "colours": []},
        {"name": "a", "classes": [7], "colours": [[0, 0, 0]]},
    ],
)
def test_broken_space_is_refused(tree: dict) -> None:
    with pytest.raises(UserError, match="label space"):
        LabelSpace.from_dict(tree)


def test_cityscapes_ids_mean_the_official_train_ids() -> None:
    order = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    for scheme in ("cityscapes", "gta5"):
        table = label_table(label_space("cityscapes19"), scheme)
        assert [table.ids[raw] for raw in order] == list(range(19))
        assert {raw for raw, i in table.ids.items() if i == IGNORE} == set(table.ids) - set(order)
    assert 34 in label_table(label_space("cityscapes19"), "gta5").ids
    assert 34 not in label_table(label_space("cityscapes19"), "cityscapes").ids


def test_synthia_ids_in_the_order_used_in_the_literature() -> None:
    table = label_table(label_space("cityscapes19"), "synthia")
    order = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]
    assert [table.ids[raw] for raw in order] == list(range(19))
    sixteen = label_table(label_space("cityscapes16"), "synthia")
    order16 = [3, 4, 2, 21, 5, 7, 15, 9, 6, 1, 10, 17, 8, 19, 12, 11]
    assert [sixteen.ids[raw] for raw in order16] == list(range(16))
    assert sixteen.ids[16] == sixteen.ids[18] == sixteen.ids[22] == sixteen.ids[0] == IGNORE
    assert set(label_space("cityscapes16").classes) - set(label_space("cityscapes13").classes) == {
        "wall",
        "fence",
        "pole",
    }


def test_camvid_classes_take_in_cityscapes_ids() -> None:
    assert meaning("camvid11", "cityscapes") == {
        23: "sky", 11: "building", 12: "building", 17: "pole", 7: "road", 8: "pavement", 21: "tree", 19: "sign",
        20: "sign", 13: "fence", 26: "car", 27: "car", 28: "car", 24: "pedestrian", 25: "bicyclist", 33: "bicyclist",
    }  # fmt: skip


def test_camvid_original_colours_fall_into_the_eleven_groups() -> None:
    groups = meaning("camvid11", "camvid32")
    table = label_table(label_space("camvid11"), "camvid32")
    assert len(table.colours) == 32 and len(groups) == 31
    assert groups[(192, 0, 128)] == "building"  # archway
    assert groups[(192, 0, 192)] == "bicyclist"  # motorcycle
    assert groups[(128, 0, 192)] == "road"  # lane marking
    assert groups[(64, 128, 192)] == "car"  # SUV
    assert meaning("camvid11", "camvid") == dict(enumerate(label_space("camvid11").classes))


@pytest.mark.parametrize("name", SPACES)
def test_train_ids_mean_themselves(name: str) -> None:
    space = label_space(name)
    raw = np.array([[*range(len(space)), IGNORE]], np.uint8)
    assert np.array_equal(label_table(space, "train").encode(raw, FILE), raw)


def test_unknown_names_come_with_the_nearest_known() -> None:
    with pytest.raises(UserError, match=r"did you mean cityscapes19\?"):
        label_space("cityscape19")
    with pytest.raises(UserError, match=r"did you mean synthia\?"):
        label_table(label_space("streets"), "sinthia")
    with pytest.raises(UserError, match="no value for sidewalk"):
        label_table(label_space("cityscapes19"), "camvid")


raw_ids = st.dictionaries(st.integers(-1, 65535), st.sampled_from([*range(19), IGNORE]), min_size=1, max_size=40)


@given(raw_ids, st.data())
def test_encode_is_the_tables_meaning_pixel_by_pixel(ids: dict[int, int], data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.sampled_from(sorted(ids)), min_size=1, max_size=30))
    raw = np.array([pixels], np.int32)
    wanted = [[ids[v] for v in pixels]]
    encoded = LabelTable(ids).encode(raw, FILE)
    assert encoded.dtype == np.uint8 and encoded.tolist() == wanted
    for kind in (np.uint8, np.uint16, ">u2", np.int64):
        if raw.min() >= np.iinfo(kind).min and raw.max() <= np.iinfo(kind).max:
            assert LabelTable(ids).encode(raw.astype(kind), FILE).tolist() == wanted


@given(raw_ids, st.integers(-(2**31), 2**31 - 1))
def test_encode_never_guesses_an_unlisted_id(ids: dict[int, int], value: int) -> None:
    raw = np.array([[value, min(ids)]], np.int64)
    if value in ids:
        assert LabelTable(ids).encode(raw, FILE)[0, 0] == ids[value]
        return
    with pytest.raises(UserError, match=rf"0001\.png: label id {value} not in .*other: ignore"):
        LabelTable(ids).encode(raw, FILE)
    assert LabelTable(ids, unknown="ignore").encode(raw, FILE).tolist() == [[IGNORE, ids[min(ids)]]]


@given(st.dictionaries(st.tuples(*[st.integers(0, 255)] * 3), st.integers(0, 11), min_size=1, max_size=20))
def test_encode_colours(colours: dict[tuple[int, int, int], int]) -> None:
    raw = np.array([list(colours)], np.uint8)
    assert LabelTable(colours=colours).encode(raw, FILE).tolist() == [list(colours.values())]


def test_unknown_colours_are_named() -> None:
    table = label_table(label_space("camvid11"), "camvid32")
    with pytest.raises(UserError, match=r"0001\.png: label colours #010203, #010204 not in scheme `camvid32`"):
        table.encode(np.array([[[1, 2, 4], [1, 2, 3], [0, 0, 0]]], np.uint8), FILE)


def test_colours_where_ids_are_expected_and_the_reverse() -> None:
    with pytest.raises(UserError, match="holds colours, but scheme `cityscapes` lists single ids"):
        label_table(label_space("camvid11"), "cityscapes").encode(np.zeros((2, 2, 3), np.uint8), FILE)
    with pytest.raises(UserError, match="holds single ids, but scheme `camvid32` lists colours"):
        label_table(label_space("camvid11"), "camvid32").encode(np.zeros((2, 2), np.uint8), FILE)


def write(folder: Path, text: str) -> Path:
    path = folder / "town.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_label_map_numbers_classes_as_they_appear(tmp_path: Path) -> None:
    text = "7: road\n0: ignore\n9: tram\n8: road\n300: gravel\ncolours:\n  tram: '#0102ff'\n"
    space, table = read_label_map(write(tmp_path, text))
    assert (space.name, space.classes) == ("town", ("road", "tram", "gravel"))
    assert space.colours[0] == (128, 64, 128) and space.colours[1] == (1, 2, 255)
    assert len(set(space.colours)) == 3
    assert table.ids == {7: 0, 0: IGNORE, 9: 1, 8: 0, 300: 2} and table.unknown == "error"


def test_label_map_of_colours_into_a_known_space(tmp_path: Path) -> None:
    path = write(tmp_path, "'#FF0000': car\n'#00ff00': sky\nother: ignore\n")
    space, table = read_label_map(path, label_space("camvid11"))
    assert space == label_space("camvid11")
    assert table.colours == {(255, 0, 0): 8, (0, 255, 0): 0} and table.unknown == "ignore"


def test_label_map_lists_all_problems_at_once(tmp_path: Path) -> None:
    text = "5: road\n1: road\n1: sky\ngrass: tree\n70000: car\n2: no\n#804080: road\nother: error\n'#010203': sky\n"
    text += "colours: {road: red, lake: '#000000'}\n"
    with pytest.raises(UserError) as caught:
        read_label_map(write(tmp_path, text))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'town.yaml'}: 9 problems")
    for part in (
        "other: only", "1: listed 2 times", "grass: expected a raw id", "70000: expected", "2: expected a class name",
        "#804080: YAML takes", "both ids and colours", "road: expected a quoted colour", "lake is not a class",
    ):  # fmt: skip
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "a label map has lines"),
        ("- road\n", "a label map has lines"),
        ("1: [road\n", "cannot be read"),
        ("1: road\n", "names 1 classes"),
        ("".join(f"{i}: class {i}\n" for i in range(300)), "at most 253"),
        ("1: road\n2: sky\ncolours: red\n", "colours: expected lines"),
    ],
)
def test_label_map_that_cannot_be_used(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_label_map(write(tmp_path, text))
    with pytest.raises(UserError, match="no such label map"):
        read_label_map(tmp_path / "missing.yaml")


def test_label_map_names_must_be_in_the_given_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rode: not a class of label space streets \(did you mean road\?\)"):
        read_label_map(write(tmp_path, "1: rode\n2: sky\n"), label_space("streets"))


def test_many_own_classes_get_different_colours(tmp_path: Path) -> None:
    space, _ = read_label_map(write(tmp_path, "".join(f"{i}: kind {i}\n" for i in range(60))))
    assert len(set(space.colours)) == 60


def test_every_scheme_is_reachable_by_some_space() -> None:
    for scheme in labels.schemes():
        assert label_table(label_space("camvid11"), scheme).origin == f"scheme `{scheme}`"
