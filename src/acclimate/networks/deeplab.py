"""The paper's network: modified DeepLab-v2 on ResNet-101 at stride 8.

As in ProDA, whose official checkpoints CPSL starts from; names, order and shapes of the tensors are
those of the official implementation, so that its checkpoints load unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.data.geometry import Grid
from acclimate.networks.segmenter import Segmenter

BLOCKS = (3, 4, 23, 3)
"""Of ResNet-101."""
HEAD_DILATIONS = (6, 12, 18, 24)


class DeepLab(Segmenter):
    """ResNet-101 with dilated last stages, a head of five branches, and a classifier without bias.

    Images are *not* normalised beyond [0, 1], as in the paper. Maps are aligned at the corners, with one
    more row and column where a side is a multiple of 8: they are enlarged with ``align_corners=True``.

    Args:
        num_classes: K.
        dropout: probability of removing a channel before the classifier.
        extra_norm: a BatchNorm on the backbone's output, which self-supervised weights need.
    """

    HEAD = ("layer5", "bn_pretrain")

    def __init__(self, num_classes: int, dropout: float = 0.1, extra_norm: bool = False) -> None:
        super().__init__(num_classes=num_classes, channels=256, grid=Grid(8, corners=True, beyond=True))
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, BLOCKS[0], stride=1, dilation=1)
        self.layer2 = _stage(256, 128, BLOCKS[1], stride=2, dilation=1)
        self.layer3 = _stage(512, 256, BLOCKS[2], stride=1, dilation=2)
        self.layer4 = _stage(1024, 512, BLOCKS[3], stride=1, dilation=4)
        self.layer5 = Head(2048, self.channels, num_classes, dropout)
        self.bn_pretrain = nn.BatchNorm2d(2048) if extra_norm else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)  # as the official code starts it

    def features(self, x_BCHW: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x_BCHW)))
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.layer5(self.bn_pretrain(x))

    def drop(self, feat_BDhw: Tensor) -> Tensor:
        return self.layer5.head[0](feat_BDhw)

    def classify(self, dropped_BDhw: Tensor) -> Tensor:
        return self.layer5.head[1](dropped_BDhw)

    def directions(self) -> Tensor:
        return self.layer5.head[1].get_parameter("weight").detach()[:, :, 0, 0]


class Bottleneck(nn.Module):
    """1x1 → dilated 3x3 → 1x1 beside the identity; the stride is on the first, as in the original ResNet."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, downsample: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if downsample
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Head(nn.Module):
    """Five branches → squeeze-and-excitation → 3x3 to the features; ``head`` is dropout and classifier."""

    def __init__(self, inputs: int, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        pointwise = nn.Conv2d(inputs, channels, 1)
        dilated = (nn.Conv2d(inputs, channels, 3, padding=d, dilation=d) for d in HEAD_DILATIONS)
        self.conv2d_list = nn.ModuleList(
            nn.Sequential(conv, nn.GroupNorm(32, channels), nn.ReLU()) for conv in (pointwise, *dilated)
        )
        joined = len(self.conv2d_list) * channels
        self.bottleneck = nn.Sequential(
            SqueezeExcite(joined), nn.Conv2d(joined, channels, 3, padding=1), nn.GroupNorm(32, channels)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Features, before dropout."""
        return self.bottleneck(torch.cat([branch(x) for branch in self.conv2d_list], dim=1))


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole map holds."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Linear(channels, channels // ratio), nn.ReLU(), nn.Linear(channels // ratio, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.se(x.mean(dim=(2, 3)))[:, :, None, None]


def _stage(inputs: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, dilation, downsample=True)
    rest = (Bottleneck(4 * width, width, 1, dilation, downsample=False) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
