"""Initialisation, evaluation and prediction: how much of the time the network itself is at work.

ResNet-101 at a width of 768 pixels, on files of 2048x1024. At the recipe's width of 2048 the network has seven times as
much to do, and all else as much as here: the share is higher.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from acclimate import recipe
from acclimate.data.datasets import open_labelled
from acclimate.data.softlabels import SoftLabels
from acclimate.evaluation import evaluate
from acclimate.labels import LabelSpace, label_space
from acclimate.networks import Segmenter, build
from acclimate.prediction import Model, predict_files
from acclimate.stages.initialise import label_target
from benchmarks.speed.measure import Row

COMMAND = "python -m benchmarks.speed passes"
GOAL = 0.9
SIZE = (1024, 2048)
FILES = 4


def rows() -> Iterator[Row]:
    """The rows of this part; beside them, as a table, the same of the laptop's network, which is much faster."""
    space = label_space("cityscapes19")
    deeplab, light = (recipe.Network(architecture, weights="none") for architecture in ("deeplab", "light"))
    with tempfile.TemporaryDirectory() as folder:
        data = write_files(Path(folder) / "data")
        network = calibrated(deeplab, space)
        for name, task in passes(network, space, 768, data, Path(folder) / "deeplab"):
            seconds, inside = timed(network, task)
            if inside / seconds < GOAL:
                print(profile(task))
            yield Row(f"{name}: share of time in ResNet-101", GOAL, inside / seconds, "higher", 1.0, COMMAND)
        print("\n| laptop's network at width 480 | s per image | in the network | beside it, s |\n|---|---:|---:|---:|")
        network = calibrated(light, space)
        for name, task in passes(network, space, 480, data, Path(folder) / "light"):
            seconds, inside = timed(network, task)
            print(f"| {name} | {seconds / FILES:.2f} | {inside / seconds:.0%} | {(seconds - inside) / FILES:.2f} |")
        print(flush=True)


def write_files(folder: Path) -> Path:
    """Images as hard to decode as photos, and their labels."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 128, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(int)
        image = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        label = Image.fromarray(rng.integers(0, 19, (16, 32), dtype=np.uint8)).resize(
            SIZE[::-1], Image.Resampling.NEAREST
        )
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        label.save(folder / "labels" / f"{number}.png")
    return folder


def calibrated(choices: recipe.Network, space: LabelSpace) -> Segmenter:
    """A random network whose normalisation fits it: activations that fade to nothing would take another time."""
    torch.manual_seed(0)
    network = build(choices, len(space))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 128, 256))
    return network.eval()


def passes(
    network: Segmenter, space: LabelSpace, width: int, data: Path, out: Path
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The three passes over all files, by name."""
    images = open_labelled(recipe.Folder(str(data)), "val", space)
    names = tuple(sample.name for sample in images.samples)
    store = SoftLabels(out / "soft", names, space.classes, network.grid, width)
    model = Model(network, space, width)
    yield "initialisation", partial(label_target, network, images, store)
    yield "evaluation", partial(evaluate, network, images, space, width)
    yield "prediction with overlays", partial(predict_files, model, data / "images", out / "masks", True, True)


def timed(network: Segmenter, task: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a task, and those of them within the network's forward passes."""
    inside, begun = 0.0, 0.0

    def enter(*_: Any) -> None:
        nonlocal begun
        begun = time.perf_counter()

    def leave(*_: Any) -> None:
        nonlocal inside
        inside += time.perf_counter() - begun

    hooks = network.register_forward_pre_hook(enter), network.register_forward_hook(leave)
    started = time.perf_counter()
    task()
    seconds = time.perf_counter() - started
    for hook in hooks:
        hook.remove()
    return seconds, inside


def profile(task: Callable[[], Any]) -> str:
    """Where the main thread's time goes."""
    profiler = cProfile.Profile()
    profiler.runcall(task)
    lines = []
    for (file, line, name), (_, calls, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        lines.append((own, f"{own:8.2f} s {calls:6} x {Path(file).name}:{line} {name}"))
    return "\n".join(text for _, text in sorted(lines, reverse=True)[:15])
