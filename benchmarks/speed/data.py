"""Training items of GTA5 and of Cityscapes beside decoding their files, with one thread.

What counts as decoding is what no item can do without: Pillow opening the PNG files of an item and handing out their
pixels, RGB of the image and ids of the label, whole. The files are the built-in street scenes in the sizes of the two
data sets, with as much noise as makes them as large on disk, and labels with Cityscapes ids. Items are those of
stage 1 of recipe gta5-cityscapes: the source item takes on the colours of a target image; the target item has a weak
view, which the teacher sees too, a strong view, and soft labels of 19 classes.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from acclimate import recipe as recipes
from acclimate.data import colour, streets
from acclimate.data.datasets import open_images, open_labelled, open_space
from acclimate.data.geometry import Size, scaled_size
from acclimate.data.softlabels import SoftLabels
from acclimate.data.views import SourceViews, TargetViews
from acclimate.label_tables import ID_SCHEMES
from acclimate.labels import label_space
from acclimate.networks import build
from benchmarks.speed.measure import Row, in_turn

COMMAND = "python -m benchmarks.speed data"
IMAGES, KEYS, REPEATS = 2, 16, 5
GTA5, CITYSCAPES = (1052, 1914), (1024, 2048)
NOISE = 0.85
"""Grey levels: makes PNG files of about 2.3 MB, the mean of both data sets."""

PARTS = {
    "decoding": ("decode.py:read_picture", "decode.py:read_label"),
    "weak view": ("geometry.py:image",),
    "labels": ("geometry.py:label", "labels.py:encode"),
    "colour transfer": ("colour.py:transfer",),
    "strong view": ("augment.py:strong_view",),
    "soft labels": ("views.py:_soft",),
}
"""What an item consists of, and the functions that do it; none calls another."""


def rows() -> Iterator[Row]:
    """One after the other: the source item, the target item, the pair."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from _measured(_Items.prepare(Path(folder)))
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Items:
    """The sets of a recipe, opened as a run does it."""

    source: SourceViews
    target: TargetViews

    @classmethod
    def prepare(cls, folder: Path) -> _Items:
        _draw(folder)
        paths = [f"data.{role}.path={folder / role}" for role in ("source", "target")]
        recipe = recipes.load("gta5-cityscapes", paths)
        space = open_space(recipe.data)
        source = open_labelled(recipe.data.source, "source", space)
        target = open_images(recipe.data.target, "target")
        own, wanted = (colour.collect(images, folder / f"{i}.npz") for i, images in enumerate((source, target)))
        with torch.device("meta"):
            grid = build(recipes.Network("deeplab", weights="none"), len(space)).grid
        soft = SoftLabels(
            folder / "soft", tuple(s.name for s in target.samples), space.classes, grid, recipe.data.width
        )
        for index in range(len(target)):
            soft.write(index, _soft(grid.cells(scaled_size(CITYSCAPES, soft.width)), len(space), index))
        data, augment = recipe.data, recipe.augment
        return cls(
            SourceViews(source, data, augment, 0, "bench", (own, wanted)),
            TargetViews(target, data, augment, 0, "bench", soft, grid),
        )


def _measured(items: _Items) -> Iterator[Row]:
    keys = [(epoch, index) for epoch in range(KEYS // IMAGES) for index in range(IMAGES)]
    files = {
        name: [[path for path in (s.image, s.label) if path] for s in views.images.samples]
        for name, views in (("source", items.source), ("target", items.target))
    }
    tasks = {
        "source": partial(_all, items.source.batch, keys),
        "source files": partial(_decode, files["source"], keys),
        "target": partial(_all, items.target.batch, keys),
        "target files": partial(_decode, files["target"], keys),
    }
    for name in ("source", "target"):
        _print_profile(name, tasks[name])
    taken = dict(zip(tasks, in_turn(tasks.values(), REPEATS), strict=True))
    print({name: f"{1000 * median(seconds) / KEYS:.1f} ms" for name, seconds in taken.items()})
    for name in ("source", "target"):
        ratio = median(a / b for a, b in zip(taken[name], taken[f"{name} files"], strict=True))
        yield Row(f"{name} item / decoding its files", 1.6, ratio, "lower", 1.0, COMMAND)
    both = [(a + b) / (c + d) for a, c, b, d in zip(*taken.values(), strict=True)]
    yield Row("source and target item / decoding their files", 1.6, median(both), "lower", 1.0, COMMAND)


def _all(batch: Callable[[list], Any], keys: list[tuple[int, int]]) -> None:
    for key in keys:
        batch([key])


def _decode(files: list[list[Path]], keys: list[tuple[int, int]]) -> None:
    """Nothing but the pixels of the files: RGB, and the indices of palettes."""
    for _, index in keys:
        for path in files[index]:
            with Image.open(path) as image:
                np.asarray(image)


def _print_profile(name: str, task: Callable[[], None]) -> None:
    """What an item spends its time on, in ms; the profiler itself costs little, since few functions are called."""
    task()
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(task)
    stats = pstats.Stats(profiler)
    spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, _, seconds, _) in stats.stats.items():  # type: ignore[attr-defined]
        for part, functions in PARTS.items():
            spent[part] += seconds * (f"{Path(file).name}:{function}" in functions)
    spent["the rest"] = stats.total_tt - sum(spent.values())  # type: ignore[attr-defined]
    print(f"{name} item: " + ", ".join(f"{part} {1000 * s / KEYS:.1f} ms" for part, s in spent.items() if s))


def _draw(folder: Path) -> None:
    """The two data sets, in the folders that they come in."""
    ids = _ids_of_streets()
    for index in range(IMAGES):
        image_HWC, label_HW = _scene("source", index, GTA5)
        _save(Image.fromarray(image_HWC), folder / f"source/images/{index + 1:05d}.png")
        label = Image.fromarray(ids[label_HW])
        label.putpalette(label_space("cityscapes19").palette())
        _save(label, folder / f"source/labels/{index + 1:05d}.png")
        image_HWC, _ = _scene("target", index, CITYSCAPES)
        stem = f"aachen_{index:06d}_000019_leftImg8bit"
        _save(Image.fromarray(image_HWC), folder / f"target/leftImg8bit/train/aachen/{stem}.png")


def _scene(domain: streets.Domain, index: int, hw: Size) -> tuple[np.ndarray, np.ndarray]:
    """A street of half the size, twice enlarged, with the noise of a sensor."""
    half_HWC, half_HW = streets.render(domain, 0, index, (hw[0] // 2, hw[1] // 2))
    image_HWC = np.asarray(Image.fromarray(half_HWC).resize((hw[1], hw[0]), Image.Resampling.BICUBIC))
    label_HW = np.asarray(Image.fromarray(half_HW).resize((hw[1], hw[0]), Image.Resampling.NEAREST))
    noise_HWC = np.random.default_rng(index).normal(0, NOISE, image_HWC.shape)
    return np.clip(np.rint(image_HWC + noise_HWC), 0, 255).astype(np.uint8), label_HW


def _ids_of_streets() -> np.ndarray:
    """Class of the built-in scenes → an id that GTA5's files have."""
    known = {name: i for i, name in ID_SCHEMES["gta5"].items() if i >= 0}
    finer = {"pavement": "sidewalk", "sign": "traffic sign", "cyclist": "rider"}
    ids = np.zeros(256, np.uint8)
    for i, name in enumerate(label_space("streets").classes):
        ids[i] = known[finer.get(name, name)]
    return ids


def _soft(cells_hw: Size, classes: int, seed: int) -> np.ndarray:
    """Probabilities as a network gives them: sure in patches, less so between them."""
    coarse_Khw = np.random.default_rng(seed).normal(0, 8, (classes, cells_hw[0] // 8, cells_hw[1] // 8))
    planes = [Image.fromarray(p.astype(np.float32)) for p in coarse_Khw]
    score_Khw = np.array([p.resize(cells_hw[::-1], Image.Resampling.BICUBIC) for p in planes])
    return torch.from_numpy(score_Khw).softmax(0).numpy()


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
