"""`check` finds everything that is wrong with the data before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate import recipe
from acclimate.check import check
from acclimate.errors import UserError

HW = (48, 64)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_set(root: Path, count: int = 9, labelled: bool = True) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        save(root / f"images/{i}.png", rng.integers(0, 256, (*HW, 3)).astype(np.uint8))
        if labelled:
            label = np.zeros(HW, np.uint8)
            label[: HW[0] // 4] = 3
            label[:, :16] = 255
            save(root / f"labels/{i}.png", label)


def a_recipe(root: Path, *sets: str, **data: object) -> recipe.Recipe:
    folders = {role: {"path": str(root / role)} for role in ("source", "target", *sets)}
    return recipe.parse({"data": {"classes": "camvid11", "width": 64, "crop": [48, 64], **folders, **data}})


@pytest.fixture
def town(tmp_path: Path) -> Path:
    make_set(tmp_path / "source")
    make_set(tmp_path / "target", labelled=False)
    return tmp_path


def problems(of: recipe.Recipe, **choices: int) -> str:
    with pytest.raises(UserError) as caught:
        check(of, **choices)
    return str(caught.value)


def test_findings_of_sound_data(town: Path) -> None:
    make_set(town / "val", 3)
    make_set(town / "ceiling")
    said: list[str] = []
    found = check(a_recipe(town, "val", "ceiling"), said.append)
    assert [(s.role, s.images, s.decoded) for s in found.sets] == [
        ("source", 9, 9), ("target", 9, 9), ("val", 3, 3), ("ceiling", 9, 9),
    ]  # fmt: skip
    assert all(s.smallest_hw == s.largest_hw == HW for s in found.sets)
    source, target, val, ceiling = found.sets
    assert source.frequency_K == pytest.approx([0.75, 0, 0, 0.25] + [0] * 7)
    assert source.ignored == val.ignored == pytest.approx(0.25)
    assert target.frequency_K is None and ceiling.frequency_K is None, "nothing is told of target-train labels"
    assert said[0] == "checking source: 9 images"


def test_absent_classes_and_orphans_are_warnings(town: Path) -> None:
    save(town / "source/labels/old.png", np.zeros(HW, np.uint8))
    warnings = "\n".join(check(a_recipe(town)).warnings)
    assert "building, pole, pavement" in warnings and "never occur" in warnings
    assert "1 label files belong to no image" in warnings and "old.png" in warnings


def test_all_problems_are_listed_at_once(town: Path) -> None:
    (town / "source/images/1.png").write_bytes(b"")
    save(town / "source/labels/2.png", np.full(HW, 77, np.uint8))
    save(town / "source/labels/3.png", np.zeros((9, 9), np.uint8))
    path = town / "target/images/4.png"
    path.write_bytes(path.read_bytes()[:-200])
    message = problems(a_recipe(town, "val"))
    assert message.startswith("5 problems in the data:")
    for part in ("1.png: is empty", "label id 77", "9x9 pixels", "4.png: cannot be decoded", "val: no such folder"):
        assert part in message


def test_missing_labels_do_not_hide_broken_images(town: Path) -> None:
    (town / "source/labels/1.png").unlink()
    (town / "source/images/2.png").write_bytes(b"")
    message = problems(a_recipe(town))
    assert "1 of 9 images have no label" in message and "2.png: is empty" in message


def test_many_problems_are_counted_and_no_set_hides_another(town: Path) -> None:
    make_set(town / "source", 40)
    for i in range(40):
        (town / f"source/images/{i}.png").write_bytes(b"")
    (town / "target/images/0.png").write_bytes(b"")
    message = problems(a_recipe(town))
    assert message.startswith("41 problems") and "30 more in source" in message and "target/images/0.png" in message
    assert len(message.splitlines()) <= 22


def test_sample_of_a_large_set_still_reads_all_headers(town: Path) -> None:
    broken = town / "source/images/1.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    assert [s.decoded for s in check(a_recipe(town), decoded=3).sets] == [3, 3], "1 is not among 0, 3, 6"
    save(town / "source/labels/1.png", np.zeros((9, 9), np.uint8))
    assert "9x9 pixels" in problems(a_recipe(town), decoded=3)


def test_fewer_images_than_a_batch(town: Path) -> None:
    for i in range(4, 9):
        (town / f"target/images/{i}.png").unlink()
    message = problems(a_recipe(town))
    assert "data.target: 4 images, fewer than selflabel.batch: 8; set selflabel.batch to 4 or less" in message
    assert "data.source" not in message and "source.batch" not in message


def test_padding_is_mentioned_where_it_is_most_of_the_crop(town: Path) -> None:
    assert not [w for w in check(a_recipe(town, crop=[96, 128])).warnings if "padding" in w]
    assert [w for w in check(a_recipe(town, crop=[97, 128])).warnings if "padding" in w]


def test_unknown_classes_and_missing_sets_are_told_together(town: Path) -> None:
    missing = town / "nowhere"
    message = problems(a_recipe(town, classes="camvid12", target={"path": str(missing)}))
    assert "did you mean camvid11?" in message and f"{missing}: no such folder" in message


def test_source_and_target_are_required() -> None:
    message = problems(recipe.parse({}))
    assert "data.source: no folder" in message and "data.target: no folder" in message


def test_whole_images_must_have_one_shape(town: Path) -> None:
    save(town / "target/images/wide.png", np.zeros((48, 96, 3), np.uint8))
    whole = recipe.parse({**recipe.to_dict(a_recipe(town)), "method": "official"})
    assert check(whole), "what the recipe says itself goes before the method"
    tree = recipe.to_dict(a_recipe(town))
    tree["selflabel"]["teacher_view"] = "whole"
    assert "different shapes (64x32, 64x48" in problems(recipe.parse(tree))
