"""Small folders that lie as the public data sets do when downloaded: names, bit depths, palettes, odd sizes.

The facts stand here a second time, apart from `acclimate.label_tables`, so that tests compare two sources.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HW = (64, 128)
VOID = 255
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Raw id of each of the 19 train ids; GTA5's are the same."""
SYNTHIA_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 6, 1, 10, 17, 8, 8, 19, 19, 12, 11)
"""The same for SYNTHIA, in whose labels no pixel is terrain, truck or train: they are vegetation, car and bus here."""
COLOURS = np.array([
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
], np.uint8)  # fmt: skip
CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt",), "test": ("berlin",)}


def gta5(root: Path, images: int = 6, split: bool = False) -> Path:
    """``images/ labels/`` with palette PNGs; the label of the second image is larger than its image.

    ``split``: write ``split.mat`` too (needs SciPy), with every third image in train, val and test.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[list(CITYSCAPES_IDS)] = COLOURS
    palette[[4, 34]] = (20, 20, 20), (0, 0, 142)
    for number in range(1, images + 1):
        scene_HW = street(number)
        raw_HW = _raw(scene_HW, CITYSCAPES_IDS, void=4)
        raw_HW[32:34, 60:64] = 34  # a license plate
        label = Image.fromarray(raw_HW)
        label.putpalette(palette.tobytes())
        picture = Image.fromarray(photo(scene_HW, gain=0.8, seed=number))
        _save(root / f"images/{number:05d}.png", picture.resize((126, 60)) if number == 2 else picture)
        _save(root / f"labels/{number:05d}.png", label)
    if split:
        from scipy.io import savemat

        numbers = np.arange(1, images + 1, dtype=float)[:, None]  # MATLAB's numbers are floats, one a row
        savemat(root / "split.mat", {f"{name}Ids": numbers[i::3] for i, name in enumerate(("train", "val", "test"))})
    return root


def synthia(root: Path, images: int = 6, older: bool = False) -> Path:
    """``RGB/ GT/LABELS/ GT/COLOR/ Depth/``; labels are 16-bit RGB with the class in red and the instance in green.

    ``older``: ids as in the releases of 13 classes, in which 12 is lane marking.
    """
    for number in range(images):
        scene_HW = street(number)
        raw_HW = _raw(scene_HW, SYNTHIA_IDS, void=0).astype(np.uint16)
        raw_HW[55, ::2] = 12 if older else 22  # lane marking
        raw_HW[46:49, 2:8] = 0 if older else 14  # road work
        if older:
            raw_HW[np.isin(raw_HW, (17, 19, 21)) | ((raw_HW == 12) & (scene_HW == 17))] = 0
        instance_HW = np.where(np.isin(raw_HW, (8, 10, 17)), 1000 + scene_HW.astype(np.uint16), 0)
        name = f"{number:07d}.png"
        _save(root / "RGB" / name, Image.fromarray(photo(scene_HW, gain=1.1, seed=number)))
        png16(root / "GT/LABELS" / name, np.stack([raw_HW, instance_HW, 0 * raw_HW], axis=-1), colour_type=2)
        _save(root / "GT/COLOR" / name, Image.fromarray(_coloured(scene_HW)).quantize(32))
        png16(root / "Depth" / name, np.full((*HW, 3), 4711, np.uint16), colour_type=2)
    (root / "README.txt").write_text("SYNTHIA-RAND-CITYSCAPES\n")
    return root


def cityscapes(
    root: Path,
    splits: Sequence[str] = ("train", "val"),
    cities: Mapping[str, Sequence[str]] = CITIES,
    images: int = 3,
    train_ids: bool = False,
    labels: bool = True,
) -> Path:
    """``leftImg8bit/ gtFine/`` with all files of the packages, ``images`` of each city.

    ``train_ids``: write the ``_labelTrainIds`` that the official scripts make as well. ``labels``: False leaves
    ``gtFine`` out.
    """
    (root / "README").parent.mkdir(parents=True, exist_ok=True)
    (root / "README").write_text("The Cityscapes Dataset\n")
    for split in splits:
        for city in cities[split]:
            for number in range(images):
                frame = f"{split}/{city}/{city}_{number:06d}_000019"
                scene_HW = street(len(city) + number)
                pixels = photo(scene_HW, gain=1, seed=number)
                _save(root / f"leftImg8bit/{frame}_leftImg8bit.png", Image.fromarray(pixels))
                if labels:
                    _fine(root / "gtFine", frame, scene_HW, withheld=split == "test", train_ids=train_ids)
    return root


def _fine(root: Path, frame: str, scene_HW: np.ndarray, withheld: bool, train_ids: bool) -> None:
    """All label files of a frame; ``withheld``: as in the test split, where only the image's borders are labelled."""
    raw_HW = _raw(scene_HW, CITYSCAPES_IDS, void=1)  # the ego vehicle
    if withheld:
        raw_HW[:] = 0
    raw_HW[:, 0], raw_HW[:, -1] = 2, 3  # rectification border, out of roi
    rgba = np.dstack([_coloured(scene_HW), np.full(HW, 255, np.uint8)])
    instance_HW = np.where((raw_HW >= 24) & (raw_HW <= 33), raw_HW * np.uint16(1000), raw_HW).astype(np.uint16)
    polygon = {"label": "road", "polygon": [[0, 44], [127, 44], [127, 61], [0, 61]]}
    _save(root / f"{frame}_gtFine_labelIds.png", Image.fromarray(raw_HW))
    _save(root / f"{frame}_gtFine_color.png", Image.fromarray(rgba))
    _save(root / f"{frame}_gtFine_instanceIds.png", Image.fromarray(instance_HW))
    polygons = {"imgHeight": HW[0], "imgWidth": HW[1], "objects": [polygon]}
    (root / f"{frame}_gtFine_polygons.json").write_text(json.dumps(polygons))
    if train_ids:
        kept_HW = np.where(np.isin(raw_HW, CITYSCAPES_IDS), scene_HW, VOID).astype(np.uint8)
        _save(root / f"{frame}_gtFine_labelTrainIds.png", Image.fromarray(kept_HW))


def street(seed: int) -> np.ndarray:
    """uint8 HW: Cityscapes train ids; every class occurs, and a strip at the bottom is void."""
    rng = np.random.default_rng(seed)
    scene_HW = np.zeros(HW, np.uint8)  # road
    scene_HW[:14] = 10  # sky
    scene_HW[14:34] = 2  # building
    left = int(rng.integers(0, 80))
    scene_HW[12:28, left : left + 40] = 8  # vegetation
    scene_HW[34:46] = 1  # sidewalk
    scene_HW[42:46, left : left + 30] = 9  # terrain
    things = rng.permutation([3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18])
    for slot, thing in enumerate(things):
        top, x = int(rng.integers(27, 33)), 4 + 9 * slot
        scene_HW[top : top + 13, x : x + 7] = thing
    scene_HW[62:] = VOID
    return scene_HW


def photo(scene_HW: np.ndarray, gain: float, seed: int) -> np.ndarray:
    """uint8 HWC: the classes' colours as another camera would see them."""
    noise = np.random.default_rng(seed).normal(0, 12, (*HW, 3))
    return (_coloured(scene_HW) * gain + 20 + noise).clip(0, 255).astype(np.uint8)


def png16(path: Path, values: np.ndarray, colour_type: int) -> Path:
    """A 16-bit PNG with all five row filters in turn; Pillow cannot write those with several channels.

    Colour type 2: RGB; 4: grey and alpha; 6: RGBA.
    """
    height, width = values.shape[:2]
    rows = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(height, -1).astype(int)
    step = rows.shape[1] // width
    before = np.zeros(rows.shape[1], int)
    packed = b""
    for y, row in enumerate(rows):
        left, corner = (np.concatenate([np.zeros(step, int), r[:-step]]) for r in (row, before))
        nearest = np.abs(np.stack([before - corner, left - corner, left + before - 2 * corner]))
        paeth = np.choose(nearest.argmin(axis=0), [left, before, corner])
        guess = [np.zeros_like(row), left, before, (left + before) // 2, paeth][y % 5]
        packed += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        before = row

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    )
    return path


def _raw(scene_HW: np.ndarray, ids: Sequence[int], void: int) -> np.ndarray:
    return np.array([*ids, *[void] * (256 - len(ids))], np.uint8)[scene_HW]


def _coloured(scene_HW: np.ndarray) -> np.ndarray:
    return np.concatenate([COLOURS, np.zeros((256 - len(COLOURS), 3), np.uint8)])[scene_HW]


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
