"""What grows with the data, and what does not: steps, start-up, initialisation, and what processes exchange.

Many images are links to a few, so that files, names and records are as many as they would be.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from acclimate import recipe
from acclimate.check import check
from acclimate.data.datasets import ImageSet, Sample, open_images, open_labelled, open_space
from acclimate.data.geometry import scaled_size
from acclimate.data.seeding import Schedule
from acclimate.data.softlabels import SoftLabels
from acclimate.data.views import SourceViews, TargetViews, loader
from acclimate.stages.initialise import label_target
from acclimate.training import descend
from benchmarks.speed import scaling
from benchmarks.speed.measure import Row, in_turn, ratio

COMMAND = "python -m benchmarks.speed growth"
FEW, MANY = 100, 100_000
SIZE, BASE, BATCH = (270, 480), 8, 2
"""Of the files; how many differ; source images and as many target images in a step."""
BANKS = 1 << 10, 1 << 16


def rows() -> Iterator[Row]:
    """The rows of this part; what is exchanged is printed as tables for docs/scaling.md."""

    def row(name: str, goal: float, measured: float) -> Row:
        return Row(name, goal, measured, "lower", 1.0, COMMAND)

    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        many, few = (batches(world, count) for count in (MANY, FEW))
        task = scaling.make(bank=4096)
        name = f"stage 1 and its data, {MANY:,} target images to {FEW}"
        yield row(
            f"{name}: time of a step",
            1.05,
            ratio(lambda: descend(task, next(many)), lambda: descend(task, next(few)), 15),
        )
        peaks = [in_child(peak_of_steps, world, count) for count in (MANY, FEW)]
        yield row(f"{name}: memory that steps add", 1.05, peaks[0] / peaks[1])
        yield row("start-up, per image: 10,000 to 2,500", 1.1, per_image(partial(start_up, world), (10_000, 2_500)))
        yield row("initialisation, per image: 64 to 16", 1.1, per_image(partial(initialise, world), (64, 16)))
    found = [scaling.in_processes(2, partial(scaling.measure, bank=bank)) for bank in BANKS]
    given = [sum(one.given.values()) for one in found]
    yield row(f"bytes given in a step: bank of {BANKS[1]:,} to {BANKS[0]:,}", 1.001, given[1] / given[0])
    scaling.print_measured()
    scaling.print_model()


def make_world(folder: Path) -> Path:
    """A few images with labels, and one soft label of the light network's."""
    rng = np.random.default_rng(0)
    for kind in ("source/images", "source/labels", "target"):
        (folder / kind).mkdir(parents=True)
    for i in range(BASE):
        label = Image.fromarray(rng.integers(0, scaling.CLASSES, (9, 16), dtype=np.uint8)).resize(SIZE[::-1], 0)
        image = np.asarray(label)[..., None] * 9 + rng.integers(0, 60, (*SIZE, 3))
        for kind, picture in (("source/images", image), ("source/labels", label), ("target", image)):
            Image.fromarray(np.asarray(picture, np.uint8)).save(folder / kind / f"{i}.png")
    return folder


def links(folder: Path, count: int, files: list[Path]) -> Path:
    """A folder of that many links, dealt out among the files."""
    if not folder.exists():
        folder.mkdir()
        for i in range(count):
            (folder / f"{i:06d}{files[0].suffix}").symlink_to(files[i % len(files)])
    return folder


def choices(world: Path, target: Path | None = None) -> recipe.Recipe:
    """The laptop's recipe on these data."""
    folders = {"source.path": world / "source", "target.path": target or world / "target"}
    return recipe.load(
        "laptop", ["data.classes=cityscapes19", "device=cpu", *(f"data.{key}={path}" for key, path in folders.items())]
    )


def batches(world: Path, count: int) -> Iterator:
    """Endless batches of stage 1 from that many target images, prepared in this process and thread."""
    own, network = choices(world), scaling.make(bank=0).student
    images = ImageSet(tuple(Sample(f"{i:06d}", world / "target" / f"{i % BASE}.png") for i in range(count)))
    names, classes = tuple(sample.name for sample in images.samples), open_space(own.data).classes
    one = SoftLabels(world / "soft", names[:1], classes, network.grid, own.data.width)
    one.write(
        0,
        np.random.default_rng(0)
        .dirichlet(np.ones(len(classes)), network.grid.cells(scaled_size(SIZE, own.data.width)))
        .transpose(2, 0, 1),
    )
    soft = SoftLabels(
        links(world / f"soft-{count}", count, [one.path(0)]), names, classes, network.grid, own.data.width
    )
    source = open_labelled(own.data.source, "source", open_space(own.data))
    sources = SourceViews(source, own.data, own.augment, 0, "source")
    targets = TargetViews(images, own.data, own.augment, 0, "target", soft, network.grid)
    pair = (loader(views, Schedule(len(views.images), 0, "s"), BATCH, 0, 10**6, 0) for views in (sources, targets))
    return zip(*pair, strict=True)


def peak_of_steps(world: Path, count: int) -> int:
    """Bytes of resident memory that steps need beyond what is there before the first."""
    task, pairs = scaling.make(bank=4096), batches(world, count)
    before = _resident("VmRSS")
    for _ in range(4):
        descend(task, next(pairs))
    return _resident("VmHWM") - before


def start_up(world: Path, count: int) -> None:
    """All that looks at every image before the first step: the data check, and the list of images."""
    files = [world / "target" / f"{i}.png" for i in range(BASE)]
    own = choices(world, links(world / f"target-{count}", count, files))
    check(own, decoded=BASE)
    images = open_images(own.data.target, "target")
    store = SoftLabels(
        world / f"soft-of-{count}",
        tuple(s.name for s in images.samples),
        (),
        scaling.make(0).student.grid,
        own.data.width,
    )
    store.finish()
    SoftLabels.open(store.folder, store.names)
    Schedule(len(images), 0, "target")(0)


def initialise(world: Path, count: int) -> None:
    """The pass over all target images."""
    network = scaling.make(bank=0).student.eval()
    images = ImageSet(tuple(Sample(f"{i}", world / "target" / f"{i % BASE}.png") for i in range(count)))
    names = tuple(sample.name for sample in images.samples)
    classes = open_space(choices(world).data).classes
    label_target(network, images, SoftLabels(world / f"pass-{count}", names, classes, network.grid, 256))


def per_image(task: Callable[[int], None], counts: tuple[int, int]) -> float:
    """How many times longer an image takes among many than among few: the median over pairs."""
    many, few = counts
    seconds = in_turn([partial(task, many), partial(task, few)], 3)
    return statistics.median(a / many / (b / few) for a, b in zip(*seconds, strict=True))


def in_child(task: Callable[..., int], *args: object) -> int:
    """What a task returns in a process of its own, so that its memory starts from nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, args)


def _resident(field: str) -> int:
    """Resident memory of this process in bytes, now (VmRSS) or at most so far (VmHWM); Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
