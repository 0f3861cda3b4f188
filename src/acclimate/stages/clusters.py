"""The clusters of stage 1: prototypes, memory banks and class distribution, and the losses that use them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import distributed, recipe
from acclimate.devices import upload
from acclimate.selflabel import (
    MemoryBank,
    Prototypes,
    class_weights,
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
        self.shares: dict[str, Tensor] = {}
        """Of each class, (K,), in the last step: of pseudo labels, of assignments, and what follows. For the log."""

    def follow(self, label_Bhw: Tensor) -> None:
        """Let the class distribution follow the pseudo labels."""
        self.shares["share_labels"] = follow(self.distribution_K, label_Bhw, self.stage.distribution_momentum)
        self.shares["share_average"] = self.distribution_K.clone()

    def balance(self) -> Tensor:
        """Weight of each class's pixels, (K,), by the class distribution."""
        return class_weights(self.distribution_K, self.stage.balance)

    def draw(self, feat_BDhw: Tensor, logits_BKhw: Tensor, label_Bhw: Tensor) -> list[Pixels]:
        """Labelled pixels of all processes' images, drawn at random: one group, or one for each image."""
        label_BP = distributed.gather_rows(label_Bhw.flatten(1).to(torch.uint8)).long()
        if self.stage.assign_by == "batch":
            chosen = [self._choose(label_BP.flatten(), len(label_BP))]
        else:
            length = label_BP.shape[1]
            chosen = [self._choose(label_P, 1) + image * length for image, label_P in enumerate(label_BP)]
        labels = [label_BP.flatten()[chosen_N] for chosen_N in chosen]
        return _pixels(feat_BDhw, logits_BKhw, chosen, labels)

    def draw_misplaced(self, feat_BDhw: Tensor, logits_BKhw: Tensor, label_Bhw: Tensor) -> list[Pixels]:
        """Any pixels of the teacher's maps, with labels of other pixels of another frame (official, defect B1)."""
        misplaced_BP = distributed.gather_rows(self.misplace(label_Bhw, feat_BDhw)[:, : self.stage.pixels].contiguous())
        cells = feat_BDhw.shape[2] * feat_BDhw.shape[3]
        chosen = [
            upload(torch.randperm(cells)[: self.stage.pixels], label_Bhw.device) + image * cells
            for image in range(len(misplaced_BP))
        ]
        return _pixels(feat_BDhw, logits_BKhw, chosen, list(misplaced_BP))

    @staticmethod
    def misplace(label_Bhw: Tensor, maps_BDhw: Tensor) -> Tensor:
        """The labels stretched over the teacher's map, B x P, as if both showed the same part of the image."""
        stretched_B1hw = F.interpolate(label_Bhw[:, None].float(), maps_BDhw.shape[-2:], mode="nearest")
        return stretched_B1hw.long().flatten(1)

    def losses(self, groups: list[Pixels]) -> dict[str, Tensor]:
        """Assign each group together with the banks, learn the prototypes from it, remember it (paper Eq. 6, 7)."""
        terms: dict[str, list[Tensor]] = {"selflabel": [], "logits": []}
        assigned = []
        for pixels in groups:
            proto_KD = self.prototypes.weight_KD
            current_NK = similarity(pixels.feat_ND, proto_KD).detach()
            assign_NK = self._assign(self._bank_scores(), current_NK)
            assigned.append(assign_NK.sum(0) / max(len(assign_NK), 1))
            self.bank.push(F.normalize(pixels.feat_ND, dim=1), pixels.label_N)
            terms["selflabel"].append(self_labelling(pixels.feat_ND, proto_KD, assign_NK, self.stage.temperature))
            if self.stage.weight_logits:
                unit_NK = F.normalize(pixels.logits_NK, dim=1)
                assign_NK = self._assign(self._remembered(self.logit_bank), unit_NK)
                self.logit_bank.push(unit_NK, pixels.label_N)
                terms["logits"].append(self_labelling(pixels.feat_ND, proto_KD, assign_NK, self.stage.temperature))
        self.shares["share_assignments"] = torch.stack(assigned).mean(0)
        return {name: torch.stack(values).mean() for name, values in terms.items() if values}

    def contrast(self, feat_BDhw: Tensor, label_BP: Tensor, whole_B: Tensor) -> Tensor:
        """Contrast of the student's pixels with the bank, in the images of ``whole_B``: those without a patch.

        Args:
            feat_BDhw: the student's features on the target.
            label_BP: labels of their cells, row by row; there may be more of them than cells.
            whole_B: bool for the images of all processes, on the CPU.
        """
        cells = feat_BDhw.shape[2] * feat_BDhw.shape[3]
        everyones_BP = distributed.gather_rows(label_BP[:, :cells].to(torch.uint8)).long()
        classes = len(self.distribution_K)
        images = whole_B.nonzero().flatten().tolist()
        chosen = [uniform_sample(everyones_BP[image], classes, self.stage.pixels) for image in images]
        if not any(map(len, chosen)) or not self._ready(self.bank):
            return feat_BDhw.sum() * 0
        label_N = torch.cat([everyones_BP[image][places] for image, places in zip(images, chosen, strict=True)])
        rows_N = torch.cat([places + image * cells for image, places in zip(images, chosen, strict=True)])
        feat_ND = distributed.fetch(feat_BDhw, rows_N)
        return contrast(feat_ND, label_N, self.bank.features(), self.bank.labels(), self.stage.temperature)

    def _choose(self, label_P: Tensor, images: int) -> Tensor:
        wanted = self.stage.pixels * images
        if self.stage.stratified:
            return stratified_sample(label_P, self.distribution_K, wanted)
        return uniform_sample(label_P, len(self.distribution_K), wanted)

    @torch.no_grad()
    def _assign(self, remembered_MK: Tensor, current_NK: Tensor) -> Tensor:
        shares_K = self.distribution_K if self.stage.align else torch.ones_like(self.distribution_K)
        return sinkhorn(current_NK, shares_K, self.stage.epsilon, self.stage.sinkhorn_iterations, remembered_MK)

    def _bank_scores(self) -> Tensor:
        """Of what the bank remembers, which has length 1 already: it is far too much to be measured in each step."""
        proto_KD = self.prototypes.weight_KD.detach()
        if self.stage.bank_scores == "cosine":
            proto_KD = F.normalize(proto_KD, dim=1)
        return dot_similarity(self._remembered(self.bank), proto_KD)

    def _remembered(self, bank: MemoryBank) -> Tensor:
        return bank.features() if self._ready(bank) else bank.features()[:0]

    def _ready(self, bank: MemoryBank) -> bool:
        """Whether the bank is used: as soon as it holds anything; image by image not before it is full (official)."""
        return len(bank) >= (bank.capacity if self.stage.assign_by == "image" else 1)


def _pixels(feat_BDhw: Tensor, logits_BKhw: Tensor, chosen: list[Tensor], labels: list[Tensor]) -> list[Pixels]:
    """Groups of the chosen rows of all processes' maps."""
    lengths = [len(chosen_N) for chosen_N in chosen]
    feat, logits = (distributed.fetch(maps, torch.cat(chosen)).split(lengths) for maps in (feat_BDhw, logits_BKhw))
    return [Pixels(*group) for group in zip(feat, logits, labels, strict=True)]
