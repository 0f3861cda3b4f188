"""What the models of a run see in a few images of the target, and where they are not sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acclimate.data.datasets import ImageSet, LabelledSet, default_ids, evenly_spaced, open_labelled
from acclimate.data.forgiving import open_target
from acclimate.errors import UserError
from acclimate.inference import cells, prepare, scores, stretch
from acclimate.networks.weights import load_model
from acclimate.report.embed import fitted
from acclimate.report.record import Record
from acclimate.run import PROTOTYPES
from acclimate.selflabel import cluster_probabilities, corrected, reach

SHOWN = 4
"""Images on the page, evenly spaced over the set: not chosen for how they came out."""
SEARCHED = 48
"""Images among which the least certain are looked for, evenly spaced over the target."""


class Photo(NamedTuple):
    """An image of the target."""

    name: str
    image_HWC: np.ndarray
    truth_HW: np.ndarray | None
    """Labels at the size of the page's picture."""

    @property
    def hw(self) -> tuple[int, int]:
        """Size of the page's picture."""
        return fitted(self.image_HWC.shape[:2])

    def small(self) -> np.ndarray:
        """The page's picture, uint8 HWC."""
        height, width = self.hw
        return np.asarray(Image.fromarray(self.image_HWC).resize((width, height), Image.Resampling.LANCZOS))


class Seen(NamedTuple):
    """What a model sees in a photo, at the size of the page's picture."""

    label_HW: np.ndarray
    confidence_HW: np.ndarray
    """Probability of that label."""
    entropy_HW: np.ndarray
    """Of the probabilities, relative to the largest possible: 0 sure, 1 no idea."""


class Correction(NamedTuple):
    """Pseudo labels before and after rectification, at the size of the page's picture."""

    before_HW: np.ndarray
    after_HW: np.ndarray


class Eye:
    """A stage's model, looking at photos."""

    def __init__(self, path: Path, device: torch.device) -> None:
        network, _, metadata = load_model(path)
        self.network, self.width = network.to(device), metadata["width"]

    def see(self, photo: Photo) -> Seen:
        """What prediction would write, and how sure it is."""
        shown = prepare(self.network.grid, photo.image_HWC, self.width)._replace(size_hw=photo.hw)
        (logits_KHW,) = scores(self.network, [shown])
        prob_KHW = logits_KHW.softmax(0)
        confidence_HW, label_HW = prob_KHW.max(0)
        maps = label_HW.to(torch.uint8), confidence_HW, _entropy(prob_KHW)
        return Seen(*(values.cpu().numpy() for values in maps))

    def cells(self, photo: Photo, flip: bool = False) -> tuple[Tensor, Tensor]:
        """Probabilities and features in the network's cells."""
        return cells(self.network, prepare(self.network.grid, photo.image_HWC, self.width), flip)

    def stretch(self, maps_Khw: Tensor, photo: Photo) -> Tensor:
        """Maps in the network's cells, at the size of the page's picture."""
        (scaled_HWC,) = prepare(self.network.grid, photo.image_HWC, self.width).scaled
        return stretch(maps_Khw, scaled_HWC.shape[:2], self.network.grid, photo.hw)


def open_photos(record: Record) -> list[Photo]:
    """A few images to look at: labelled ones if the recipe names any, else of the target.

    Raises:
        UserError: they are not where the recipe says, or broken.
    """
    data = record.run.recipe.data
    images: ImageSet = open_target(data, record.run.folder)
    if data.val.path:
        images = open_labelled(data.val, "val", record.space, default_ids(data))
    return [_photo(images, index) for index in evenly_spaced(SHOWN, len(images))]


def see_all(models: Sequence[Path], photos: Sequence[Photo], device: torch.device) -> list[list[Seen]]:
    """What each of several models sees in each photo."""
    return [[eye.see(photo) for photo in photos] for eye in (Eye(path, device) for path in models)]


def corrections(record: Record, photos: Sequence[Photo], device: torch.device) -> list[Correction] | None:
    """What the clusters of stage 1 make of its pseudo labels; None if nothing tells, or none rectify.

    The features are those of the model that the stage keeps, the prototypes those of its end, the class distribution
    that of its beginning.
    """
    stages = [row["name"] for row in record.rows]
    path = record.run.path("selflabel") / PROTOTYPES
    if "selflabel" not in stages or not record.run.recipe.selflabel.rectify or not path.exists():
        return None
    teacher = Eye(record.run.model(stages[stages.index("selflabel") - 1]), device)
    student = Eye(record.run.model("selflabel"), device)
    proto_KD = _prototypes(path, (student.network.num_classes, student.network.channels))
    reach_K = _reach(record)
    return [_correct(teacher, student, proto_KD.to(device), reach_K, photo, record) for photo in photos]


def least_sure(record: Record, device: torch.device) -> tuple[list[tuple[Photo, Seen, float]], int]:
    """The target images on which the run's model is least sure, with their mean entropy, of how many looked at."""
    target = open_target(record.run.recipe.data, record.run.folder)
    eye = Eye(record.run.model(record.adapted["name"]), device)
    found = []
    indices = evenly_spaced(SEARCHED, len(target))
    for index in indices:
        prob_Khw, _ = eye.cells(_photo(target, index))
        found.append((float(_entropy(prob_Khw).mean()), index))
    worst = [(_photo(target, index), doubt) for doubt, index in sorted(found, reverse=True)[:SHOWN]]
    return [(photo, eye.see(photo), doubt) for photo, doubt in worst], len(indices)


def _prototypes(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        proto_KD = load_file(path)["prototypes"]
    except (OSError, SafetensorError, KeyError):
        proto_KD = torch.empty(0)
    if proto_KD.shape != shape:
        raise UserError(f"{path}: damaged; delete the folder {path.parent} and call adapt again to have it made anew")
    return proto_KD


def _reach(record: Record) -> Tensor | None:
    if record.run.recipe.selflabel.rectify_by == "alike":
        return None
    shares = record.run.shares("initialise")
    return reach(torch.tensor([shares[name] for name in record.space.classes]))


def _correct(
    teacher: Eye, student: Eye, proto_KD: Tensor, reach_K: Tensor | None, photo: Photo, record: Record
) -> Correction:
    choices = record.run.recipe.selflabel
    soft_Khw, feat_Dhw = student.cells(photo)
    if choices.labels == "stored":
        soft_Khw, _ = teacher.cells(photo, choices.flip)
    weight_BKhw = cluster_probabilities(feat_Dhw[None], proto_KD, choices.temperature)
    pair = (soft_Khw, corrected(soft_Khw[None], weight_BKhw, reach_K)[0])
    labels = (teacher.stretch(maps_Khw, photo).argmax(0).to(torch.uint8).cpu().numpy() for maps_Khw in pair)
    return Correction(*labels)


def _photo(images: ImageSet, index: int) -> Photo:
    image_HWC = images.image(index)
    photo = Photo(images.samples[index].name, image_HWC, None)
    if not isinstance(images, LabelledSet):
        return photo
    height, width = photo.hw
    truth = Image.fromarray(images.label(index)).resize((width, height), Image.Resampling.NEAREST)
    return photo._replace(truth_HW=np.asarray(truth))


def _entropy(prob_KHW: Tensor) -> Tensor:
    log_K = torch.tensor(float(len(prob_KHW)), device=prob_KHW.device).log().clamp(min=1e-6)
    return -(prob_KHW * prob_KHW.clamp(min=1e-12).log()).sum(0) / log_K
