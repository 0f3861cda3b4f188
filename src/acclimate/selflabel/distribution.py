"""The class distribution of the target as its pseudo labels have it, and its moving average."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import distributed


def label_shares(label: Tensor, classes: int) -> Tensor:
    """Share of each class among all processes' labels in 0 … classes-1, float64; zeros if there is none."""
    label = label.flatten()
    count_K = distributed.total(torch.bincount(label[(label >= 0) & (label < classes)], minlength=classes).double())
    return count_K / count_K.sum().clamp(min=1)


@torch.no_grad()
def follow(distribution_K: Tensor, label: Tensor, momentum: float) -> None:
    """Move the distribution in place towards that of the given labels (paper Eq. 12; momentum 1: not at all)."""
    share_K = label_shares(label, len(distribution_K))
    if bool(share_K.sum() > 0):
        distribution_K.lerp_(share_K.to(distribution_K), 1 - momentum)
