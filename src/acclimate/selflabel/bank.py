"""Memory bank: the latest features of the target, so that assignments see more than one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from acclimate import distributed
from acclimate.devices import upload


class MemoryBank(nn.Module):
    """Ring buffer of unit features and their pseudo labels, first in, first out (paper section 3.3).

    A push writes in place: nothing grows and nothing is copied but the new rows. With many processes the slots
    are dealt out in turn (slot s lies with process s modulo their number), so that together they hold exactly
    what one would. ``state_dict`` has the whole bank whatever their number: it is called by all of them.

    Args:
        capacity: number of features kept by all processes; 0 keeps none.
        channels: length D of a feature.
    """

    def __init__(self, capacity: int, channels: int) -> None:
        super().__init__()
        self.capacity, self.pushed = capacity, 0
        self.feat_ND: Tensor
        self.label_N: Tensor
        held = self._held(capacity)
        self.register_buffer("feat_ND", torch.zeros(held, channels), persistent=False)
        self.register_buffer("label_N", torch.zeros(held, dtype=torch.long), persistent=False)

    def __len__(self) -> int:
        """Features held by all processes."""
        return min(self.pushed, self.capacity)

    def features(self) -> Tensor:
        """The features that this process holds, n x D, in the order of their slots (a view)."""
        return self.feat_ND[: self._held(len(self))]

    def labels(self) -> Tensor:
        """The pseudo labels of `features`, n."""
        return self.label_N[: self._held(len(self))]

    @torch.no_grad()
    def push(self, feat_ND: Tensor, label_N: Tensor) -> None:
        """Put features of length 1 and their labels, the same in all processes, in the place of the oldest ones."""
        if self.capacity == 0 or len(label_N) == 0:
            return
        feat_ND, label_N = feat_ND[-self.capacity :], label_N[-self.capacity :]
        slot_N = (self.pushed + torch.arange(len(label_N))) % self.capacity
        self.pushed += len(label_N)
        device = label_N.device
        if distributed.count() > 1:
            mine_N = (slot_N % distributed.count() == distributed.rank()).nonzero().squeeze(1)
            slot_N, mine_N = slot_N[mine_N] // distributed.count(), upload(mine_N, device)
            feat_ND, label_N = feat_ND[mine_N], label_N[mine_N]
        slot_N = upload(slot_N, device)
        self.feat_ND[slot_N] = feat_ND.to(self.feat_ND.dtype)
        self.label_N[slot_N] = label_N

    def _held(self, slots: int) -> int:
        """How many of the first slots are this process's."""
        return len(range(distributed.rank(), slots, distributed.count()))

    def get_extra_state(self) -> dict[str, Any]:
        """The whole bank, in the order of its slots."""
        return {"feat_ND": _woven(self.feat_ND, self.capacity), "label_N": _woven(self.label_N, self.capacity),
                "pushed": self.pushed}  # fmt: skip

    def set_extra_state(self, state: Any) -> None:
        """Inverse of `get_extra_state`, with any number of processes.

        Raises:
            ValueError: a bank of another size.
        """
        if state["feat_ND"].shape != (self.capacity, self.feat_ND.shape[1]):
            raise ValueError(f"a memory bank of {tuple(state['feat_ND'].shape)} where {self.capacity} slots are")
        own = slice(distributed.rank(), None, distributed.count())
        self.feat_ND.copy_(state["feat_ND"][own])
        self.label_N.copy_(state["label_N"][own])
        self.pushed = state["pushed"]


def _woven(own_NX: Tensor, capacity: int) -> Tensor:
    """The slots of all processes in their order, on the CPU."""
    if distributed.count() == 1:
        return own_NX.cpu()
    whole = torch.empty(capacity, *own_NX.shape[1:], dtype=own_NX.dtype)
    for rank, rows in enumerate(distributed.gather_rows_each(own_NX)):
        whole[rank :: distributed.count()] = rows.cpu()
    return whole
