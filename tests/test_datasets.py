"""Layouts exactly as the data sets are downloaded, and a clear word about every file that is not as it should be."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature import png16
from PIL import Image

from acclimate import labels, recipe
from acclimate.data.datasets import (
    LabelledSet,
    default_ids,
    open_images,
    open_labelled,
    open_space,
    read_image,
)
from acclimate.data.decode import read_label, read_picture, read_size
from acclimate.data.geometry import Geometry
from acclimate.errors import UserError
from acclimate.labels import IGNORE, label_space
from acclimate.recipe import Data, Folder

SHARED = Path("/work/shared/data")
CITY, CAMVID = label_space("cityscapes19"), label_space("camvid11")
HW = (6, 8)


def picture(path: Path, hw: tuple[int, int] = HW, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*hw, 3), value, np.uint8)).save(path)
    return path


def ids(path: Path, value: int = 7, hw: tuple[int, int] = HW, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full(hw, value, np.uint8))
    if palette:  # as in GTA5: a palette image whose indices are the ids
        image.putpalette(bytes((i * 37) % 256 for i in range(768)))
    image.save(path)
    return path


def train_ids(labelled: LabelledSet) -> list[int]:
    """The one value of each label."""
    assert all(labelled.label(i).shape == labelled.size(i) for i in range(len(labelled)))
    return [int(np.unique(labelled.label(i)).item()) for i in range(len(labelled))]


# --- layouts


def gta5(root: Path) -> Folder:
    for i, value in enumerate((7, 34, 26)):
        picture(root / f"images/0000{i}.png")
        ids(root / f"labels/0000{i}.png", value, palette=True)
    (root / "split.mat").write_bytes(b"not read")
    return Folder(str(root), "gta5")


def synthia(root: Path) -> Folder:
    for i, value in enumerate((3, 22, 8)):
        picture(root / f"RGB/000000{i}.png")
        instance = np.arange(HW[0] * HW[1]).reshape(HW) * 999
        class_and_instance = np.stack([np.full(HW, value), instance % 65536], axis=-1)
        png16(root / f"GT/LABELS/000000{i}.png", class_and_instance, colour_type=4)
    return Folder(str(root), "synthia")


def cityscapes(root: Path) -> Folder:
    for i, (city, value) in enumerate((("aachen", 7), ("aachen", 5), ("ulm", 26))):
        frame = f"{city}/{city}_00000{i}_000019"
        picture(root / f"leftImg8bit/train/{frame}_leftImg8bit.png")
        ids(root / f"gtFine/train/{frame}_gtFine_labelIds.png", value)
        ids(root / f"gtFine/train/{frame}_gtFine_instanceIds.png", 99)
        picture(root / f"gtFine/train/{frame}_gtFine_color.png")
    return Folder(str(root), "cityscapes")


def camvid(root: Path) -> Folder:
    for i, value in enumerate((3, 11, 8)):
        picture(root / f"train/0016E5_{i}.png")
        ids(root / f"trainannot/0016E5_{i}.png", value)
    return Folder(str(root), "camvid")


def camvid_original(root: Path) -> Folder:
    for i, colour in enumerate(((128, 64, 128), (0, 0, 0), (64, 128, 192))):
        picture(root / f"701_StillsRaw_full/0016E5_{i}.png")
        label = root / f"LabeledApproved_full/0016E5_{i}_L.png"
        label.parent.mkdir(exist_ok=True)
        Image.new("RGB", HW[::-1], colour).save(label)
    return Folder(str(root), "camvid")


def plain(root: Path) -> Folder:
    for i, value in enumerate((0, IGNORE, 13)):
        picture(root / f"images/a{i}.jpg")
        ids(root / f"labels/a{i}.png", value)
    return Folder(str(root))


LAYOUTS = {
    gta5: (CITY, ["00000", "00001", "00002"]),
    synthia: (CITY, ["0000000", "0000001", "0000002"]),
    cityscapes: (CITY, ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "ulm/ulm_000002_000019"]),
    camvid: (CAMVID, ["0016E5_0", "0016E5_1", "0016E5_2"]),
    camvid_original: (CAMVID, ["0016E5_0", "0016E5_1", "0016E5_2"]),
    plain: (CITY, ["a0", "a1", "a2"]),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_layouts_as_downloaded(tmp_path: Path, layout: Callable[[Path], Folder]) -> None:
    space, names = LAYOUTS[layout]
    labelled = open_labelled(layout(tmp_path), "source", space)
    assert [s.name for s in labelled.samples] == names
    assert train_ids(labelled) == [space.classes.index("road"), IGNORE, space.classes.index("car")]
    assert labelled.image(0).shape == (*HW, 3) and labelled.image(0).dtype == np.uint8


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_target_needs_no_labels_and_cannot_reach_them(tmp_path: Path, layout: Callable[[Path], Folder]) -> None:
    folder = layout(tmp_path)
    with_labels = open_images(folder, "target")
    for label in ("labels", "GT", "gtFine", "trainannot", "LabeledApproved_full"):
        if (tmp_path / label).exists():
            (tmp_path / label).rename(tmp_path / f".{label}-gone")
    without = open_images(folder, "target")
    assert without == with_labels and len(without) == 3
    assert not hasattr(without, "label") and all(s.label is None for s in without.samples)
    with pytest.raises(UserError, match=r"no label|no labels|no such folder"):
        open_labelled(folder, "ceiling", LAYOUTS[layout][0])


def test_roles_choose_the_usual_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / f"leftImg8bit/{split}/ulm/{split}_leftImg8bit.png")
    folder = Folder(str(tmp_path), "cityscapes")
    names = {role: open_images(folder, role).samples[0].name for role in ("source", "target", "val", "ceiling")}
    assert names == {"source": "ulm/train", "target": "ulm/train", "val": "ulm/val", "ceiling": "ulm/train"}
    assert open_images(Folder(str(tmp_path), "cityscapes", split="test"), "val").samples[0].name == "ulm/test"
    with pytest.raises(UserError, match=r"train_extra: no such folder.*has test, train, val"):
        open_images(Folder(str(tmp_path), "cityscapes", split="train_extra"), "target")


def test_cityscapes_train_id_files_are_taken_where_asked_for(tmp_path: Path) -> None:
    frame = "ulm/ulm_000000_000019"
    picture(tmp_path / f"leftImg8bit/val/{frame}_leftImg8bit.png")
    ids(tmp_path / f"gtFine/val/{frame}_gtFine_labelTrainIds.png", 13)
    labelled = open_labelled(Folder(str(tmp_path), "cityscapes", ids="cityscapes-train"), "val", CAMVID)
    assert train_ids(labelled) == [CAMVID.classes.index("car")]


@pytest.mark.parametrize("make", [synthia, plain])
def test_layouts_without_splits_say_so(tmp_path: Path, make: Callable[[Path], Folder]) -> None:
    folder = make(tmp_path)
    with pytest.raises(UserError, match=r"data\.source\.split: .* has no splits, found 'val'"):
        open_images(Folder(folder.path, folder.layout, split="val"), "source")


# --- labels of plain folders


@pytest.mark.parametrize("labels_key", ["gt", "{parent}/{stem}_id.png", "masks/{name}_id", "ABSOLUTE"])
def test_labels_of_a_plain_folder(tmp_path: Path, labels_key: str) -> None:
    root = tmp_path / "town"
    names = ["east/img2", "east/img10", "west/img1"]
    where = {"gt": "gt/{}.png", "{parent}/{stem}_id.png": "{}_id.png", "masks/{name}_id": "masks/{}_id.png"}
    for i, name in enumerate(names):
        picture(root / f"{name}.JPG")
        ids(root / where.get(labels_key, "../apart/{}.png").format(name), i)
    labels_key = labels_key.replace("ABSOLUTE", str(tmp_path / "apart"))
    labelled = open_labelled(Folder(str(root), labels=labels_key), "source", CITY)
    assert [s.name for s in labelled.samples] == names, "natural order; labels among the images are no images"
    assert train_ids(labelled) == [0, 1, 2]
    assert [s.name for s in open_images(Folder(str(root), labels=labels_key), "target").samples] == names


def test_labels_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "photos/a.png")
    ids(tmp_path / "gt/a.png", 2)
    monkeypatch.chdir(tmp_path)
    assert train_ids(open_labelled(Folder("photos", labels="gt"), "val", CITY)) == [2]


def test_own_label_map_is_the_meaning_of_plain_folders(tmp_path: Path) -> None:
    (tmp_path / "town.yaml").write_text("'#ff0000': tram\n'#00ff00': lake\nother: ignore\n")
    data = Data(classes=str(tmp_path / "town.yaml"))
    picture(tmp_path / "images/a.png")
    Image.new("RGB", HW[::-1], (0, 255, 0)).save(picture(tmp_path / "labels/a.png"))
    space = open_space(data)
    assert space.classes == ("tram", "lake")
    folder = Folder(str(tmp_path))
    assert train_ids(open_labelled(folder, "source", space, default_ids(data))) == [1]
    assert default_ids(Data()) == ""
    Image.new("RGB", HW[::-1], (0, 255, 0)).quantize(4).save(tmp_path / "labels/a.png")
    assert train_ids(open_labelled(folder, "source", space, default_ids(data))) == [1], "palette → its colours"


def test_limit_takes_evenly_spaced_images(tmp_path: Path) -> None:
    for i in range(10):
        picture(tmp_path / f"{i}.png")
    names = [s.name for s in open_images(Folder(str(tmp_path), limit=4), "target").samples]
    assert names == ["0", "2", "5", "7"]
    assert len(open_images(Folder(str(tmp_path), limit=40), "target")) == 10


def test_search_passes_over_hidden_files_and_link_loops(tmp_path: Path) -> None:
    picture(tmp_path / "real/a.png")
    picture(tmp_path / "real/.b.png")
    picture(tmp_path / ".thumbs/c.png")
    (tmp_path / "real/notes.txt").write_text("no image")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    assert [s.name for s in open_images(Folder(str(tmp_path / "set")), "target").samples] == ["linked/a"]


# --- decoding


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bit_labels_are_exact(tmp_path: Path, colour_type: int, channels: int) -> None:
    values = np.random.default_rng(colour_type).integers(0, 65536, (11, 7, channels))
    path = png16(tmp_path / "a.png", values, colour_type)
    assert np.array_equal(read_label(path, by_colour=False), values[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_labels_packed_below_8_bits_keep_their_ids(tmp_path: Path, bits: int, mode: str) -> None:
    values = np.arange(64).reshape(8, 8).astype(np.uint8) & (2**bits - 1)
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette(bytes(range(256)) * 3)
        image.save(tmp_path / "a.png", bits=bits)
    else:  # Pillow writes no packed grey: take the packed rows of the palette file, call them grey
        packed = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(8, -1), axis=-1)
        rows = b"".join(b"\0" + row.tobytes() for row in packed)
        body = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in body]
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert np.array_equal(read_label(tmp_path / "a.png", by_colour=False), values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_images_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.tile(np.array([0, 255], np.uint8), (6, 4))
    if mode.startswith("I"):
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif")
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, np.repeat(grey[..., None], 3, axis=-1))


def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise
    pixels = np.zeros((4, 9, 3), np.uint8)
    pixels[:, 0] = 255  # left edge, to become the upper one
    for name in ("a.png", "a.tif", "a.webp"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
        upright = read_image(tmp_path / name)
        assert upright.shape[:2] == read_size(tmp_path / name) == (9, 4)
        assert (upright[0] == 255).all() and not upright[1:].any()


# --- parts of files


def noise(mode: str, hw: tuple[int, int] = (200, 120)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (*hw, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0] * np.uint16(255))
    image = Image.fromarray(values[..., :3]).convert(mode)
    image.info["transparency"] = 3 if mode == "P" else None
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_the_top_of_a_file_is_that_of_the_whole(tmp_path: Path, mode: str) -> None:
    noise(mode).save(tmp_path / "a.png")
    whole_HWC, raw_HW = read_image(tmp_path / "a.png"), read_label(tmp_path / "a.png", by_colour=False)
    for rows in (0, 1, 77, 199, 200, 500):
        top_HWC = np.asarray(read_picture(tmp_path / "a.png", rows))
        assert top_HWC.shape == whole_HWC.shape and np.array_equal(top_HWC[:rows], whole_HWC[:rows])
        top_HW = read_label(tmp_path / "a.png", False, rows)
        assert top_HW.shape == raw_HW.shape and np.array_equal(top_HW[:rows], raw_HW[:rows])
    assert not np.array_equal(np.asarray(read_picture(tmp_path / "a.png", 77)), whole_HWC), "not decoded further"


def test_turned_and_other_files_are_read_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    noise("RGB").save(tmp_path / "turned.png", exif=exif)
    noise("RGB").save(tmp_path / "a.jpg")
    noise("RGB").save(tmp_path / "a.tif")
    interlaced(tmp_path / "interlaced.png")
    for file in tmp_path.iterdir():
        assert np.array_equal(np.asarray(read_picture(file, 3)), read_image(file)), file


def interlaced(path: Path) -> Path:
    """8 x 8 grey pixels in the seven passes of a PNG."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    grey_HW = np.arange(64, dtype=np.uint8).reshape(8, 8)
    lines = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in steps for row in grey_HW[y::dy, x::dx])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(read_image(path)[..., 0], grey_HW)
    return path


@pytest.mark.parametrize("lost", [1, 300])
def test_a_file_that_was_cut_off_is_broken_for_its_top_too(tmp_path: Path, lost: int) -> None:
    file = tmp_path / "a.png"
    noise("L", (20, 30)).save(file)
    file.write_bytes(file.read_bytes()[:-lost])
    for read in (read_picture, lambda path, rows: read_label(path, False, rows)):
        if lost == 1:  # of the last checksum, which Pillow does without
            assert np.array_equal(np.asarray(read(file, 5)), np.asarray(read(file, None)))
        else:
            with pytest.raises(UserError, match=r"a\.png"):
                read(file, 5)


@pytest.fixture
def noisy(tmp_path: Path) -> LabelledSet:
    """An image and a label without two rows alike; id 99, which is no class, in the lower right corner alone."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    noise("RGB").save(tmp_path / "images/a.png")
    raw_HW = np.random.default_rng(1).integers(0, 34, (200, 120), dtype=np.uint8)
    raw_HW[-1, -1] = 99
    Image.fromarray(raw_HW).save(tmp_path / "labels/a.png")
    return open_labelled(Folder(str(tmp_path), ids="cityscapes"), "source", CITY)


def test_views_are_those_of_the_whole_files(noisy: LabelledSet) -> None:
    hw = (200, 120)
    clean = noisy.raw(0)
    clean[-1, -1] = 0
    label_HW = noisy.table.encode(clean, Path("clean"))
    places = [((260, 150), (3, 20)), ((260, 150), (-30, -9)), ((90, 55), (0, 0)), ((99, 60), (300, 0))]
    views = [Geometry.crop(hw, scaled, at, (64, 48), flip) for scaled, at in places for flip in (False, True)]
    pictures = noisy.views(0, *views)
    for view, picture_HWC in zip(views, pictures, strict=True):
        assert np.array_equal(picture_HWC, view.image(noisy.image(0)))
        assert np.array_equal(noisy.views(0, view)[0], picture_HWC)
        assert np.array_equal(noisy.label_view(0, view), view.label(label_HW))


def test_a_view_of_an_unknown_value_is_refused(noisy: LabelledSet) -> None:
    with pytest.raises(UserError, match="99"):
        noisy.label_view(0, Geometry.crop((200, 120), (200, 120), (150, 80), (50, 40), flip=False))


# --- what is wrong, in words


def no_folder(root: Path) -> Folder:
    return Folder(str(root / "nowhere"))


def a_file(root: Path) -> Folder:
    (root / "data.zip").write_bytes(b"")
    return Folder(str(root / "data.zip"))


def wrong_level(root: Path) -> Folder:
    picture(root / "RAND_CITYSCAPES/RGB/1.png")
    return Folder(str(root), "synthia")


def no_images(root: Path) -> Folder:
    (root / "readme.txt").write_text("")
    return Folder(str(root))


def doubles(root: Path) -> Folder:
    picture(root / "a.jpg")
    picture(root / "a.png")
    return Folder(str(root))


def no_labels(root: Path) -> Folder:
    picture(root / "a.jpg")
    return Folder(str(root))


def one_missing(root: Path) -> Folder:
    plain(root)
    (root / "labels/a1.png").unlink()
    return Folder(str(root))


def no_label_folder(root: Path) -> Folder:
    picture(root / "a.jpg")
    return Folder(str(root), labels="gt")


def bad_template(root: Path) -> Folder:
    picture(root / "a.jpg")
    return Folder(str(root), labels="gt/{stam}.png")


def jpeg_labels(root: Path) -> Folder:
    picture(root / "a.jpg")
    return Folder(str(root), labels="gt/{name}.jpg")


def unknown_scheme(root: Path) -> Folder:
    plain(root)
    return Folder(str(root), ids="cityscape")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda root: Folder(), ("data.source.path",)),
        (no_folder, ("nowhere: no such folder", "data.source.path")),
        (a_file, ("data.zip: is a file", "unpack")),
        (wrong_level, ("RGB: no such folder", "has RAND_CITYSCAPES")),
        (no_images, ("no images", ".jpeg")),
        (doubles, ("a.jpg and ", "a.png: two images of the same name", "rename")),
        (no_labels, ("no labels known", "data.source.labels")),
        (one_missing, ("1 of 3 images have no label", "a1.jpg", "looked for", "labels/a1.png", "data.source.labels")),
        (no_label_folder, ("data.source.labels: no such folder", "gt")),
        (bad_template, ("{stam} unknown", "{stem}")),
        (jpeg_labels, ("lossy", "PNG")),
        (unknown_scheme, ("did you mean cityscapes?", "label map (*.yaml)")),
    ],
)  # fmt: skip
def test_sets_that_cannot_be_opened(tmp_path: Path, make: Callable[[Path], Folder], parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        open_labelled(make(tmp_path), "source", CITY)
    for part in parts:
        assert part in str(caught.value)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def text_instead(path: Path) -> None:
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (truncate, "cannot be decoded"),
        (text_instead, "is not an image"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (Path.unlink, "no such file"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_broken_images_are_named(tmp_path: Path, spoil: Callable[[Path], None], part: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(path)
    spoil(path)
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and part in str(caught.value)


def float_label(path: Path) -> None:
    path.unlink()
    Image.fromarray(np.ones(HW, np.float32)).save(path.with_suffix(".tif"))


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda p: ids(p, 77), ("label id 77 not in scheme `train`", "other: ignore")),
        (lambda p: picture(p), ("holds colours", "lists single ids")),
        (lambda p: ids(p, 0, (5, 8)), ("8x5 pixels", "8x6", "a0.jpg", "nearest")),
        (lambda p: p.write_bytes(b""), ("is empty",)),
        (float_label, ("whole numbers",)),
    ],
)  # fmt: skip
def test_broken_labels_are_named(tmp_path: Path, spoil: Callable[[Path], None], parts: tuple[str, ...]) -> None:
    folder = plain(tmp_path)
    spoil(tmp_path / "labels/a0.png")
    labelled = open_labelled(folder, "source", CITY)
    with pytest.raises(UserError) as caught:
        labelled.label(0)
    assert str(tmp_path / "labels/a0") in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_views_of_labels_of_another_size_are_those_of_the_whole(tmp_path: Path) -> None:
    folder = gta5(tmp_path)
    raw_HW = np.random.default_rng(0).integers(0, 34, (12, 16), dtype=np.uint8)
    Image.fromarray(raw_HW).save(tmp_path / "labels/00001.png")
    labelled, view = open_labelled(folder, "source", CITY), Geometry.crop(HW, HW, (1, 2), (3, 4), flip=True)
    assert np.array_equal(labelled.label_view(1, view), view.label(labelled.label(1)))
    with pytest.raises(UserError, match="bring both to one size"):
        dataclasses.replace(labelled, resize=False).label_view(1, view)


def test_gta5_labels_of_another_size_are_brought_to_the_images(tmp_path: Path) -> None:
    folder = gta5(tmp_path)
    ids(tmp_path / "labels/00000.png", 26, (12, 16))
    labelled = open_labelled(folder, "source", CITY)
    assert labelled.label(0).shape == HW and (labelled.label(0) == CITY.classes.index("car")).all()


# --- the shared benchmark


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not on this machine")
def test_shared_benchmark() -> None:
    source = open_labelled(Folder(str(SHARED / "citysim"), ids="cityscapes", limit=5), "source", CAMVID)
    folder = Folder(str(SHARED / "camvid"), "camvid")
    val = open_labelled(folder, "val", CAMVID)
    assert len(val) == 101 and len(open_images(folder, "target")) == 367
    for labelled in (source, val):
        label = labelled.label(3)
        assert label.shape == labelled.size(3) == labelled.image(3).shape[:2] == (360, 480)
        assert set(np.unique(label)) <= {*range(11), IGNORE} and (label == CAMVID.classes.index("road")).mean() > 0.1


def test_schemes_named_in_the_recipe_exist() -> None:
    documented = ("cityscapes", "gta5", "synthia", "camvid", "train")
    assert set(documented) <= set(labels.schemes())
    assert recipe.Folder().ids == ""
