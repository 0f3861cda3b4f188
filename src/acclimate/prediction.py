"""Using a model: load it, give it an image, or let it write masks for folders of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from acclimate import distributed, pictures
from acclimate.data.datasets import open_labelled, read_image
from acclimate.errors import UserError
from acclimate.evaluation import Scores, evaluate
from acclimate.files import atomic, expanded
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
from acclimate.jobs import Job, is_there, listing, pending, plan
from acclimate.labels import LabelSpace
from acclimate.networks import Segmenter
from acclimate.networks.segmenter import SMALLEST
from acclimate.networks.weights import load_model
from acclimate.overlap import ahead, behind
from acclimate.progress import tracked
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
    probabilities: bool = False,
    batch: int = 1,
) -> list[Path]:
    """Write a mask for every image: a palette PNG whose values are label ids.

    Files that are there already stay as they are, so that the same call goes on where it stopped. Images that cannot
    be read don't keep the others from being done.

    Args:
        model: from `load`, or what `load` takes.
        inputs: images, folders, patterns such as ``photos/**/*.jpg``. Images in folders keep their sub-folders.
        out: folder of the masks.
        overlay: write the tinted photo as ``NAME.overlay.jpg`` as well.
        overwrite: make anew what is there already.
        probabilities: write ``NAME.npz`` as well: ``probabilities``, uint8 K×H×W, 255 times the probability of each
            class, and ``classes``, their names.
        batch: how many images of one size go through the network together, where each is looked at once.

    Returns:
        The masks, in the order of the images.

    Raises:
        UserError: before anything is written: missing inputs, no images, two images for one mask, masks in the place
            of photos. Afterwards: images that could not be read.
    """
    out = Path(out)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    jobs = plan([expanded(item) for item in inputs], out, overlay, probabilities)
    model = model if isinstance(model, Model) else load(model)

    def write(job: Job, found: Found) -> None:
        if job.overlay and (overwrite or not is_there(job.overlay)):
            pictures.save(pictures.overlay(found.image_HWC, found.label_HW, model.space), job.overlay)
        if job.probabilities and (overwrite or not is_there(job.probabilities)):
            save_probabilities(found.prob_KHW, model.space, job.probabilities)
        if overwrite or not is_there(job.mask):
            pictures.save(pictures.mask(found.label_HW, model.space), job.mask)

    return write_masks(model, jobs, write, overwrite, batch)


class Found(NamedTuple):
    """An image and what a model finds in it."""

    image_HWC: np.ndarray
    """uint8 RGB."""
    label_HW: np.ndarray
    """uint8: label ids."""
    prob_KHW: np.ndarray | None
    """uint8: 255 times the probabilities, if they are wanted."""


def write_masks(
    model: Model, jobs: Sequence[Job], write: Callable[[Job, Found], None], overwrite: bool = False, batch: int = 1
) -> list[Path]:
    """Predict every job's image and hand both to ``write``, in a thread; jobs that are done are left out.

    With many processes each does its share of the jobs.

    Returns:
        The masks, those of earlier calls included.

    Raises:
        UserError: in the end, if images could not be read.
    """
    if batch < 1:
        raise UserError(f"batch: expected at least 1 image, found {batch}")
    left = pending(jobs, overwrite)
    distributed.barrier()  # all have looked what exists before one writes
    unreadable: list[str] = []

    def read(job: Job) -> tuple[np.ndarray, Shown] | UserError:
        try:
            image_HWC = read_image(job.image)
        except UserError as error:
            return error
        try:
            return image_HWC, prepare(model.network.grid, image_HWC, model.width, model.how)
        except UserError as error:  # it knows of the image's shape alone
            return UserError(f"{job.image}: {error}")

    def save(job: Job, image_HWC: np.ndarray, label_HW: torch.Tensor, prob_KHW: torch.Tensor | None) -> None:
        write(job, Found(image_HWC, label_HW.cpu().numpy(), None if prob_KHW is None else prob_KHW.cpu().numpy()))

    own = distributed.share(left)
    images = zip(tracked(own, "predicting"), ahead(read, own, batch), strict=True)
    with behind() as later:
        while group := list(islice(images, batch)):
            unreadable += [str(found) for _, found in group if isinstance(found, UserError)]
            good = [(job, *found) for job, found in group if not isinstance(found, UserError)]
            found = scores(model.network, [shown for _, _, shown in good], model.how)
            for (job, image_HWC, _), scores_KHW in zip(good, found, strict=True):
                prob_KHW = _bytes(scores_KHW, model.how) if job.probabilities else None
                later(save, job, image_HWC, likeliest(scores_KHW), prob_KHW)
    unreadable = list(chain(*distributed.gathered(unreadable)))
    if unreadable:
        headline = f"{len(left) - len(unreadable)} masks written, {len(unreadable)} images left out"
        raise UserError(listing(headline, unreadable))
    return [job.mask for job in jobs]


def _bytes(scores_KHW: torch.Tensor, how: Inference) -> torch.Tensor:
    """Scores as uint8: 255 times the probabilities."""
    prob_KHW = scores_KHW.softmax(0) if how.single else scores_KHW
    return (prob_KHW * 255).round().to(torch.uint8)


def save_probabilities(prob_KHW: np.ndarray | None, space: LabelSpace, path: Path) -> None:
    """Write an ``.npz`` with ``probabilities`` (uint8 K×H×W) and ``classes`` (names), compressed."""
    assert prob_KHW is not None
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=prob_KHW, classes=np.array(space.classes))


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
