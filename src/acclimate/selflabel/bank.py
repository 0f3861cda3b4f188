"""Memory bank: the latest features of the target, so that assignments see more than one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """Ring buffer of features and their pseudo labels, first in, first out (paper section 3.3).

    Everything is a buffer, so that ``state_dict`` holds the bank and moving the module moves it. A push
    writes in place: nothing grows and nothing is copied but the new rows.

    Args:
        capacity: number of features kept; 0 keeps none.
        channels: length D of a feature.
    """

    def __init__(self, capacity: int, channels: int) -> None:
        super().__init__()
        self.feat_ND: Tensor
        self.label_N: Tensor
        self.pushed: Tensor
        self.register_buffer("feat_ND", torch.zeros(capacity, channels))
        self.register_buffer("label_N", torch.zeros(capacity, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))  # how many features ever came in

    @property
    def capacity(self) -> int:
        return len(self.label_N)

    def __len__(self) -> int:
        return min(int(self.pushed), self.capacity)

    def features(self) -> Tensor:
        """The features held, n x D with n <= capacity, in the order of their slots (a view)."""
        return self.feat_ND[: len(self)]

    def labels(self) -> Tensor:
        """The pseudo labels of `features`, n."""
        return self.label_N[: len(self)]

    @torch.no_grad()
    def push(self, feat_ND: Tensor, label_N: Tensor) -> None:
        """Put features and their labels in the place of the oldest ones."""
        if self.capacity == 0 or len(label_N) == 0:
            return
        feat_ND, label_N = feat_ND[-self.capacity :], label_N[-self.capacity :]
        slot_N = (self.pushed + torch.arange(len(label_N), device=self.pushed.device)) % self.capacity
        self.feat_ND[slot_N] = feat_ND.to(self.feat_ND.dtype)
        self.label_N[slot_N] = label_N
        self.pushed += len(label_N)
