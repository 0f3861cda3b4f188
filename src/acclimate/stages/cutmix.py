"""CutMix from source: a region of a source image, with its labels, pasted into a target view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.data.views import SourceBatch


@dataclass(frozen=True)
class Patches:
    """One rectangle per image, aligned to the network's stride; empty where nothing is pasted."""

    source: SourceBatch
    pasted_Bhw: Tensor
    """bool at stride: inside the pasted region."""
    stride: int

    def paste(self, image_BCHW: Tensor) -> Tensor:
        """The images with the source's regions pasted in."""
        full_BHW = self.pasted_Bhw.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
        height, width = image_BCHW.shape[-2:]
        return torch.where(full_BHW[:, None, :height, :width], self.source.image_BCHW, image_BCHW)

    def paste_labels(self, label_Bhw: Tensor) -> Tensor:
        """Labels at stride with the source's (taken at the centres of the cells) pasted in."""
        middle = self.stride // 2
        label_BHW = self.source.label_BHW
        rows, columns = (
            (torch.arange(cells, device=label_Bhw.device) * self.stride + middle).clamp(max=pixels - 1)
            for cells, pixels in zip(label_Bhw.shape[1:], label_BHW.shape[1:], strict=True)
        )
        return torch.where(self.pasted_Bhw, label_BHW[:, rows][:, :, columns], label_Bhw)


def draw_patches(source: SourceBatch, stride: int, probability: float) -> Patches:
    """For each image, with the given probability, a rectangle of half the area with random place and aspect."""
    count, _, height, width = source.image_BCHW.shape
    rows, columns = -(-height // stride), -(-width // stride)
    chance, aspect, top, left = torch.rand(4, count).unbind()
    # Half the area for any aspect: the height's share runs from 1/2 to 1, the width's is 1/2 over it.
    share_h = 0.5 ** (1 - aspect)
    size_h, size_w = (share_h * rows).round(), (0.5 / share_h * columns).round()
    y0, x0 = (top * (rows - size_h + 1)).floor(), (left * (columns - size_w + 1)).floor()
    y, x = torch.arange(rows)[None, :, None], torch.arange(columns)[None, None, :]
    inside_h = (y >= y0[:, None, None]) & (y < (y0 + size_h)[:, None, None])
    inside_w = (x >= x0[:, None, None]) & (x < (x0 + size_w)[:, None, None])
    pasted_Bhw = inside_h & inside_w & (chance < probability)[:, None, None]
    return Patches(source, pasted_Bhw.to(source.image_BCHW.device), stride)
