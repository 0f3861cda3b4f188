"""The class distribution of the target as its pseudo labels have it, and its moving average."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import distributed


def count_labels(label: Tensor, classes: int) -> Tensor:
    """How many labels are of each class 0 … classes-1, float64 (K,)."""
    count_K = torch.zeros(classes + 1, dtype=torch.float64, device=label.device)
    label_P = torch.where((label >= 0) & (label < classes), label, classes).flatten().long()
    # Not bincount, which has to wait for a GPU to know the length of its result.
    return count_K.scatter_add_(0, label_P, count_K.new_ones(1).expand(len(label_P)))[:classes]


def label_shares(label: Tensor, classes: int) -> Tensor:
    """Share of each class among all processes' labels in 0 … classes-1, float64; zeros if there is none."""
    count_K = distributed.total(count_labels(label, classes))
    return count_K / count_K.sum().clamp(min=1)


def class_weights(distribution_K: Tensor, power: float, least: float = 2e-3) -> Tensor:
    """Weights (K,) of the classes' pixels, in proportion to share^-power; 1 in the mean over pixels.

    Args:
        distribution_K: share of each class; one below ``least`` counts as that, lest noise in it weighs thousands.
        power: 0: all pixels alike; 1: all classes alike, however rare.
    """
    share_K = distribution_K.clamp(min=least)
    share_K = share_K / share_K.sum()
    return share_K**-power / (share_K ** (1 - power)).sum()


@torch.no_grad()
def follow(distribution_K: Tensor, label: Tensor, momentum: float) -> Tensor:
    """Move the distribution in place towards that of the given labels (paper Eq. 12; momentum 1: not at all).

    Returns:
        The labels' own distribution (K,); zeros if there is none.
    """
    share_K = label_shares(label, len(distribution_K)).to(distribution_K)
    distribution_K.lerp_(torch.where(share_K.sum() > 0, share_K, distribution_K), 1 - momentum)
    return share_K
