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


@torch.no_grad()
def follow(distribution_K: Tensor, label: Tensor, momentum: float) -> None:
    """Move the distribution in place towards that of the given labels (paper Eq. 12; momentum 1: not at all)."""
    share_K = label_shares(label, len(distribution_K)).to(distribution_K)
    distribution_K.lerp_(torch.where(share_K.sum() > 0, share_K, distribution_K), 1 - momentum)
