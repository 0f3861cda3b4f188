"""The pass over the unlabelled target: soft pseudo labels, class distribution, prototypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate import distributed
from acclimate.data.datasets import ImageSet
from acclimate.data.softlabels import SoftLabels
from acclimate.inference import Shown, cells, prepare
from acclimate.networks import Segmenter
from acclimate.overlap import ahead, behind
from acclimate.selflabel import PrototypeMeans


class Initial(NamedTuple):
    """What self-labelling starts from."""

    distribution_K: Tensor
    """Share of each class among the predicted pixels, float64, sums to 1."""
    proto_KD: Tensor
    """Mean feature of each predicted class; for one never predicted, its classifier weights."""


@torch.no_grad()
def label_target(
    network: Segmenter,
    images: ImageSet,
    store: SoftLabels,
    flip: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Initial:
    """Write the soft pseudo labels of all images, un-augmented, and gather what self-labelling starts from.

    With many processes each labels its share of the images, and all gather the same.

    Args:
        network: the model so far, in eval mode.
        store: where softmax maps at network stride go; gives the width to which images are scaled.
        flip: average with the prediction on the mirrored image.
        progress: called with the number of images done.
    """
    means = PrototypeMeans(network.num_classes, network.channels)
    own = distributed.share(range(len(images)))

    def read(index: int) -> Shown:
        return prepare(network.grid, images.image(index), store.width)

    def write(index: int, prob_Khw: Tensor) -> None:
        store.write(index, prob_Khw.cpu().numpy())

    with behind() as later:
        for done, (index, shown) in enumerate(zip(own, ahead(read, own), strict=True), start=1):
            prob_Khw, feat_Dhw = cells(network, shown, flip)
            later(write, index, prob_Khw)
            means.add(feat_Dhw[None], prob_Khw[None])
            progress(min(done * distributed.count(), len(images)))
    count_K = distributed.total(means.pixels_K.cpu())
    initial = Initial(count_K / count_K.sum(), means.means(network.directions()))
    if distributed.is_main():  # all have written theirs: the sums have met
        store.finish()
    distributed.barrier()
    return initial
