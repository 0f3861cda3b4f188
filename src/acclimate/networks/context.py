"""DAFormer's head: all levels at the finest one's size, and beside each cell what lies around it, near and far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acclimate.networks.segmenter import group_norm, resize

DILATIONS = (1, 6, 12, 18)
STRIDES = (4, 8, 16, 32)
"""Of the levels that the head was made for."""


class Context(nn.Module):
    """Context-aware fusion (Hoyer et al., CVPR 2022), with GroupNorm and, as `Pyramid`, without a ReLU at its end.

    Levels of a transformer that keeps one stride are unfolded first, the earliest to a quarter of its stride and the
    next to half of it (as in Li et al., ECCV 2022): a token describes all of its patch, and transposed convolutions
    spread that over the patch.

    Args:
        level_channels: of the maps that it will be given, from fine to coarse.
        level_strides: of the same maps.
        channels: D, of the features.
    """

    def __init__(self, level_channels: Sequence[int], level_strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(
            _embed(c, channels, times=max(1, round(stride / wanted)))
            for c, stride, wanted in zip(level_channels, level_strides, STRIDES, strict=False)
        )
        joined = len(self.embeds) * channels
        self.branches = nn.ModuleList(_branch(joined, channels, dilation) for dilation in DILATIONS)
        self.fuse = nn.Sequential(
            nn.Conv2d(len(DILATIONS) * channels, channels, 3, padding=1, bias=False), group_norm(channels)
        )

    def forward(self, levels: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """Features (B, D, h, w) at ``size_hw`` from maps that run from fine to coarse."""
        levels = levels[-len(self.embeds) :]  # without those finer than stride 4
        embedded = [embed(level) for embed, level in zip(self.embeds, levels, strict=True)]
        finest = embedded[0].shape[-2:]
        x = torch.cat([resize(level, finest) for level in embedded], dim=1)
        return resize(self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1)), size_hw)


def _embed(inputs: int, channels: int, times: int) -> nn.Sequential:
    """A level in D channels, ``times`` as large a side."""
    unfold = [nn.ConvTranspose2d(channels, channels, times, stride=times, bias=False)] if times > 1 else []
    return nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), *unfold, group_norm(channels))


def _branch(inputs: int, channels: int, dilation: int) -> nn.Sequential:
    around = (
        []
        if dilation == 1
        else [nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)]
    )
    return nn.Sequential(*around, nn.Conv2d(inputs, channels, 1, bias=False), group_norm(channels), nn.ReLU())
