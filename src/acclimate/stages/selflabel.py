"""Stage 1: the network and its pseudo labels improve each other (paper section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.geometry import resample
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.labels import IGNORE
from acclimate.networks import Features, Segmenter
from acclimate.selflabel import (
    MemoryBank,
    Prototypes,
    Rectified,
    cluster_probabilities,
    cross_entropy,
    follow,
    kl_divergence,
    rectify,
    self_labelling,
    similarity,
    similarity_map,
    sinkhorn,
    stratified_sample,
    symmetric_cross_entropy,
    uniform_sample,
)
from acclimate.stages.cutmix import Patches, draw_patches
from acclimate.stages.initialise import Initial
from acclimate.stages.task import Task, optimizer_for, unit_image, upsample


class SelfLabelTask(Task):
    """Online rectification, class-balanced self-labelling and consistency, with one student pass.

    The teacher sees the weak view and labels it. The student sees source and target as one batch: the
    target's strong view serves both the rectified labels and the consistency (``target_view: strong``), or
    the weak view is learned from in addition (``weak``, as in the paper).
    """

    def __init__(self, student: Segmenter, initial: Initial, choices: recipe.Recipe) -> None:
        self.stage = choices.selflabel
        super().__init__(student, choices, self.stage.lr)
        self.prototypes = Prototypes(initial.proto_KD, self.stage.prototype_momentum)
        self.bank = MemoryBank(self.stage.bank, student.channels)
        self.distribution_K: Tensor
        self.register_buffer("distribution_K", initial.distribution_K.float())
        rate = self.lr * self.stage.prototype_factor
        proto_group = {"params": list(self.prototypes.parameters()), "lr": rate, "weight_decay": 0.0}
        self.optimizers = [optimizer_for(self, [proto_group])]

    def step(self, batch: tuple[SourceBatch, TargetBatch]) -> dict[str, Tensor]:
        source, target = batch
        feat_BDhw = self._teach(target)
        rectified = self._rectify(feat_BDhw, target)
        patches = draw_patches(source, self.student.stride, self.stage.cutmix)
        on_source, on_strong, on_weak = self._study(source, target, patches)

        terms = {"source": cross_entropy(upsample(on_source, source.label_BHW, self.student.stride), source.label_BHW)}
        if self.stage.weight_target:
            terms["target"] = self._target_loss(on_strong, on_weak, rectified, target, patches)
        if self.stage.weight_consistency:
            terms["consistency"] = self._consistency(feat_BDhw, on_strong, target, patches)
        if self.stage.weight_selflabel:
            terms["selflabel"] = self._self_labelling(feat_BDhw, rectified.label_Bhw)
        follow(self.distribution_K, rectified.label_Bhw, self.stage.distribution_momentum)
        loss = sum(getattr(self.stage, f"weight_{name}") * term for name, term in terms.items())
        return {"loss": torch.as_tensor(loss), **terms}

    def after_step(self) -> None:
        super().after_step()
        self.prototypes.update()

    @torch.no_grad()
    def _teach(self, target: TargetBatch) -> Tensor:
        return self.see(self.teacher, unit_image(target.weak_BCHW)).feat_BDhw.float()

    def _rectify(self, feat_BDhw: Tensor, target: TargetBatch) -> Rectified:
        """Labels of the weak view; IGNORE where it shows nothing of the image."""
        if self.stage.rectify:
            found = rectify(target.soft_BKhw, feat_BDhw, self.prototypes.average_KD, self.stage.temperature)
        else:
            confidence_Bhw, label_Bhw = target.soft_BKhw.max(dim=1)
            found = Rectified(label_Bhw, confidence_Bhw, target.soft_BKhw)
        return found._replace(label_Bhw=found.label_Bhw.where(target.valid_Bhw, IGNORE))

    def _study(
        self, source: SourceBatch, target: TargetBatch, patches: Patches
    ) -> tuple[Tensor, Features, Tensor | None]:
        """Student logits on source, features on the strong view, and logits on the weak view if it is learned."""
        weak = self.stage.target_view == "weak" and self.stage.weight_target > 0
        strong_BCHW = target.strong_BCHW if weak else patches.paste(target.strong_BCHW)
        views = [source.image_BCHW, strong_BCHW] + ([patches.paste(target.weak_BCHW)] if weak else [])
        logits, feat = self.see(self.student, unit_image(torch.cat(views)))
        count = len(source.image_BCHW)
        on_strong = Features(logits[count : 2 * count], feat[count : 2 * count])
        return logits[:count], on_strong, logits[2 * count :] if weak else None

    def _target_loss(
        self, on_strong: Features, on_weak: Tensor | None, rectified: Rectified, target: TargetBatch, patches: Patches
    ) -> Tensor:
        if on_weak is not None:
            logits_BKhw, label_Bhw = on_weak, rectified.label_Bhw
        else:
            logits_BKhw, label_Bhw = on_strong.logits_BKhw, self._to_strong_labels(rectified.label_Bhw, target)
        return symmetric_cross_entropy(
            logits_BKhw, patches.paste_labels(label_Bhw), self.stage.alpha, self.stage.beta, IGNORE
        )

    def _to_strong_labels(self, label_Bhw: Tensor, target: TargetBatch) -> Tensor:
        size_hw, stride = label_Bhw.shape[-2:], self.student.stride
        moved = resample(label_Bhw[:, None], target.strong_to_weak_B33, size_hw, stride, "nearest", fill=IGNORE)
        return moved[:, 0].where(target.strong_valid_Bhw, IGNORE)

    def _consistency(self, feat_BDhw: Tensor, on_strong: Features, target: TargetBatch, patches: Patches) -> Tensor:
        """KL of the clusters the teacher finds on the weak view and the student on the strong one (paper Eq. 14)."""
        temperature = self.stage.temperature
        with torch.no_grad():
            prob_BKhw = cluster_probabilities(feat_BDhw, self.prototypes.average_KD, temperature)
            prob_BKhw = resample(
                prob_BKhw, target.strong_to_weak_B33, prob_BKhw.shape[-2:], self.student.stride, "bilinear"
            )
            prob_BKhw = prob_BKhw / prob_BKhw.sum(dim=1, keepdim=True).clamp(min=1e-6)
        student_BKhw = similarity_map(on_strong.feat_BDhw, self.prototypes.weight_KD) / temperature
        valid_Bhw = target.strong_valid_Bhw
        if self.stage.target_view == "strong":
            valid_Bhw = valid_Bhw & ~patches.pasted_Bhw
        return kl_divergence(prob_BKhw, student_BKhw, valid_Bhw)

    def _self_labelling(self, feat_BDhw: Tensor, label_Bhw: Tensor) -> Tensor:
        """Assign bank and current pixels together, learn the prototypes from the current ones, then remember them."""
        classes = len(self.distribution_K)
        feat_PD, label_P = feat_BDhw.movedim(1, -1).flatten(0, 2), label_Bhw.flatten()
        wanted = self.stage.pixels * len(label_Bhw)
        if self.stage.stratified:
            chosen = stratified_sample(label_P, self.distribution_K, wanted)
        else:
            chosen = uniform_sample(label_P, classes, wanted)
        feat_ND = feat_PD[chosen]
        proto_KD = self.prototypes.weight_KD
        with torch.no_grad():
            scores_NK = similarity(torch.cat([self.bank.features(), feat_ND]), proto_KD)
            shares_K = self.distribution_K if self.stage.align else torch.ones_like(self.distribution_K)
            assign_NK = sinkhorn(scores_NK, shares_K, self.stage.epsilon, self.stage.sinkhorn_iterations)
        self.bank.push(feat_ND, label_P[chosen])
        current_NK = assign_NK[len(assign_NK) - len(chosen) :]
        return self_labelling(feat_ND, proto_KD, current_NK, self.stage.temperature)
