"""Stage 1: the network and its pseudo labels improve each other (paper section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.replay import whole_to_weak
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.labels import IGNORE
from acclimate.networks import Features, Segmenter
from acclimate.selflabel import (
    Rectified,
    cluster_probabilities,
    cross_entropy,
    kl_divergence,
    reach,
    rectify,
    similarity_map,
    symmetric_cross_entropy,
    uniform_regulariser,
)
from acclimate.selflabel.precision import wide
from acclimate.stages.carry import Carrier
from acclimate.stages.clusters import Clusters
from acclimate.stages.cutmix import Patches, draw_patches
from acclimate.stages.initialise import Initial
from acclimate.stages.task import Task, by_class, optimizer_for


class Taught(NamedTuple):
    """What the teacher saw."""

    seen: Features
    """In the network's cells, on whatever it saw."""
    weak: Features
    """In the task's cells, on the weak view, float32."""


class Studied(NamedTuple):
    """What the student saw, in the network's cells."""

    source: Features
    strong: Features
    learned: Features
    """On the view whose rectified labels are learned: the strong one, or the weak one."""


class SelfLabelTask(Task):
    """Online rectification, class-balanced self-labelling and consistency.

    The teacher sees the weak view and labels it. The student sees the target's strong view, which serves both
    the rectified labels and the consistency (``target_view: strong``), or learns the labels from the weak view
    (``weak``, as in the paper).
    """

    def __init__(self, student: Segmenter, initial: Initial, choices: recipe.Recipe) -> None:
        self.stage = choices.selflabel
        noisy = self.stage.teacher_mode == "train"
        student.feat_dropped = noisy
        super().__init__(student, choices, self.stage, noisy, steady=choices.network.statistics == "target")
        self.clusters = Clusters(initial, self.stage, student.channels)
        self.carrier = Carrier(choices.augment, self.grid)
        prototypes = self.clusters.prototypes
        rate = self.lr * self.stage.prototype_factor
        group = {"params": list(prototypes.parameters()), "lr": rate, "weight_decay": self.stage.prototype_decay}
        self.optimizers = [optimizer_for(self, [group])]

    def step(self, batch: tuple[SourceBatch, TargetBatch]) -> dict[str, Tensor]:
        source, target = batch
        stage = self.stage
        taught = self._teach(target)
        rectified = self._rectify(taught, target)
        patches = draw_patches(source, self.grid, stage.cutmix, stage.cutmix_by)
        studied = self._study(source, target, patches)

        on_source = self.to_pixels(studied.source.logits_BKhw, source.label_BHW)
        terms = {"source": cross_entropy(on_source, source.label_BHW, IGNORE, self._balance(source.label_BHW))}
        if stage.weight_target or stage.weight_uniform:
            terms |= self._target_losses(studied.learned, rectified, target, patches)
        if stage.weight_consistency:
            terms["consistency"] = self._consistency(taught, rectified, studied.strong, target, patches)
        if stage.weight_selflabel or stage.weight_logits:
            terms |= self._self_labelling(taught, rectified)
        if stage.weight_contrast:
            terms["contrast"] = self._contrast(taught, studied.learned, rectified, target, patches)
        self.clusters.follow(rectified.label_Bhw)
        loss = sum(getattr(stage, f"weight_{name}") * term for name, term in terms.items())
        return {"loss": torch.as_tensor(loss), **terms, **self.clusters.shares}

    def after_step(self) -> None:
        super().after_step()
        self.clusters.prototypes.update()

    @torch.no_grad()
    def _teach(self, target: TargetBatch) -> Taught:
        """The teacher's features and logits, those of a whole image carried over to the weak view."""
        whole = self.stage.teacher_view == "whole"
        image_BCHW = target.whole_BCHW if whole else target.weak_BCHW
        seen = self.see(self.teacher, image_BCHW)
        maps = [self.to_grid(maps_BChw, image_BCHW.shape[-2:]) for maps_BChw in seen]
        if whole:
            scaled_B2, crop_B4, mirrored_B = target.placed_B7.split([2, 4, 1], dim=1)
            maps = [whole_to_weak(m, scaled_B2, crop_B4, mirrored_B[:, 0], self.grid.stride) for m in maps]
        return Taught(seen, Features(*maps))

    def _rectify(self, taught: Taught, target: TargetBatch) -> Rectified:
        """Labels of the weak view; IGNORE where it shows nothing of the image."""
        online = self.stage.labels == "online"
        soft_BKhw = taught.weak.logits_BKhw.softmax(dim=1) if online else target.soft_BKhw
        if self.stage.rectify:
            average_KD = self.clusters.prototypes.average_KD
            reach_K = reach(self.clusters.distribution_K) if self.stage.rectify_by == "shares" else None
            found = rectify(soft_BKhw, taught.weak.feat_BDhw, average_KD, self.stage.temperature, reach_K)
        else:
            confidence_Bhw, label_Bhw = soft_BKhw.max(dim=1)
            found = Rectified(label_Bhw, confidence_Bhw, soft_BKhw)
        return found._replace(label_Bhw=found.label_Bhw.where(target.valid_Bhw, IGNORE))

    def _study(self, source: SourceBatch, target: TargetBatch, patches: Patches) -> Studied:
        if self.stage.target_view == "strong":
            on_source, on_strong = self.study(source.image_BCHW, patches.paste(target.strong_BCHW))
            return Studied(on_source, on_strong, on_strong)
        return Studied(*self.study(source.image_BCHW, target.strong_BCHW, patches.paste(target.weak_BCHW)))

    def _labels(self, rectified: Rectified, target: TargetBatch) -> Tensor:
        """The rectified labels of the view they are learned on."""
        if self.stage.target_view == "weak":
            return rectified.label_Bhw
        return self.carrier.labels(rectified.label_Bhw, target, IGNORE)

    def _target_losses(
        self, learned: Features, rectified: Rectified, target: TargetBatch, patches: Patches
    ) -> dict[str, Tensor]:
        logits_BKhw = self.to_grid(learned.logits_BKhw, target.size_hw)
        label_Bhw = patches.paste_labels(self._labels(rectified, target))
        terms = {}
        if self.stage.weight_target:
            weight_Bhw = self._trust(rectified, target, patches) * self._balance(label_Bhw)
            terms["target"] = symmetric_cross_entropy(
                logits_BKhw, label_Bhw, self.stage.alpha, self.stage.beta, IGNORE, weight_Bhw
            )
        if self.stage.weight_uniform:
            terms["uniform"] = uniform_regulariser(logits_BKhw)
        return terms

    def _balance(self, label_BHW: Tensor) -> Tensor:
        """Weights of pixels by their class, so that rare ones count for more."""
        return by_class(self.clusters.balance(), label_BHW)

    def _trust(self, rectified: Rectified, target: TargetBatch, patches: Patches) -> Tensor:
        """How far the labels of the view they are learned on are trusted, 0 … 1; pasted ones are the source's own."""
        trust_Bhw = rectified.confidence_Bhw
        if self.stage.trust == "alike":
            return torch.ones_like(trust_Bhw)
        if self.stage.target_view == "strong":
            trust_Bhw = self.carrier(trust_Bhw[:, None], target, "nearest")[:, 0]
        return trust_Bhw.where(~patches.pasted_Bhw, 1.0)

    def _consistency(
        self, taught: Taught, rectified: Rectified, on_strong: Features, target: TargetBatch, patches: Patches
    ) -> Tensor:
        """KL of the clusters the teacher finds on the weak view and the student on the strong one (paper Eq. 14)."""
        temperature, average_KD = self.stage.temperature, self.clusters.prototypes.average_KD
        with torch.no_grad():
            prob_BKhw = rectified.weight_BKhw  # the very clusters that corrected the labels
            if not self.stage.rectify:
                prob_BKhw = cluster_probabilities(taught.weak.feat_BDhw, average_KD, temperature)
            prob_BKhw = self.carrier.probabilities(prob_BKhw, target)
            valid_Bhw = self.carrier.valid(target)
            if self.stage.target_view == "strong":
                valid_Bhw = valid_Bhw & ~patches.pasted_Bhw
        feat_BDhw = self.to_grid(on_strong.feat_BDhw, target.size_hw)
        student_BKhw = similarity_map(feat_BDhw, average_KD) / temperature
        return kl_divergence(prob_BKhw, student_BKhw, valid_Bhw, self.stage.kl_mean)

    def _self_labelling(self, taught: Taught, rectified: Rectified) -> dict[str, Tensor]:
        if self.stage.bank_labels == "misplaced":
            feat_BDhw, logits_BKhw = wide(taught.seen.feat_BDhw), wide(taught.seen.logits_BKhw)
            return self.clusters.losses(self.clusters.draw_misplaced(feat_BDhw, logits_BKhw, rectified.label_Bhw))
        weak = taught.weak
        return self.clusters.losses(self.clusters.draw(weak.feat_BDhw, weak.logits_BKhw, rectified.label_Bhw))

    def _contrast(
        self, taught: Taught, learned: Features, rectified: Rectified, target: TargetBatch, patches: Patches
    ) -> Tensor:
        whole_B = ~patches.drawn_B
        if self.stage.bank_labels == "misplaced":
            label_BP = self.clusters.misplace(rectified.label_Bhw, taught.seen.feat_BDhw)
            return self.clusters.contrast(wide(learned.feat_BDhw), label_BP, whole_B)
        feat_BDhw = self.to_grid(learned.feat_BDhw, target.size_hw)
        return self.clusters.contrast(feat_BDhw, self._labels(rectified, target).flatten(1), whole_B)
