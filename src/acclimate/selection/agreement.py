"""How far a network says of disturbed pictures what it says of the pictures: mirrored, smaller, larger, pale.

A network that fits the target holds on to its labels; one that guesses changes them. Unlike what networks expect of
each other (`consensus`), it does not favour the one that is surer: networks of different stages can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from acclimate import distributed
from acclimate.data.datasets import ImageSet, evenly_spaced
from acclimate.data.geometry import scaled_size
from acclimate.evaluation import Confusion
from acclimate.inference import prepare
from acclimate.networks import Segmenter
from acclimate.selection.consensus import squares


class View(NamedTuple):
    """A picture as a network is shown it."""

    image_HWC: np.ndarray
    """Uint8 RGB."""
    scale: float = 1.0
    """Relative to the recipe's width."""
    mirrored: bool = False


def agreement(network: Segmenter, images: ImageSet, count: int, width: int) -> float:
    """Mean IoU of the labels of images and those of their views, 0 … 1, mean over the views; classes count alike.

    With many processes each looks at its share of the images, and all return the same.

    Args:
        network: in any mode; it predicts in eval mode.
        images: unlabelled target images.
        count: how many of them, evenly spaced.
        width: pixels, to which images are scaled for the network.
    """
    confusions = [Confusion(network.num_classes) for _ in range(VIEWS)]
    for index in distributed.share(evenly_spaced(count, len(images))):
        plain, *others = (labels_of(network, view, width) for view in views(images.image(index)))
        for confusion, other in zip(confusions, others, strict=True):
            confusion.update(plain, other)
    for confusion in confusions:
        confusion.matrix = distributed.total(torch.from_numpy(confusion.matrix)).numpy()
    return float(np.mean([confusion.mean_iou() for confusion in confusions]))


VIEWS = 4
"""Disturbed ones of each picture."""


def views(image_HWC: np.ndarray) -> Iterator[View]:
    """The picture, then its disturbed views."""
    yield View(image_HWC)
    yield View(np.ascontiguousarray(image_HWC[:, ::-1]), mirrored=True)
    yield View(image_HWC, scale=0.75)
    yield View(image_HWC, scale=1.25)
    yield View((0.75 * image_HWC + 0.25 * image_HWC.mean() + 10).clip(0, 255).astype(np.uint8))


def labels_of(network: Segmenter, view: View, width: int) -> np.ndarray:
    """The labels h×w of a view, in squares of the undisturbed picture scaled to ``width``."""
    shown = prepare(network.grid, view.image_HWC, width * view.scale)
    scaled_hw = scaled_size(view.image_HWC.shape[:2], width)
    label_hw = squares(network, shown, scaled_hw).argmax(dim=0).cpu().numpy()
    return label_hw[:, ::-1] if view.mirrored else label_hw
