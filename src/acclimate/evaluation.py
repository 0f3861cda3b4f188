"""Measuring a model on labelled images: confusion matrix, intersection over union, accuracies.

Cityscapes protocol: one matrix over all pixels of all images; ignored pixels do not count; a class that neither
labels nor predictions contain has no IoU (NaN) and is left out of the means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table

from acclimate import distributed
from acclimate.inference import ONE_LOOK, Inference, Shown, forward_image, likeliest, predict_labels, prepare, scores
from acclimate.label_tables import CITYSCAPES, SPACES
from acclimate.labels import IGNORE, LabelSpace
from acclimate.overlap import ahead, behind

if TYPE_CHECKING:
    from acclimate.data.datasets import LabelledSet
    from acclimate.networks import Segmenter

__all__ = ["Confusion", "Scores", "evaluate", "forward_image", "predict_labels", "score_table"]


class Confusion:
    """Counts of (label, prediction) pairs: ``matrix[i, j]`` pixels of class i were predicted as class j."""

    def __init__(self, classes: int, ignore: int = IGNORE) -> None:
        self.matrix = np.zeros((classes, classes), np.int64)
        self.ignore = ignore

    def update(self, label_HW: np.ndarray | torch.Tensor, prediction_HW: np.ndarray | torch.Tensor) -> None:
        """Count the pixels of one image, or of several stacked; labels of the value ``ignore`` are left out.

        Raises:
            ValueError: shapes differ, or an id lies outside 0 … K-1.
        """
        label, prediction = np.asarray(label_HW), np.asarray(prediction_HW)
        if label.shape != prediction.shape:
            raise ValueError(f"label {label.shape} and prediction {prediction.shape} differ in shape")
        counted = label != self.ignore
        label, prediction = label[counted].astype(np.int64), prediction[counted].astype(np.int64)
        classes = len(self.matrix)
        for ids, what in ((label, "label"), (prediction, "prediction")):
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise ValueError(f"{what} ids {ids.min()} … {ids.max()} lie outside 0 … {classes - 1}")
        self.matrix += np.bincount(label * classes + prediction, minlength=classes**2).reshape(classes, classes)

    def merge(self, other: Confusion) -> None:
        """Add the counts of other images."""
        self.matrix += other.matrix

    def iou(self) -> np.ndarray:
        """Intersection over union per class, float64 (K,) in 0 … 1; NaN for absent classes."""
        return iou_of(self.matrix)

    def mean_iou(self) -> float:
        """Mean over the classes that labels or predictions contain."""
        return _mean(self.iou())

    def accuracy(self) -> float:
        """Share of correct pixels."""
        return float(_ratio(np.trace(self.matrix), self.matrix.sum()))

    def mean_accuracy(self) -> float:
        """Mean, over the classes that labels contain, of the share of their pixels that are found."""
        return _mean(_ratio(np.diag(self.matrix), self.matrix.sum(1)))

    def frequency_weighted_iou(self) -> float:
        """Mean IoU weighted by the classes' share of the labels."""
        frequency = _ratio(self.matrix.sum(1), self.matrix.sum())
        present = self.matrix.sum(1) > 0
        return float((frequency * self.iou())[present].sum()) if present.any() else math.nan


@dataclass(frozen=True)
class Scores:
    """What a model reached on labelled images; all values in 0 … 1, NaN where there was nothing to measure."""

    classes: tuple[str, ...]
    iou: tuple[float, ...]
    mean_iou: float
    accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    images: int
    pixels: tuple[int, ...] = ()
    """How many the labels have of each class."""
    subsets: Mapping[str, float] = field(default_factory=dict)
    """Mean IoU over the classes of smaller label spaces, by their names: the literature's means over 16 and 13 of
    the Cityscapes classes. The model and its IoU per class are the same; only fewer classes are in the mean."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Pixels of the class of the row that were predicted as that of the column; for the report, not in `to_dict`."""

    @classmethod
    def of(cls, confusion: Confusion, space: LabelSpace, images: int) -> Scores:
        """The scores of a confusion matrix."""
        iou_K = confusion.iou()
        return cls(
            classes=space.classes,
            iou=tuple(iou_K.tolist()),
            mean_iou=confusion.mean_iou(),
            accuracy=confusion.accuracy(),
            mean_accuracy=confusion.mean_accuracy(),
            frequency_weighted_iou=confusion.frequency_weighted_iou(),
            images=images,
            pixels=tuple(confusion.matrix.sum(1).tolist()),
            confusion=tuple(map(tuple, confusion.matrix.tolist())),
            subsets={
                name: _mean(iou_K[[space.classes.index(member) for member in members]])
                for name, members in _subsets(space.classes).items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN: it becomes None. IoU and pixels by class name."""
        named = ("classes", "iou", "pixels", "subsets", "confusion")
        rest = {f.name: _null(getattr(self, f.name)) for f in fields(self) if f.name not in named}
        by_class = {name: dict(zip(self.classes, getattr(self, name), strict=True)) for name in ("iou", "pixels")}
        by_name = {**by_class, "subsets": self.subsets}
        return rest | {name: {key: _null(v) for key, v in values.items()} for name, values in by_name.items()}


def evaluate(
    network: Segmenter,
    labelled: LabelledSet,
    space: LabelSpace,
    width: int,
    how: Inference = ONE_LOOK,
    batch: int = 4,
) -> Scores:
    """Predict every image at the network's ``width`` and compare it with its label at the label's own size.

    With many processes each takes its share of the images, and all return the same scores.

    Args:
        network: in any mode; predicts in eval mode.
        labelled: images and labels.
        space: the classes of both.
        width: pixels, to which images are scaled for the network.
        how: one look at each image, or the mean of several.
        batch: images that go through the network together if one look is all.
    """
    confusion = Confusion(len(space))

    def read(index: int) -> tuple[Shown, np.ndarray]:
        return prepare(network.grid, labelled.image(index), width, how), labelled.label(index)

    def count(label_HW: np.ndarray, found_HW: torch.Tensor) -> None:
        confusion.update(label_HW, found_HW.cpu())

    pairs = ahead(read, distributed.share(range(len(labelled))), most=batch)
    with behind(1) as later:  # one thread, since all count into one matrix
        while chunk := list(islice(pairs, batch)):
            images, labels = zip(*chunk, strict=True)
            for label_HW, scores_KHW in zip(labels, scores(network, images, how), strict=True):
                later(count, label_HW, likeliest(scores_KHW))
    confusion.matrix = distributed.total(torch.from_numpy(confusion.matrix)).numpy()
    return Scores.of(confusion, space, len(labelled))


def score_table(columns: Mapping[str, Scores], title: str = "") -> Table:
    """IoU in percent, one row per class and one column per model; the means stand last."""
    table = Table(title=title or None)
    table.add_column("IoU, %")
    for name in columns:
        table.add_column(name, justify="right")
    scores = list(columns.values())
    for row in zip(scores[0].classes, *(s.iou for s in scores), strict=True):
        table.add_row(row[0], *map(_percent, row[1:]))
    table.add_section()
    table.add_row("mean", *(_percent(s.mean_iou) for s in scores), style="bold")
    for name in scores[0].subsets:
        table.add_row(mean_name(name), *(_percent(s.subsets[name]) for s in scores))
    return table


def mean_name(subset: str) -> str:
    """What a mean over a smaller label space is called in tables: by its number of classes."""
    return f"mean of {len(SPACES[subset])}"


def _subsets(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The smaller Cityscapes spaces whose classes are all among these, by name; none among classes of other names."""
    smaller = {name: tuple(SPACES[name]) for name in ("cityscapes16", "cityscapes13")}
    family = set(classes) <= CITYSCAPES.keys()
    return {name: members for name, members in smaller.items() if family and set(members) < set(classes)}


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def iou_of(count_KK: np.ndarray) -> np.ndarray:
    """IoU per class (…, K) of counted pairs (…, K, K), in 0 … 1; NaN for absent classes."""
    hits_K = np.diagonal(count_KK, axis1=-2, axis2=-1)
    return _ratio(hits_K, count_KK.sum(-2) + count_KK.sum(-1) - hits_K)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part / whole, NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full_like(part, math.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """Mean without NaN; NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
