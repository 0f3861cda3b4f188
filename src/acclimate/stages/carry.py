"""From the weak view to the strong one: how labels and probabilities follow the picture."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.geometry import Grid, resample
from acclimate.data.replay import replay
from acclimate.data.views import TargetBatch


class Carrier:
    """Carries maps in the cells of ``grid`` over to the strong view, as ``augment.label_geometry`` says."""

    def __init__(self, augment: recipe.Augment, grid: Grid) -> None:
        self.grid, self.replayed = grid, augment.label_geometry == "replayed"

    def __call__(
        self, maps_BChw: Tensor, target: TargetBatch, mode: Literal["bilinear", "nearest"], fill: float = 0.0
    ) -> Tensor:
        """The maps in the strong view, ``fill`` where it shows nothing of the weak one. Replaying is always nearest."""
        if self.replayed:
            return replay(maps_BChw, target.replay_BP, self.grid.stride, fill)
        frame = (target.size_hw, self.grid)
        return resample(maps_BChw, target.strong_to_weak_B33, frame, frame, mode, fill)

    def valid(self, target: TargetBatch) -> Tensor:
        """Bool (B, h, w): cells of the strong view that show a pixel of the image, not cut out."""
        if not self.replayed:
            return target.strong_valid_Bhw
        return self(target.valid_Bhw[:, None].float(), target, "nearest")[:, 0] > 0

    def probabilities(self, prob_BKhw: Tensor, target: TargetBatch) -> Tensor:
        """Class probabilities in the strong view; they sum to one where it shows something, else to zero."""
        carried_BKhw = self(prob_BKhw, target, "bilinear")
        return carried_BKhw / carried_BKhw.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def labels(self, label_Bhw: Tensor, target: TargetBatch, ignore: int) -> Tensor:
        """Labels in the strong view, ``ignore`` where there are none."""
        carried_B1hw = self(label_Bhw[:, None].float(), target, "nearest", fill=ignore)
        return torch.where(self.valid(target), carried_B1hw[:, 0].long(), ignore)
