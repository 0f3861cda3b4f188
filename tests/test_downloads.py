"""Public data sets as downloaded: found, counted, understood, doubted where they don't mean what the recipe says."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import miniature
import numpy as np
import pytest
from PIL import Image

from acclimate import cli, recipe
from acclimate.check import Findings, check
from acclimate.data.datasets import open_images, open_labelled
from acclimate.data.evidence import misreading
from acclimate.data.releases import shortfalls
from acclimate.errors import UserError
from acclimate.labels import IGNORE, label_space, label_table, schemes
from acclimate.recipe import Folder

CITY = label_space("cityscapes19")
LAYOUTS: dict[str, Callable[..., Path]] = {
    "gta5": miniature.gta5,
    "synthia": miniature.synthia,
    "cityscapes": miniature.cityscapes,
}
NOT_IN_SYNTHIA = {"terrain", "truck", "train"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three data sets; not to be changed."""
    root = tmp_path_factory.mktemp("downloads")
    for layout, make in LAYOUTS.items():
        make(root / layout)
    return root


def a_recipe(root: Path, source: str = "gta5", classes: str = "cityscapes19", **keys: Any) -> recipe.Recipe:
    """``keys`` are the recipe's, with ``__`` for a dot."""
    overrides = [
        f"data.source.path={root / source}", f"data.source.layout={source}", f"data.target.path={root / 'cityscapes'}",
        "data.target.layout=cityscapes", f"data.classes={classes}", "data.width=128", "data.crop=[64, 96]",
        *(f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill", "ceiling")),
        *(f"{key.replace('__', '.')}={value}" for key, value in keys.items()),
    ]  # fmt: skip
    return recipe.load("laptop", overrides)


@pytest.fixture(autouse=True)
def small_sets_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what releases and labels are told, not that a handful of images is few."""
    monkeypatch.setattr("acclimate.mistakes.doubts", lambda *_: ())
    monkeypatch.setattr("acclimate.mistakes.overlaps", lambda *_: ())


def refusal(of: recipe.Recipe) -> str:
    with pytest.raises(UserError) as caught:
        check(of)
    return str(caught.value)


def warned(found: Findings) -> str:
    return "\n".join(w for w in found.warnings if "comparable" not in w)


# --- labels as they lie


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pixel_becomes_the_class_it_is(whole: Path, layout: str) -> None:
    labelled = open_labelled(Folder(str(whole / layout), layout), "source", CITY)
    gain = {"gta5": 0.8, "synthia": 1.1, "cityscapes": 1}[layout]
    mixed = {"vegetation", "car", "bus", *NOT_IN_SYNTHIA} if layout == "synthia" else set()
    assert len(labelled) == 6
    seen = set()
    for i in range(len(labelled)):
        label_HW, image_HWC = labelled.label(i), labelled.image(i)
        assert label_HW.shape == image_HWC.shape[:2]
        seen |= set(np.unique(label_HW).tolist())
        for k, name in enumerate(CITY.classes):
            if name not in mixed and (label_HW == k).any():
                median = np.median(image_HWC[label_HW == k], axis=0)
                shown = (miniature.COLOURS[k] * gain + 20).clip(0, 255)
                assert np.abs(median - shown).max() < 12, (i, name)
    missing = NOT_IN_SYNTHIA if layout == "synthia" else set()
    assert {CITY.classes[k] for k in seen - {IGNORE}} == set(CITY.classes) - missing and IGNORE in seen


def test_gta5_has_a_label_of_another_size_and_palettes(whole: Path) -> None:
    with Image.open(whole / "gta5/labels/00002.png") as label, Image.open(whole / "gta5/images/00002.png") as image:
        assert label.mode == "P" and label.size != image.size and 34 in np.asarray(label)


@pytest.mark.parametrize(("split", "names"), [("train", ["00001", "00004"]), ("val", ["00002", "00005"])])
def test_gta5_splits(tmp_path: Path, split: str, names: list[str]) -> None:
    pytest.importorskip("scipy")
    folder = Folder(str(miniature.gta5(tmp_path, split=True)), "gta5", split=split)
    assert [s.name for s in open_labelled(folder, "source", CITY).samples] == names
    assert len(open_images(replace(folder, split=""), "source")) == 6
    for number in names:
        (tmp_path / f"images/{number}.png").unlink()
    with pytest.raises(UserError, match=rf"no images that split.mat lists for {split}"):
        open_images(folder, "source")


def test_gta5_splits_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(miniature.gta5(tmp_path)), "gta5", split="train")
    with pytest.raises(UserError, match=r"has the splits train, val, test, found 'training'"):
        open_images(replace(folder, split="training"), "source")
    with pytest.raises(
        UserError, match=r"split\.mat: no such file.*read_mapping\.zip.*leave data\.source\.split empty"
    ):
        open_images(folder, "source")
    (tmp_path / "split.mat").write_bytes(b"not from MATLAB")
    with pytest.raises(UserError, match=r"split\.mat: holds no trainIds"):
        open_images(folder, "source")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"needs SciPy.*pip install 'acclimate\[gta5\]'"):
        open_images(folder, "source")


@pytest.mark.parametrize("inside", ["", "leftImg8bit", "leftImg8bit/train"])
def test_target_of_cityscapes_photos_alone(tmp_path: Path, inside: str) -> None:
    miniature.cityscapes(tmp_path, splits=("train",), labels=False)
    layout = "folder" if inside.endswith("train") else "cityscapes"
    assert len(open_images(Folder(str(tmp_path / inside), layout), "target")) == 6


@pytest.mark.parametrize("layout", ["synthia", "cityscapes"])
def test_labels_are_not_taken_for_photos(whole: Path, layout: str) -> None:
    with pytest.raises(UserError, match=rf"would be taken for images; set data\.target\.layout to {layout}"):
        open_images(Folder(str(whole / layout)), "target")


def test_a_city_without_labels_is_named(tmp_path: Path) -> None:
    root = miniature.cityscapes(tmp_path / "cityscapes")
    miniature.gta5(tmp_path / "gta5")
    shutil.rmtree(root / "gtFine/train/zurich")
    message = refusal(a_recipe(tmp_path, data__ceiling__path=root, data__ceiling__layout="cityscapes"))
    assert message.startswith("1 problem in")
    assert "data.ceiling: 3 of 6 images have no label, among them all of zurich: " in message


def test_the_other_kind_of_label_files_is_pointed_at(tmp_path: Path) -> None:
    root = miniature.cityscapes(tmp_path, splits=("val",), train_ids=True)
    by_id, by_train_id = Folder(str(root), "cityscapes"), Folder(str(root), "cityscapes", ids="train")
    for space in (CITY, label_space("cityscapes16"), label_space("camvid11")):
        first, second = (open_labelled(folder, "val", space) for folder in (by_id, by_train_id))
        assert all(np.array_equal(first.label(i), second.label(i)) for i in range(3)), "whatever the run's classes are"
    for file in root.rglob("*_labelTrainIds.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"but there is .*_gtFine_labelIds.png: .* leave data\.val\.ids empty"):
        open_labelled(by_train_id, "val", CITY)
    for file in list(root.rglob("*_labelIds.png")):
        file.rename(str(file).replace("labelIds", "labelTrainIds"))
    with pytest.raises(UserError, match=r"but there is .*labelTrainIds.png: .* set data\.val\.ids to cityscapes-train"):
        open_labelled(by_id, "val", CITY)


# --- counts


def test_complete_releases_lack_nothing() -> None:
    assert not list(shortfalls("gta5", "", [f"{i:05d}" for i in range(1, 24967)]))
    assert not list(shortfalls("gta5", "val", ["00003", "00009"], {"00003", "00009"}))
    assert not list(shortfalls("synthia", "", [f"{i:07d}" for i in range(9400)]))
    assert not list(shortfalls("folder", "", ["a"])) and not list(shortfalls("cityscapes", "demoVideo", ["a/b"]))


def test_what_a_release_lacks_is_named() -> None:
    names = [f"{i:05d}" for i in range(1, 24967) if i not in (17, 20, 21, 22)]
    (said,) = shortfalls("gta5", "", names)
    assert "24,962 of the 24,966 images of GTA5, missing: 00017, 00020–00022; scores will not be comparable" in said
    (said,) = shortfalls("synthia", "", [f"{i:07d}" for i in range(9401)])
    assert "1 images are not of SYNTHIA-RAND-CITYSCAPES, such as 0009400" in said


def test_cities_are_counted() -> None:
    counts = {"frankfurt": 267, "munster": 173, "aachen": 1, "atlantis": 1}
    names = [f"{city}/{i}" for city, count in counts.items() for i in range(count)]
    missing, short, foreign = shortfalls("cityscapes", "val", names)
    assert missing.startswith("2 of the 3 cities of Cityscapes val, missing: lindau (59 images); scores will not")
    assert short.startswith("173 of 174 images of munster; ")
    assert foreign.startswith("cities that are not of Cityscapes val: aachen (of train), atlantis; ")


def test_check_warns_of_what_is_missing_but_not_where_a_part_is_asked_for(whole: Path) -> None:
    warnings = check(a_recipe(whole)).warnings
    assert any("6 of the 24,966 images of GTA5, missing: 00007–24966" in w for w in warnings)
    assert any("2 of the 18 cities of Cityscapes train, missing: bochum (96 images)" in w for w in warnings)
    assert not check(a_recipe(whole, data__source__limit=5, data__target__limit=5)).warnings


def test_labels_of_other_splits_are_no_orphans(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    miniature.gta5(tmp_path / "gta5", split=True)
    miniature.cityscapes(tmp_path / "cityscapes")
    of = a_recipe(tmp_path, data__source__split="train")
    assert not warned(check(of))
    (tmp_path / "gta5/images/00006.png").unlink()
    assert "1 label files belong to no image" in warned(check(of)) and "00006.png" in warned(check(of))


# --- what labels mean


@pytest.mark.parametrize(("source", "classes"), [
    ("gta5", "cityscapes19"), ("gta5", "cityscapes16"), ("gta5", "camvid11"), ("synthia", "cityscapes16"),
    ("synthia", "cityscapes13"), ("cityscapes", "cityscapes19"), ("cityscapes", "streets"),
])  # fmt: skip
def test_correct_labels_are_not_doubted(whole: Path, source: str, classes: str) -> None:
    val = {"data__val__path": whole / "cityscapes", "data__val__layout": "cityscapes"}
    found = check(a_recipe(whole, source, classes, **val))
    assert not warned(found)
    assert all(share > 0 for share in found.sets[0].frequency_K or ())


def test_own_label_maps_are_never_doubted(tmp_path: Path, whole: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("7: road\n11: building\nother: ignore\n")
    found = check(a_recipe(whole, classes=own, data__source__ids=own))
    assert not warned(found)


def test_partial_sets_of_correct_labels_are_not_doubted() -> None:
    """Whichever two classes never occur, in every scheme and space: no other scheme is held to be better."""
    for name, scheme in itertools.product(("cityscapes19", "cityscapes16", "cityscapes13", "camvid11"), schemes()):
        space = label_space(name)
        try:
            table = label_table(space, scheme)
        except UserError:
            continue
        meanings = {**table.ids, **table.colours}
        for gone in itertools.combinations(range(len(space)), 2):
            values = {value for value, k in meanings.items() if k not in gone}
            assert misreading(values, space, table) is None, (name, scheme, gone)


def trained(file: Path) -> np.ndarray:
    """The train ids of a file of Cityscapes ids."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(miniature.CITYSCAPES_IDS)] = range(19)
    with Image.open(file) as image:
        return table[np.asarray(image)]


def test_train_ids_in_files_of_ids(tmp_path: Path) -> None:
    miniature.gta5(tmp_path / "gta5")
    miniature.cityscapes(tmp_path / "cityscapes")
    for file in [*tmp_path.rglob("labels/*.png"), *tmp_path.rglob("gtFine/val/*/*_labelIds.png")]:
        Image.fromarray(trained(file)).save(file)
    val = {"data__val__path": tmp_path / "cityscapes", "data__val__layout": "cityscapes"}
    message = refusal(a_recipe(tmp_path, **val))
    assert message.startswith("2 problems")
    assert "read as scheme `gta5`" in message and "hold 6 of 19 classes; read as `cityscapes-train`" in message
    assert "Set data.source.ids to cityscapes-train, or" in message
    labels = "gtFine/val/{name}_gtFine_labelIds.png"
    assert f"Set data.val.ids to cityscapes-train and data.val.labels to {labels}, or" in message
    mended = {
        "data__source__ids": "cityscapes-train",
        "data__val__ids": "cityscapes-train",
        "data__val__labels": labels,
    }
    assert not warned(check(a_recipe(tmp_path, **val, **mended)))


def as_folder(root: Path, images: str, labels: str) -> dict[str, object]:
    """The same files as a plain folder, whose labels are taken for train ids."""
    (root / "plain").mkdir()
    (root / images).rename(root / "plain/images")
    (root / labels).rename(root / "plain/labels")
    return {"data__source__path": root / "plain", "data__source__layout": "folder"}


@pytest.mark.parametrize(("source", "images", "labels", "scheme", "classes"), [
    ("gta5", "images", "labels", "gta5", 19), ("synthia", "RGB", "GT/LABELS", "synthia", 16),
])  # fmt: skip
def test_ids_read_as_train_ids(
    tmp_path: Path, source: str, images: str, labels: str, scheme: str, classes: int
) -> None:
    LAYOUTS[source](tmp_path / source)
    miniature.cityscapes(tmp_path / "cityscapes")
    (tmp_path / "gta5/labels/00002.png").unlink(missing_ok=True)  # of another size, which a plain folder may not have
    (tmp_path / "gta5/images/00002.png").unlink(missing_ok=True)
    keys = as_folder(tmp_path / source, images, labels)
    message = refusal(a_recipe(tmp_path, source, **keys))
    assert message.startswith("1 problem in"), "one word on the scheme in place of one on each file"
    assert "read as scheme `train`" in message and f"read as `{scheme}`, they hold {classes}" in message
    assert f"Set data.source.ids to {scheme}, or" in message
    assert "mean nothing" in message
    mended = warned(check(a_recipe(tmp_path, source, **keys, data__source__ids=scheme)))
    assert "read as" not in mended


def test_synthia_read_as_cityscapes(tmp_path: Path) -> None:
    miniature.synthia(tmp_path / "synthia")
    miniature.cityscapes(tmp_path / "cityscapes")
    message = refusal(a_recipe(tmp_path, "synthia", "cityscapes16", data__source__ids="cityscapes"))
    assert "hold 7 of 16 classes; read as `synthia`, they hold 16" in message


def test_coloured_labels(tmp_path: Path) -> None:
    miniature.gta5(tmp_path / "gta5")
    miniature.cityscapes(tmp_path / "cityscapes")
    for file in tmp_path.rglob("gta5/labels/*.png"):
        with Image.open(file) as image:
            colours = image.convert("RGB")
        colours.save(file)
    message = refusal(a_recipe(tmp_path))
    assert message.startswith("1 problem in") and "Set data.source.ids to cityscapes-colours, or" in message
    found = check(a_recipe(tmp_path, data__source__ids="cityscapes-colours"))
    assert not warned(found) and min(found.sets[0].frequency_K or (0,)) > 0


def test_cityscapes_colour_files_are_labels_too(whole: Path) -> None:
    of = Folder(str(whole / "cityscapes"), "cityscapes")
    coloured = replace(of, labels="gtFine/val/{name}_gtFine_color.png", ids="cityscapes-colours")
    ids, colours = (open_labelled(folder, "val", CITY) for folder in (of, coloured))
    inner = np.s_[:, 1:-1]
    assert all(np.array_equal(ids.label(i)[inner], colours.label(i)[inner]) for i in range(3))


@pytest.mark.parametrize(("images", "grave"), [(6, False), (20, True)])
def test_synthia_of_an_older_release(tmp_path: Path, images: int, grave: bool) -> None:
    miniature.synthia(tmp_path / "synthia", images, older=True)
    miniature.cityscapes(tmp_path / "cityscapes")
    of = a_recipe(tmp_path, "synthia", "cityscapes16")
    message = refusal(of) if grave else warned(check(of))
    assert "releases of 13 classes, in which 12 is lane marking" in message
    assert "download SYNTHIA-RAND-CITYSCAPES" in message


def test_one_stray_value_is_no_other_scheme(tmp_path: Path) -> None:
    miniature.gta5(tmp_path / "gta5")
    miniature.cityscapes(tmp_path / "cityscapes")
    for file in tmp_path.rglob("gta5/labels/*.png"):
        ids_HW = trained(file)
        ids_HW[0, 0] = 30 if file.stem == "00003" else ids_HW[0, 0]
        Image.fromarray(ids_HW).save(file)
    message = refusal(a_recipe(tmp_path, data__source__ids="cityscapes-train"))
    assert message.startswith("1 problem in") and "00003.png: label id 30 not in scheme" in message


def test_withheld_labels_of_the_test_split(tmp_path: Path) -> None:
    miniature.gta5(tmp_path / "gta5")
    root = miniature.cityscapes(tmp_path / "cityscapes", splits=("train", "test"))
    val = {"data__val__path": root, "data__val__layout": "cityscapes", "data__val__split": "test"}
    message = refusal(a_recipe(tmp_path, **val))
    assert "data.val: every pixel of all 3 labels is ignored" in message and "set data.val.split to val" in message


def test_the_command_tells_all_this(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--source", str(whole / "synthia"), "--source-layout", "synthia", "--classes", "cityscapes16"]
    words += ["--target", str(whole / "cityscapes"), "--target-layout", "cityscapes"]
    words += [f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill")]
    assert cli.main(["check", *words]) == 0
    said = " ".join("".join(capsys.readouterr()).split())  # warnings apart
    assert "of the 9,400 images of SYNTHIA-RAND-CITYSCAPES, missing: 0000006–0009399" in said
    assert "2 of the 18 cities" in said and "traffic light" in said and "No problems found." in said


# --- every stage learns from them


@pytest.mark.parametrize(("source", "target", "classes"), [
    ("gta5", "cityscapes", "cityscapes19"), ("synthia", "cityscapes", "cityscapes16"),
    ("cityscapes", "gta5", "cityscapes19"),
])  # fmt: skip
def test_one_step_of_every_stage(whole: Path, tmp_path: Path, source: str, target: str, classes: str) -> None:
    from acclimate.pipeline import adapt, stages_of

    roles = {f"data__{role}__{key}": value for role in ("val", "ceiling")
             for key, value in (("path", whole / "cityscapes"), ("layout", "cityscapes"))}  # fmt: skip
    small = {
        "data__crop": "[32, 48]", "data__workers": 0, "network__backbone": "test_resnet.r160_in1k",
        "network__weights": "none", "network__channels": 16, "selflabel__bank": 256, "distill__rounds": 1,
        "distill__student": "previous", "selection__average": "true",
        **{f"{stage}__iterations": 1 for stage in ("source", "warmup", "selflabel", "distill", "ceiling")},
    }  # fmt: skip
    aim = {"data__target__path": whole / target, "data__target__layout": target}
    of = a_recipe(whole, source, classes, **roles, **aim, **small)
    run = adapt(of, tmp_path / "run")
    stages = [stage.name for stage in stages_of(of)]
    assert stages == ["source", "warmup", "initialise", "selflabel", "distill-1", "average", "ceiling"]
    assert [row["name"] for row in run.results] == [name for name in stages if name != "initialise"]
    assert all(row["images"] == 3 and 0 <= row["mean_iou"] <= 1 for row in run.results)
