"""The clusters of stage 1: prototypes, memory banks and class distribution, and the losses that use them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import recipe
from acclimate.selflabel import (
    MemoryBank,
    Prototypes,
    contrast,
    dot_similarity,
    follow,
    self_labelling,
    similarity,
    sinkhorn,
    stratified_sample,
    uniform_sample,
)
from acclimate.stages.initialise import Initial


class Pixels(NamedTuple):
    """Pixels that are assigned to clusters together."""

    feat_ND: Tensor
    logits_NK: Tensor
    label_N: Tensor
    """Pseudo labels."""


class Clusters(nn.Module):
    """All that stage 1 knows of the target's clusters.

    Args:
        initial: prototypes and class distribution of the initialisation.
        stage: the recipe's section.
        channels: D, of the features.
    """

    def __init__(self, initial: Initial, stage: recipe.SelfLabel, channels: int) -> None:
        super().__init__()
        self.stage = stage
        self.prototypes = Prototypes(initial.proto_KD, stage.prototype_momentum)
        self.bank = MemoryBank(stage.bank, channels)
        self.logit_bank = MemoryBank(stage.bank if stage.weight_logits else 0, len(initial.distribution_K))
        self.distribution_K: Tensor
        self.register_buffer("distribution_K", initial.distribution_K.float())

    def follow(self, label_Bhw: Tensor) -> None:
        """Let the class distribution follow the pseudo labels."""
        follow(self.distribution_K, label_Bhw, self.stage.distribution_momentum)

    def draw(self, feat_BDhw: Tensor, logits_BKhw: Tensor, label_Bhw: Tensor) -> list[Pixels]:
        """Labelled pixels of a batch, drawn at random: one group, or one for each image."""
        if self.stage.assign_by == "batch":
            return [self._draw(feat_BDhw, logits_BKhw, label_Bhw)]
        views = zip(feat_BDhw.split(1), logits_BKhw.split(1), label_Bhw.split(1), strict=True)
        return [self._draw(*view) for view in views]

    def draw_misplaced(self, feat_BDhw: Tensor, logits_BKhw: Tensor, label_Bhw: Tensor) -> list[Pixels]:
        """Any pixels of the teacher's maps, with labels of other pixels of another frame (official, defect B1)."""
        misplaced_BP = self.misplace(label_Bhw, feat_BDhw)
        groups = []
        for *maps, label_P in zip(feat_BDhw.split(1), logits_BKhw.split(1), misplaced_BP, strict=True):
            chosen = torch.randperm(len(label_P))[: self.stage.pixels].to(label_P.device)
            feat_ND, logits_NK = (_rows(maps_1Chw)[chosen] for maps_1Chw in maps)
            groups.append(Pixels(feat_ND, logits_NK, label_P[: len(chosen)]))
        return groups

    @staticmethod
    def misplace(label_Bhw: Tensor, maps_BDhw: Tensor) -> Tensor:
        """The labels stretched over the teacher's map, B x P, as if both showed the same part of the image."""
        stretched_B1hw = F.interpolate(label_Bhw[:, None].float(), maps_BDhw.shape[-2:], mode="nearest")
        return stretched_B1hw.long().flatten(1)

    def losses(self, groups: list[Pixels]) -> dict[str, Tensor]:
        """Assign each group together with the banks, learn the prototypes from it, remember it (paper Eq. 6, 7)."""
        terms: dict[str, list[Tensor]] = {"selflabel": [], "logits": []}
        for pixels in groups:
            proto_KD = self.prototypes.weight_KD
            current_NK = similarity(pixels.feat_ND, proto_KD).detach()
            assign_NK = self._assign(self._bank_scores(), current_NK)
            self.bank.push(F.normalize(pixels.feat_ND, dim=1), pixels.label_N)
            terms["selflabel"].append(self_labelling(pixels.feat_ND, proto_KD, assign_NK, self.stage.temperature))
            if self.stage.weight_logits:
                unit_NK = F.normalize(pixels.logits_NK, dim=1)
                assign_NK = self._assign(self._remembered(self.logit_bank), unit_NK)
                self.logit_bank.push(unit_NK, pixels.label_N)
                terms["logits"].append(self_labelling(pixels.feat_ND, proto_KD, assign_NK, self.stage.temperature))
        return {name: torch.stack(values).mean() for name, values in terms.items() if values}

    def contrast(self, feat_BDhw: Tensor, label_BP: Tensor, whole_B: Tensor) -> Tensor:
        """Contrast of the student's pixels with the bank, in the images of ``whole_B`` (bool): those without a patch.

        Args:
            feat_BDhw: the student's features on the target.
            label_BP: labels of their cells, row by row; there may be more of them than cells.
            whole_B: on the CPU.
        """
        bank_MD = self._remembered(self.bank)
        values = []
        for image in whole_B.nonzero().flatten().tolist():
            feat_PD, label_P = _rows(feat_BDhw[image : image + 1]), label_BP[image]
            chosen = uniform_sample(label_P[: len(feat_PD)], len(self.distribution_K), self.stage.pixels)
            if len(bank_MD) and len(chosen):
                bank_label_M = self.bank.labels()
                values.append(contrast(feat_PD[chosen], label_P[chosen], bank_MD, bank_label_M, self.stage.temperature))
        return torch.stack(values).mean() if values else feat_BDhw.sum() * 0

    def _draw(self, feat_BDhw: Tensor, logits_BKhw: Tensor, label_Bhw: Tensor) -> Pixels:
        label_P, wanted = label_Bhw.flatten(), self.stage.pixels * len(label_Bhw)
        if self.stage.stratified:
            chosen = stratified_sample(label_P, self.distribution_K, wanted)
        else:
            chosen = uniform_sample(label_P, len(self.distribution_K), wanted)
        return Pixels(_rows(feat_BDhw)[chosen], _rows(logits_BKhw)[chosen], label_P[chosen])

    @torch.no_grad()
    def _assign(self, remembered_MK: Tensor, current_NK: Tensor) -> Tensor:
        shares_K = self.distribution_K if self.stage.align else torch.ones_like(self.distribution_K)
        scores_NK = torch.cat([remembered_MK, current_NK])
        assign_NK = sinkhorn(scores_NK, shares_K, self.stage.epsilon, self.stage.sinkhorn_iterations)
        return assign_NK[len(remembered_MK) :]

    def _bank_scores(self) -> Tensor:
        scored = similarity if self.stage.bank_scores == "cosine" else dot_similarity
        return scored(self._remembered(self.bank), self.prototypes.weight_KD.detach())

    def _remembered(self, bank: MemoryBank) -> Tensor:
        """What the bank holds; image by image it is not used until it is full (official)."""
        waits = self.stage.assign_by == "image" and len(bank) < bank.capacity
        return bank.features()[:0] if waits else bank.features()


def _rows(maps_BChw: Tensor) -> Tensor:
    """Maps as one row per cell, (B h w) x C."""
    return maps_BChw.movedim(1, -1).flatten(0, 2)
