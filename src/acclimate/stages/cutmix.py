"""CutMix from source: a region of a source image, with its labels, pasted into a target view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from acclimate import distributed
from acclimate.data.geometry import Grid
from acclimate.data.views import SourceBatch
from acclimate.devices import upload


@dataclass(frozen=True)
class Patches:
    """One rectangle per image, aligned to the grid's stride; empty where nothing is pasted."""

    source: SourceBatch
    pasted_Bhw: Tensor
    """bool in the grid's cells: inside the pasted region."""
    drawn_B: Tensor
    """bool, on the CPU: which images of all processes have a patch."""
    grid: Grid

    def paste(self, image_BCHW: Tensor) -> Tensor:
        """The images with the source's regions pasted in."""
        stride = self.grid.stride
        full_BHW = self.pasted_Bhw.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        height, width = image_BCHW.shape[-2:]
        return torch.where(full_BHW[:, None, :height, :width], self.source.image_BCHW, image_BCHW)

    def paste_labels(self, label_Bhw: Tensor) -> Tensor:
        """Labels in the grid's cells with the source's (taken at the centres of the cells) pasted in."""
        label_BHW = self.source.label_BHW
        rows, columns = (
            upload(torch.from_numpy(self.grid.centres(pixels)).long().clamp(max=pixels - 1), label_BHW.device)
            for pixels in label_BHW.shape[1:]
        )
        return torch.where(self.pasted_Bhw, label_BHW[:, rows][:, :, columns], label_Bhw)


def draw_patches(
    source: SourceBatch, grid: Grid, probability: float, by: Literal["image", "batch"] = "image"
) -> Patches:
    """With the given probability, a rectangle of half the area with random place and aspect.

    Drawn for each image, or ``by`` batch: one for all of its images.
    """
    count, _, height, width = source.image_BCHW.shape
    rows, columns = grid.cells((height, width))
    everyone = count * distributed.count()  # all draw for all, so that each image gets what it would get in one process
    drawn_4B = torch.rand(4, everyone if by == "image" else 1).expand(4, everyone)
    drawn_B = drawn_4B[0] < probability
    chance, aspect, top, left = drawn_4B[:, count * distributed.rank() :][:, :count].unbind()
    # Half the area for any aspect: the height's share runs from 1/2 to 1, the width's is 1/2 over it.
    share_h = 0.5 ** (1 - aspect)
    size_h, size_w = (share_h * rows).round(), (0.5 / share_h * columns).round()
    y0, x0 = (top * (rows - size_h + 1)).floor(), (left * (columns - size_w + 1)).floor()
    y, x = torch.arange(rows)[None, :, None], torch.arange(columns)[None, None, :]
    inside_h = (y >= y0[:, None, None]) & (y < (y0 + size_h)[:, None, None])
    inside_w = (x >= x0[:, None, None]) & (x < (x0 + size_w)[:, None, None])
    pasted_Bhw = inside_h & inside_w & (chance < probability)[:, None, None]
    return Patches(source, upload(pasted_Bhw, source.image_BCHW.device), drawn_B, grid)
