"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.networks.segmenter import Features, Segmenter


class Average(nn.Module):
    """A copy of a network that follows it: F' ← m·F' + (1 - m)·F after every step.

    Always in eval mode (no dropout, BatchNorm with its averaged statistics) and without gradients. The
    momentum rises to its value as min(m, (1 + t) / (10 + t)), so that the random head of the start is
    soon forgotten. The number of updates t is part of ``state_dict``: a continued run goes on exactly.

    Attributes:
        network: the averaged network.
        momentum: m, below 1.
        updates: t.
    """

    def __init__(self, student: Segmenter, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.updates = momentum, 0
        self.eval()

    def train(self, mode: bool = True) -> Average:
        """Keeps eval mode, whatever is asked: a teacher with dropout would cluster noise."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> Features:
        """Logits and features of the averaged network."""
        return self.network(image_BCHW)

    @torch.no_grad()
    def update(self, student: Segmenter) -> None:
        """Move towards ``student``: parameters and statistics are averaged, counters copied."""
        momentum = min(self.momentum, (1 + self.updates) / (10 + self.updates))
        mine, theirs = _tensors(self.network), _tensors(student)
        torch._foreach_lerp_(
            [x for x in mine if x.is_floating_point()], [x for x in theirs if x.is_floating_point()], 1 - momentum
        )
        for own, other in zip(mine, theirs, strict=True):
            if not own.is_floating_point():
                own.copy_(other)
        self.updates += 1

    def get_extra_state(self) -> int:
        """The number of updates, which ``state_dict`` carries."""
        return self.updates

    def set_extra_state(self, state: Any) -> None:
        """Inverse of `get_extra_state`."""
        self.updates = int(state)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
