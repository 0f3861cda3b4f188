"""Which pixels are clustered: a sample that mirrors the class distribution of the data set."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.devices import upload
from acclimate.selflabel.distribution import count_labels


def stratified_sample(
    label_P: Tensor, distribution_K: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Indices of about ``count`` pixels whose classes stand in the proportions of ``distribution_K`` (paper Eq. 9).

    Each class has a quota, its share of ``count``, rounded up or down at random so that also a share below
    one pixel is met in expectation. A class with fewer pixels than its quota gives all it has and the rest
    stays open: filling up with frequent classes would tilt the memory bank towards them.

    Args:
        label_P: pseudo label of every candidate pixel; values outside 0 … K-1 are never drawn.
        distribution_K: share of each class, sums to 1.
        count: pixels wanted.
        generator: source of randomness, on the CPU.

    Returns:
        Indices into ``label_P``, at most ``count + K`` of them, each at most once, in random order.
    """
    device, classes = label_P.device, len(distribution_K)
    label_P = torch.where((label_P >= 0) & (label_P < classes), label_P, classes)
    # The one thing that is read from the device: the number of pixels found decides all shapes from here on.
    found_2K = torch.stack([count_labels(label_P, classes), distribution_K.detach().double()]).cpu()
    size_K, share_K = found_2K.unbind()
    quota_K = (share_K * count + torch.rand(classes, generator=generator)).floor()
    order_P = upload(torch.randperm(len(label_P), generator=generator), device)
    by_class_P = order_P[label_P[order_P].argsort(stable=True)]
    first_K, taken_K = size_K.cumsum(0) - size_K, torch.minimum(size_K, quota_K)
    ranges = [torch.arange(int(taken)) + int(first) for first, taken in zip(first_K, taken_K, strict=True)]
    place_N = torch.cat(ranges)
    place_N = place_N[torch.randperm(len(place_N), generator=generator)]
    return by_class_P[upload(place_N, device)]


def uniform_sample(label_P: Tensor, classes: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices of ``count`` pixels (or all, if fewer) with a label in 0 … classes-1, each equally likely."""
    candidates = ((label_P >= 0) & (label_P < classes)).nonzero().squeeze(1)
    order = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[upload(order, candidates.device)]
