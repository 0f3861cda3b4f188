"""How far a network says of disturbed pictures what it says of the pictures: mirrored, smaller, larger, pale.

A network that fits the target holds on to its labels; one that guesses changes them. Unlike what networks expect of
each other (`consensus`), it does not favour the one that is surer: networks of different stages can be compared.
What cannot be told apart on so few images is decided by order: learning went on to better what was there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from acclimate import distributed
from acclimate.data.datasets import ImageSet, evenly_spaced
from acclimate.data.geometry import scaled_size
from acclimate.data.seeding import generator
from acclimate.evaluation import Confusion, iou_of
from acclimate.inference import prepare
from acclimate.networks import Segmenter
from acclimate.selection.consensus import squares

SEEN = 0.001
"""A class counts as there if one of the networks gives it so large a share of the squares."""
_RESAMPLES = 200


class Steadiness(NamedTuple):
    """How well a network keeps its labels, among others."""

    agreement: float
    """Mean IoU of the labels of images and of their disturbed views, 0 … 1."""
    error: float
    """Standard error, over the choice of images, of its difference to the highest agreement; 0 for that."""


class View(NamedTuple):
    """A picture as a network is shown it."""

    image_HWC: np.ndarray
    """Uint8 RGB."""
    scale: float = 1.0
    """Relative to the recipe's width."""
    mirrored: bool = False


def views(image_HWC: np.ndarray) -> Iterator[View]:
    """The disturbed views of a picture."""
    yield View(np.ascontiguousarray(image_HWC[:, ::-1]), mirrored=True)
    yield View(image_HWC, scale=0.75)
    yield View(image_HWC, scale=1.25)
    yield View((0.75 * image_HWC + 0.25 * image_HWC.mean() + 10).clip(0, 255).astype(np.uint8))


def look(network: Segmenter, images: ImageSet, count: int, width: int) -> np.ndarray:
    """Confusions (N, V, K, K), int64, of the labels of N images and those of their V views.

    With many processes each looks at its share of the images, and all return the same.

    Args:
        network: in any mode; it predicts in eval mode.
        images: unlabelled target images.
        count: how many of them, evenly spaced.
        width: pixels, to which images are scaled for the network.
    """
    indices = evenly_spaced(count, len(images))
    seen = {}
    for place in distributed.share(range(len(indices))):
        image_HWC = images.image(indices[place])
        plain = labels_of(network, View(image_HWC), width)
        confusions = []
        for view in views(image_HWC):
            confusions.append(Confusion(network.num_classes))
            confusions[-1].update(plain, labels_of(network, view, width))
        seen[place] = np.stack([confusion.matrix for confusion in confusions])
    everyones = {place: found for part in distributed.gathered(seen) for place, found in part.items()}
    return np.stack([everyones[place] for place in range(len(indices))])


def agreement(seen_NVKK: np.ndarray, lost_K: np.ndarray | None = None) -> float:
    """Mean IoU of the labels of images and of their views, 0 … 1, mean over the views; classes count alike.

    Args:
        seen_NVKK: what `look` returns.
        lost_K: bool: classes that count as 0; others that the network gives to nothing do not count.
    """
    return float(_agreements(seen_NVKK.sum(axis=0)[None], lost_K)[0])


def steadiness(seen: Sequence[np.ndarray]) -> list[Steadiness]:
    """How steady each network is, by a paired bootstrap over the images.

    Steadiest of all would be a network that sees one class everywhere: a class that others see and it does not is lost.

    Args:
        seen: of each network what `look` returns for the same images.
    """
    images = len(seen[0])
    drawn_RN = generator(0, "bootstrap").multinomial(images, np.full(images, 1 / images), _RESAMPLES)
    share_MK = np.stack([seen_NVKK.sum(axis=(0, 1, 3)) / seen_NVKK.sum() for seen_NVKK in seen])
    lost_MK = (share_MK >= SEEN).any(axis=0) & (share_MK == 0)
    pairs = list(zip(seen, lost_MK, strict=True))
    values = np.array([agreement(seen_NVKK, lost_K) for seen_NVKK, lost_K in pairs])
    drawn_MR = np.stack([_agreements(np.tensordot(drawn_RN, seen_NVKK, 1), lost_K) for seen_NVKK, lost_K in pairs])
    error_M = (drawn_MR[values.argmax()] - drawn_MR).std(axis=1)
    return [Steadiness(*pair) for pair in zip(values.tolist(), error_M.tolist(), strict=True)]


def steadiest(found: Sequence[Steadiness]) -> int:
    """The last of the networks, in the order of training, that is not two standard errors below the highest."""
    highest = max(one.agreement for one in found)
    return max(place for place, one in enumerate(found) if highest - one.agreement <= 2 * one.error)


def labels_of(network: Segmenter, view: View, width: int) -> np.ndarray:
    """The labels h×w of a view, in squares of the undisturbed picture scaled to ``width``."""
    shown = prepare(network.grid, view.image_HWC, width * view.scale)
    scaled_hw = scaled_size(view.image_HWC.shape[:2], width)
    label_hw = squares(network, shown, scaled_hw).argmax(dim=0).cpu().numpy()
    return label_hw[:, ::-1] if view.mirrored else label_hw


def _agreements(counts_RVKK: np.ndarray, lost_K: np.ndarray | None) -> np.ndarray:
    """Of each of R counts: mean over classes that occur or are lost, then over views."""
    iou_RVK = iou_of(counts_RVKK)
    if lost_K is not None:
        iou_RVK[..., lost_K] = 0
    return np.nanmean(iou_RVK, axis=2).mean(axis=1)
