"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.networks.segmenter import Features, Segmenter


class Average(nn.Module):
    """A copy of a network that follows it: F' ← m·F' + (1 - m)·F after every step.

    Without gradients, and in eval mode (no dropout, BatchNorm with its averaged statistics) unless it is
    ``noisy``. The momentum rises to its value as min(m, (1 + t) / (10 + t)), so that the random head of the
    start is soon forgotten. The number of updates t is part of ``state_dict``: a continued run goes on exactly.

    Args:
        student: what is followed.
        momentum: m, below 1.
        ramped: False: m from the first update on, and BatchNorm's statistics are the student's (official).
        noisy: always in train mode instead (official, defect B3).

    Attributes:
        network: the averaged network.
        updates: t.
    """

    def __init__(self, student: Segmenter, momentum: float, ramped: bool = True, noisy: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.ramped, self.noisy, self.updates = momentum, ramped, noisy, 0
        self.train()

    def train(self, mode: bool = True) -> Average:
        """Keeps its mode, whatever is asked: a teacher with dropout would cluster noise."""
        return super().train(self.noisy)

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor) -> Features:
        """Logits and features of the averaged network."""
        return self.network(image_BCHW)

    @torch.no_grad()
    def update(self, student: Segmenter) -> None:
        """Move towards ``student``: parameters (and with ``ramped`` statistics) are averaged, the rest copied."""
        momentum = min(self.momentum, (1 + self.updates) / (10 + self.updates)) if self.ramped else self.momentum
        pairs = list(zip(self.network.parameters(), student.parameters(), strict=True))
        buffers = list(zip(self.network.buffers(), student.buffers(), strict=True))
        pairs += [pair for pair in buffers if self.ramped and pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in pairs], [other for _, other in pairs], 1 - momentum)
        for own, other in buffers:
            if not (self.ramped and own.is_floating_point()):
                own.copy_(other)
        self.updates += 1

    def get_extra_state(self) -> int:
        """The number of updates, which ``state_dict`` carries."""
        return self.updates

    def set_extra_state(self, state: Any) -> None:
        """Inverse of `get_extra_state`."""
        self.updates = int(state)
