"""Using a model: load it, give it an image, or let it write masks for folders of photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from acclimate import distributed, pictures
from acclimate.data.datasets import open_labelled, read_image
from acclimate.data.layouts import IMAGE_SUFFIXES
from acclimate.errors import UserError
from acclimate.evaluation import Scores, evaluate
from acclimate.files import expanded
from acclimate.inference import (
    ONE_LOOK,
    Inference,
    Shown,
    forward_images,
    likeliest,
    pick_device,
    predict_labels,
    prepare,
    scores,
)
from acclimate.labels import LabelSpace
from acclimate.networks import Segmenter
from acclimate.networks.segmenter import SMALLEST
from acclimate.networks.weights import load_model
from acclimate.overlap import ahead, behind
from acclimate.recipe import Folder

ImageLike = str | Path | Image.Image | np.ndarray | torch.Tensor
"""A file, a PIL image, a uint8 array HWC (or HW), or a tensor CHW: uint8, or floating point in [0, 1]."""


@dataclass(frozen=True)
class Model:
    """A trained network, what its outputs mean, the width in pixels at which it looks at images, and how often."""

    network: Segmenter
    space: LabelSpace
    width: int
    how: Inference = ONE_LOOK

    def predict(self, image: ImageLike) -> np.ndarray:
        """Label ids, uint8 HW of the image's own size; names and colours are in ``space``.

        Raises:
            UserError: the file cannot be read, or this is not an image.
        """
        return predict_labels(self.network, to_rgb(image), self.width, self.how)

    def probabilities(self, image: ImageLike) -> np.ndarray:
        """Class probabilities, float32 K×H×W; their argmax is what `predict` returns. Raises as it does."""
        (scores_KHW,) = forward_images(self.network, [to_rgb(image)], self.width, self.how)
        return (scores_KHW.softmax(0) if self.how.single else scores_KHW).cpu().numpy()

    def evaluate(self, data: Folder) -> Scores:
        """Measure the model on labelled images; raises `UserError` for problems of the data."""
        return evaluate(self.network, open_labelled(data, "val", self.space), self.space, self.width, self.how)


def load(path: str | Path, device: str = "auto", width: int | None = None, how: Inference = ONE_LOOK) -> Model:
    """The model in a run folder, a ``.safetensors`` file or an official checkpoint, in eval mode on ``device``.

    Args:
        path: run folder or model file.
        device: ``auto``, ``cpu``, ``cuda``, …
        width: pixels, to which images are scaled for the network; by default as in training.
        how: one look at each image, or the mean of several.

    Raises:
        UserError: there is no model, the file is not one of ours, or the width is below 32.
    """
    if width is not None and width < SMALLEST:
        raise UserError(f"width: expected at least {SMALLEST} pixels, found {width}")
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        remedy = (
            "the run has not come to its end yet; call `acclimate adapt` with this --out again, or name a model "
            "under stages/" if path.is_dir() else "give a run folder, a .safetensors file or an official .pkl"
        )  # fmt: skip
        raise UserError(f"{file}: no such model; {remedy}")
    network, space, meta = load_model(file)
    return Model(network.to(pick_device(device)).eval(), space, width or meta["width"], how)


def evaluate_on(model: Model | str | Path, data: str | Path, **folder: Any) -> Scores:
    """Measure a model (or the one at a path) on a folder of labelled images.

    Args:
        model: from `load`, or what `load` takes.
        data: root folder of the images.
        folder: ``labels``, ``ids``, ``layout``, ``split``, ``limit`` as in a recipe's `Folder`.

    Raises:
        UserError: there is no model, or the data have problems.
    """
    model = model if isinstance(model, Model) else load(model)
    return model.evaluate(Folder(path=str(data), **folder))


def predict_files(
    model: Model | str | Path,
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    overlay: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a mask for every image: a palette PNG whose values are label ids.

    Images in folders keep their sub-folders below ``out``. With ``overlay`` a tinted photo ``NAME.overlay.jpg`` is
    written as well. Images that cannot be read don't keep the others from being done.

    Returns:
        The masks.

    Raises:
        UserError: before anything is written: missing inputs, no images, two images for one mask, masks that exist
            already (unless ``overwrite``). Afterwards: images that could not be read.
    """
    out = Path(out)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    jobs = _plan([expanded(item) for item in inputs], out, overlay, overwrite)
    model = model if isinstance(model, Model) else load(model)

    def write(job: Job, image_HWC: np.ndarray, label_HW: np.ndarray) -> None:
        pictures.save(pictures.mask(label_HW, model.space), job.mask)
        if overlay:
            pictures.save(pictures.overlay(image_HWC, label_HW, model.space), job.overlay)

    return write_masks(model, jobs, write)


@dataclass(frozen=True)
class Job:
    """An image to predict, and the file to write."""

    image: Path
    mask: Path

    @property
    def overlay(self) -> Path:
        """The tinted photo beside the mask."""
        return self.mask.with_suffix(".overlay.jpg")


def write_masks(model: Model, jobs: Sequence[Job], write: Callable[[Job, np.ndarray, np.ndarray], None]) -> list[Path]:
    """Predict every job's image and hand job, image (uint8 HWC) and label ids (uint8 HW) to ``write``, in a thread.

    With many processes each does its share of the jobs.

    Returns:
        The masks.

    Raises:
        UserError: in the end, if images could not be read.
    """
    distributed.barrier()  # all have looked what exists before one writes
    unreadable, masks = [], []

    def read(job: Job) -> tuple[np.ndarray, Shown] | UserError:
        try:
            image_HWC = read_image(job.image)
        except UserError as error:
            return error
        try:
            return image_HWC, prepare(model.network.grid, image_HWC, model.width, model.how)
        except UserError as error:  # it knows of the image's shape alone
            return UserError(f"{job.image}: {error}")

    def save(job: Job, image_HWC: np.ndarray, found_HW: torch.Tensor) -> None:
        write(job, image_HWC, found_HW.cpu().numpy())

    own = distributed.share(jobs)
    with behind() as later:
        for job, found in zip(_tracked(own), ahead(read, own), strict=True):
            if isinstance(found, UserError):
                unreadable.append(str(found))
                continue
            image_HWC, shown = found
            (scores_KHW,) = scores(model.network, [shown], model.how)
            later(save, job, image_HWC, likeliest(scores_KHW))
            masks.append(job.mask)
    unreadable, masks = (list(chain(*distributed.gathered(found))) for found in (unreadable, masks))
    if unreadable:
        raise UserError(listing(f"{len(masks)} masks written, {len(unreadable)} images left out", unreadable))
    return sorted(masks)


def _tracked(jobs: Sequence[Job]) -> Iterable[Job]:
    """The jobs, with a bar on the main process's terminal."""
    console = Console(stderr=True, markup=False, emoji=False)
    quiet = not (console.is_terminal and distributed.is_main())
    return track(jobs, "predicting", console=console, disable=quiet, transient=True)


def to_rgb(image: ImageLike) -> np.ndarray:
    """Any form of image as uint8 HWC RGB.

    Raises:
        UserError: the file cannot be read, or shape, type or values are not an image's.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise UserError(f"a PIL image of mode {image.mode} has no known range; convert it to RGB with 8 bits")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, torch.Tensor):
        image = _from_tensor(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 2:
            return np.repeat(image[..., None], 3, axis=2)
        if image.ndim == 3 and image.shape[2] == 3 and image.size:
            return image
    found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(
        f"not an image: expected a path, a PIL image, a uint8 array HWC or a tensor CHW (uint8 or 0 … 1), found {found}"
    )


def _from_tensor(image: torch.Tensor) -> np.ndarray:
    """HWC array of a CHW tensor; only tensors in 0 … 1 are turned into uint8."""
    if image.is_floating_point() and image.numel() and image.min() >= 0 and image.max() <= 1:
        image = (image * 255).round().to(torch.uint8)
    return image.detach().cpu().permute(*range(1, image.ndim), 0).numpy() if image.ndim == 3 else image.cpu().numpy()


def _plan(inputs: Sequence[Path], out: Path, overlay: bool, overwrite: bool) -> list[Job]:
    """What is to be written, after everything that would go wrong has been looked for."""
    jobs = [Job(image, out / f"{name}.png") for image, name in find_images(inputs, out)]
    refuse_conflicts(jobs, out, overlay, overwrite)
    return jobs


def refuse_conflicts(jobs: Sequence[Job], out: Path, overlay: bool, overwrite: bool) -> None:
    """Raise `UserError` for files that would be written twice, outside ``out``, over photos or over older files."""
    by_mask = defaultdict(list)
    for job in jobs:
        by_mask[job.mask].append(str(job.image))
    doubled = [f"{mask}: from {' and '.join(images)}" for mask, images in by_mask.items() if len(images) > 1]
    if doubled:
        raise UserError(listing("several images would write one mask; predict them into different folders", doubled))
    outside = [str(job.mask) for job in jobs if not job.mask.parent.resolve().is_relative_to(out.resolve())]
    if outside:
        raise UserError(listing(f"links lead out of {out}; remove them or choose another --out", outside))
    images = {job.image.resolve() for job in jobs}
    own = [str(job.mask) for job in jobs if job.mask.resolve() in images]
    if own:
        raise UserError(listing("masks would take the place of photos; choose another --out", own))
    outputs = [path for job in jobs for path in ((job.mask, job.overlay) if overlay else (job.mask,))]
    existing = [str(path) for path in outputs if path.exists() or path.is_symlink()]
    if existing and not overwrite:
        raise UserError(listing("these files exist; choose another --out or allow --overwrite", existing))


def find_images(inputs: Sequence[Path], out: Path) -> list[tuple[Path, str]]:
    """Every image with its name below ``out``: without suffix, sub-folders kept. Earlier outputs are no inputs.

    Raises:
        UserError: a missing input, or no images.
    """
    images = list(_images(inputs, out.resolve()))
    if not images:
        raise UserError(f"{', '.join(map(str, inputs))}: no images; looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def _images(inputs: Sequence[Path], out: Path) -> Iterator[tuple[Path, str]]:
    for item in inputs:
        if item.is_dir():
            below = out != item.resolve()
            for image in sorted(item.rglob("*")):
                earlier = below and out in image.resolve().parents
                if image.suffix.lower() in IMAGE_SUFFIXES and image.is_file() and not earlier:
                    yield image, image.relative_to(item).with_suffix("").as_posix()
        elif item.is_file():
            yield item, item.stem
        else:
            raise UserError(f"{item}: no such file or folder")


def listing(headline: str, lines: Sequence[str], most: int = 10) -> str:
    """A message with the first lines and the number of the rest."""
    rest = [f"  … and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{headline}:", *(f"  {line}" for line in lines[:most]), *rest])
