"""Transformers that keep one stride from their first block to their last as backbones: DINOv2, DINOv3 and others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

LEVELS = 4
"""As many maps as a network of stages gives, so that the same heads fit both."""


class Columns(nn.Module):
    """The maps after four blocks of a timm transformer, evenly spaced up to the last.

    Each goes through the transformer's last normalisation, as in the segmentation of DINOv2 and DINOv3: some channels
    between blocks are hundreds of times larger than all others.

    Args:
        model: a timm model with ``blocks`` and ``forward_intermediates``; loses its classifier.

    Raises:
        AttributeError: it has none of the two.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.taken = list(model.prune_intermediate_layers(evenly(len(model.blocks)), prune_head=True))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Maps (B, D, H / stride, W / stride), from early to late; sides are multiples of the stride."""
        return self.model.forward_intermediates(x_BCHW, indices=self.taken, norm=True, intermediates_only=True)

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Channels and stride of each map."""
        return [(level["num_chs"], level["reduction"]) for level in (self.model.feature_info[i] for i in self.taken)]


def evenly(blocks: int) -> list[int]:
    """Numbers of up to four blocks: the last of each quarter."""
    return sorted({(i + 1) * blocks // LEVELS - 1 for i in range(LEVELS) if (i + 1) * blocks >= LEVELS})
