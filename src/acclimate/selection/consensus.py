"""How good several networks are, judged without labels: by unlabelled target images, and by each other.

All look at the same images and at their mirror images. The mean of their class probabilities, the *consensus*, knows
more than each, but favours who stands in the middle; a network's own probabilities favour who is sure. Half of the one
and half of the other stand in for the labels: they say how likely each class is at each place, so that the intersection
over union that the network's predictions can expect follows, class by class. Rare classes count as much as large ones.

The expected IoU is an estimate of the true one. The error that comes with it is that of having seen these images and
not others (a bootstrap). Where all networks are wrong in the same way the estimate is too high, which no error bar
shows: docs/selection.md has how far off it was. It chooses nothing: it favours who is surer (`agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate import distributed
from acclimate.data.datasets import ImageSet, evenly_spaced
from acclimate.data.geometry import Grid, Size
from acclimate.data.seeding import generator
from acclimate.inference import Shown, cells, prepare, stretch
from acclimate.networks import Segmenter
from acclimate.overlap import ahead

COARSE = 4
"""Networks are compared in squares of so many pixels of the scaled image."""
_RESAMPLES = 200


class Tallies(NamedTuple):
    """What predictions meet in the probabilities that stand in for labels: squares of each of N images, float64."""

    hits_NK: np.ndarray
    """Probability mass of class k where k is predicted."""
    found_NK: np.ndarray
    """Where k is predicted."""
    expected_NK: np.ndarray
    """Probability mass of class k."""


@dataclass(frozen=True)
class Estimate:
    """What IoU a network may have on the target, in 0 … 1. A class that the target lacks counts as nearly 0."""

    mean_iou: float
    error: float
    """Standard error of the mean over the choice of images."""
    iou_K: np.ndarray
    error_K: np.ndarray

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Plain values for JSON; those of classes by name."""
        by_class = {"iou": self.iou_K, "iou_error": self.error_K}
        named = {key: dict(zip(classes, value_K.tolist(), strict=True)) for key, value_K in by_class.items()}
        return {"mean_iou": self.mean_iou, "error": self.error, **named}


def judge(networks: Sequence[Segmenter], images: ImageSet, count: int, width: int) -> list[Estimate]:
    """What each of several networks may reach on the target.

    With many processes each looks at its share of the images, and all return the same. Nothing is drawn from global
    random generators.

    Args:
        networks: on one device, in any mode; they predict in eval mode.
        images: unlabelled target images.
        count: how many of them, evenly spaced.
        width: pixels, to which images are scaled for the networks.
    """
    indices = evenly_spaced(count, len(images))
    own = distributed.share(range(len(indices)))
    grids = {network.grid for network in networks}

    def read(place: int) -> dict[Grid, Shown]:
        image_HWC = images.image(indices[place])
        return {grid: prepare(grid, image_HWC, width) for grid in grids}

    seen = {}
    for place, shown in zip(own, ahead(read, own), strict=True):
        each = [(network, shown[network.grid]) for network in networks]
        seen[place] = compare([squares(network, one, one.scaled[0].shape[:2], flip=True) for network, one in each])
    everyones = {place: rows for part in distributed.gathered(seen) for place, rows in part.items()}
    rows_NM3K = np.stack([everyones[place] for place in range(len(indices))])
    return [estimate(Tallies(*rows_N3K.swapaxes(0, 1))) for rows_N3K in rows_NM3K.swapaxes(0, 1)]


def compare(prob: Sequence[Tensor]) -> np.ndarray:
    """The rows of `Tallies` that one image gives, M x 3 x K, from class probabilities K×h×w of each of M networks."""
    prob_MKP = torch.stack(list(prob)).cpu().double().flatten(2)
    consensus_KP = prob_MKP.mean(dim=0)
    rows = []
    for own_KP in prob_MKP:
        stand_in_KP = (own_KP + consensus_KP) / 2
        member_KP = F.one_hot(own_KP.argmax(dim=0), len(own_KP)).T
        rows.append(torch.stack([(stand_in_KP * member_KP).sum(1), member_KP.sum(1), stand_in_KP.sum(1)]))
    return torch.stack(rows).numpy()


def estimate(tallies: Tallies) -> Estimate:
    """The expected IoU, and its error by a bootstrap over the images."""
    images = len(tallies.hits_NK)
    drawn_RN = generator(0, "bootstrap").multinomial(images, np.full(images, 1 / images), _RESAMPLES)
    iou_K = _iou(*(rows_NK.sum(axis=0) for rows_NK in tallies))
    iou_RK = _iou(*(drawn_RN @ rows_NK for rows_NK in tallies))
    return Estimate(float(iou_K.mean()), float(iou_RK.mean(axis=1).std()), iou_K, iou_RK.std(axis=0))


def squares(network: Segmenter, shown: Shown, scaled_hw: Size, flip: bool = False) -> Tensor:
    """Class probabilities K×h×w of an image in squares, whatever the network's cells are.

    The squares are of `COARSE` pixels of the image at ``scaled_hw``, which may be another size than is shown.
    """
    prob_Khw, _ = cells(network, shown, flip)
    height, width = (-(-side // COARSE) for side in scaled_hw)
    return stretch(prob_Khw, shown.scaled[0].shape[:2], network.grid, (height, width))


def _iou(hits_K: np.ndarray, found_K: np.ndarray, expected_K: np.ndarray) -> np.ndarray:
    union_K = found_K + expected_K - hits_K
    return np.divide(hits_K, union_K, out=np.zeros_like(union_K), where=union_K > 0)
