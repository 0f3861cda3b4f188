"""BatchNorm's averages of the domain that a model is for (AdaBN: Li et al., arXiv 1603.04779)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.optim.swa_utils import update_bn

from acclimate.data.datasets import ImageSet, evenly_spaced
from acclimate.inference import batch_of, prepare
from acclimate.networks.segmenter import Segmenter

IMAGES = 32
"""Evenly spaced over the set: each has thousands of pixels, and what counts is that they are of many scenes."""
TOGETHER = 8
"""Images whose pixels are normalised together: those of one alone would lack the differences between images."""


def measure_statistics(network: Segmenter, images: ImageSet, width: int) -> None:
    """Set BatchNorm's averages to those of images as they are, scaled to ``width`` pixels; weights stay.

    While a network trains it averages over source and target, over crops, strong views and pasted patches. What it is
    then used for looks like none of them.
    """
    update_bn(_batches(network, images, width), network)
    network.eval()


def _batches(network: Segmenter, images: ImageSet, width: int) -> Iterator[Tensor]:
    """RGB in 0 … 1 (B, 3, H, W); images of different sizes never share a batch."""
    waiting: dict[tuple[int, ...], list[np.ndarray]] = {}
    for index in evenly_spaced(IMAGES, len(images)):
        (scaled_HWC,) = prepare(network.grid, images.image(index), width).scaled
        alike = waiting.setdefault(scaled_HWC.shape, [])
        alike.append(scaled_HWC)
        if len(alike) == TOGETHER:
            yield batch_of(network, waiting.pop(scaled_HWC.shape))
    for rest in waiting.values():
        yield batch_of(network, rest)
