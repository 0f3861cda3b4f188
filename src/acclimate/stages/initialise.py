"""The pass over the unlabelled target: soft pseudo labels, class distribution, prototypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate import distributed
from acclimate.data.datasets import ImageSet
from acclimate.data.softlabels import SoftLabels
from acclimate.inference import forward_image
from acclimate.networks import Segmenter
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
    count_K = torch.zeros(network.num_classes, dtype=torch.float64)
    for done, index in enumerate(distributed.share(range(len(images))), start=1):
        prob_Khw, feat_Dhw = forward_image(network, images.image(index), store.width, flip)
        store.write(index, prob_Khw.cpu().numpy())
        means.add(feat_Dhw[None], prob_Khw[None])
        count_K += torch.bincount(prob_Khw.argmax(dim=0).flatten(), minlength=len(count_K)).double().cpu()
        progress(min(done * distributed.count(), len(images)))
    count_K = distributed.total(count_K)
    initial = Initial(count_K / count_K.sum(), means.means(network.directions()))
    if distributed.is_main():  # all have written theirs: the sums have met
        store.finish()
    distributed.barrier()
    return initial
