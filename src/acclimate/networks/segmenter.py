"""The segmentation network: a backbone, a head whose features are clustered, and a linear classifier.

Every network takes RGB in [0, 1] of any size, normalises it by itself and answers at its own stride, so
that nothing outside this package knows of means, paddings or pyramids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import recipe
from acclimate.data.geometry import Grid
from acclimate.networks.backbones import Backbone

SMALLEST = 32
"""Least height and width in pixels of an image: below it the deepest maps have no extent."""


class Features(NamedTuple):
    """What a network says of a batch; h and w are ``grid.cells((H, W))``."""

    logits_BKhw: Tensor
    """Scores of the K classes, before softmax."""
    feat_BDhw: Tensor
    """The features that are clustered, before dropout unless ``feat_dropped``."""


class Segmenter(nn.Module):
    """What all segmentation networks share; a subclass gives ``features`` and ``classify``.

    Attributes:
        grid: where the cells of the output lie on the image.
        channels: D, of the features.
        num_classes: K.
        feat_dropped: whether the features given out are those behind the dropout.
        choices: what `build` made it from.
        layout: order of its values in memory, `lay_out`.
        multiple: sides of the image are padded to a multiple of it, on the right and at the bottom.
    """

    HEAD: tuple[str, ...]
    """Names of the submodules that belong to the head; all others are the backbone."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        grid: Grid,
        multiple: int = 1,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.num_classes, self.channels, self.grid, self.multiple = num_classes, channels, grid, multiple
        self.feat_dropped = False
        self.choices = recipe.Network()
        self.layout = torch.contiguous_format
        # Not part of the weights: the normalisation follows from the architecture and the backbone's name.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Features:
        """Logits and features of RGB images in [0, 1].

        Raises:
            ValueError: not a batch of RGB images, or smaller than 32 pixels.
        """
        height, width = image_BCHW.shape[-2:]
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or min(height, width) < SMALLEST:
            raise ValueError(f"expected shape (B, 3, H, W) with H, W >= {SMALLEST}, found {tuple(image_BCHW.shape)}")
        x = (image_BCHW.contiguous(memory_format=self.layout) - self.mean) / self.std
        # Zero is the mean colour here, and what convolutions see beyond the border anyway.
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        rows, columns = self.grid.cells((height, width))
        feat_BDhw = self.features(x)[..., :rows, :columns]
        dropped_BDhw = self.drop(feat_BDhw)
        return Features(self.classify(dropped_BDhw), dropped_BDhw if self.feat_dropped else feat_BDhw)

    def lay_out(self, layout: torch.memory_format) -> Self:
        """Have the weights, and the images that come, in this order in memory; returns the network itself."""
        self.layout = layout
        return self.to(memory_format=layout)

    @property
    def stride(self) -> int:
        """Pixels of the image per cell of the output."""
        return self.grid.stride

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features (B, D, h, w) of a normalised image whose sides are multiples of ``multiple``."""
        raise NotImplementedError

    def drop(self, feat_BDhw: Tensor) -> Tensor:
        """The features behind the dropout."""
        raise NotImplementedError

    def classify(self, dropped_BDhw: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the features behind the dropout."""
        raise NotImplementedError

    def directions(self) -> Tensor:
        """The classifier's weights K × D: the direction of each class in feature space."""
        raise NotImplementedError

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that start random and so learn at the head's rate."""
        return (p for name, p in self.named_parameters() if name.partition(".")[0] in self.HEAD)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that pre-training can give: all but the head's."""
        return (p for name, p in self.named_parameters() if name.partition(".")[0] not in self.HEAD)


class Light(Segmenter):
    """A timm backbone under a head that fuses its levels, stride 4.

    Dropout removes whole channels, as in the paper's network: neighbouring cells are so alike that
    dropping single values would hide nothing.
    """

    HEAD = ("head", "dropout", "classifier")

    def __init__(self, backbone: Backbone, head: nn.Module, num_classes: int, channels: int, dropout: float) -> None:
        super().__init__(
            num_classes=num_classes,
            channels=channels,
            grid=Grid(4),
            multiple=math.lcm(4, *backbone.strides),
            mean=backbone.mean,
            std=backbone.std,
        )
        self.backbone = backbone.network
        self.head = head
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def features(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.backbone(x_BCHW), (x_BCHW.shape[-2] // 4, x_BCHW.shape[-1] // 4))

    def drop(self, feat_BDhw: Tensor) -> Tensor:
        return self.dropout(feat_BDhw)

    def classify(self, dropped_BDhw: Tensor) -> Tensor:
        return self.classifier(dropped_BDhw)

    def directions(self) -> Tensor:
        return self.classifier.weight.detach()[:, :, 0, 0]


class Pyramid(nn.Module):
    """A light head, made for few images and a CPU.

    Walks from the coarsest level to the finest: bring in a level, blend, go on at the next size.

    The last blend ends in its normalisation, without ReLU: the features are clustered by cosine
    similarity, and centred values use the whole sphere where non-negative ones would crowd into one
    orthant, in which all classes look alike at a temperature of 0.08. GroupNorm because it is the same
    for any batch size, and for teacher and student.
    """

    def __init__(self, level_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, channels, 1, bias=False), group_norm(channels)) for c in level_channels
        )
        self.blends = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                group_norm(channels),
            )
            for _ in level_channels
        )

    def forward(self, levels: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """Features (B, D, h, w) at ``size_hw`` from maps that run from fine to coarse."""
        levels = levels[-len(self.laterals) :]  # without those finer than stride 4
        coarsest = len(levels) - 1
        x = self.blends[coarsest](self.laterals[coarsest](levels[coarsest]))
        for i in reversed(range(coarsest)):
            x = resize(F.relu(x), levels[i].shape[-2:])
            x = self.blends[i](x + self.laterals[i](levels[i]))
        return resize(x, size_hw)


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation within an image, in up to 16 groups of equal size."""
    return nn.GroupNorm(math.gcd(channels, 16), channels)


def resize(x_BDhw: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Bilinear resampling; the very map where the size is right already."""
    if x_BDhw.shape[-2:] == tuple(size_hw):
        return x_BDhw
    return F.interpolate(x_BDhw, tuple(size_hw), mode="bilinear", align_corners=False)
