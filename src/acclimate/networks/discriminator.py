"""Judges, patch by patch, whether a segmentation was made from a source or a target image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


class Discriminator(nn.Module):
    """The fully convolutional discriminator of output-space alignment (AdaptSegNet, section 3.3).

    Four 4x4 convolutions of stride 2 and a last one to a single score, with leaky ReLUs between; no
    normalisation, so that source and target batches do not tell on themselves by their statistics.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.multiple = num_classes, 2 ** len(WIDTHS)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((num_classes, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        # 3x3 at the end, where AdaptSegNet halves once more: it judged maps at full resolution, these
        # are at the network's stride and may have one cell left.
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], 1, 3, padding=1))

    def forward(self, prob_BKhw: Tensor) -> Tensor:
        """Scores (B, 1, ceil(h / 16), ceil(w / 16)), without bounds, of softmax maps of any size."""
        height, width = prob_BKhw.shape[-2:]
        return self.layers(F.pad(prob_BKhw, (0, -width % self.multiple, 0, -height % self.multiple)))
