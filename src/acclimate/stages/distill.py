"""Stages 2 and 3: what one stage has learned is taught to a freshly initialised student."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.labels import IGNORE
from acclimate.networks import Segmenter
from acclimate.networks.execution import arrange
from acclimate.selflabel import class_weights, cross_entropy, kl_divergence, official_distillation
from acclimate.stages.carry import Carrier
from acclimate.stages.task import Task, by_class, optimizer_for


class DistillTask(Task):
    """Source labels, confident pseudo labels and the teacher's full distribution on the strong view.

    The teacher is the previous stage's model. Its flip-averaged soft labels were stored once for each image,
    and hard labels are where these are confident. Its full distribution comes from the same store, so that it
    is not run here; with ``distill.teacher: live`` it is run on the strong view in every step (official).

    Args:
        distribution_K: share of each class among the teacher's labels.
        live_teacher: needed for that; in eval mode, and never changed.
        goes_on: the student is the previous stage's model, and keeps the target's statistics if it has them.
    """

    def __init__(
        self,
        student: Segmenter,
        distribution_K: Tensor,
        choices: recipe.Recipe,
        live_teacher: Segmenter | None = None,
        goes_on: bool = False,
    ) -> None:
        self.stage = choices.distill
        steady = goes_on and choices.network.statistics == "target"
        super().__init__(student, choices, self.stage, steady=steady)
        self.weight_K: Tensor
        weight_K = class_weights(distribution_K.float(), self.stage.balance)
        self.register_buffer("weight_K", weight_K, persistent=False)
        self.optimizers = [optimizer_for(self)]
        self.carrier = Carrier(choices.augment, self.grid)
        self.live = [live_teacher] if live_teacher else []  # in a list: no part of the state that is saved
        for teacher in self.live:
            arrange(teacher, choices.network)

    def step(self, batch: tuple[SourceBatch, TargetBatch]) -> dict[str, Tensor]:
        source, target = batch
        on_source, on_target = (seen.logits_BKhw for seen in self.study(source.image_BCHW, target.strong_BCHW))
        label_BHW = source.label_BHW
        weight_BHW = by_class(self.weight_K, label_BHW)
        terms = {"source": cross_entropy(self.to_pixels(on_source, label_BHW), label_BHW, IGNORE, weight_BHW)}
        logits_BKhw = self.to_grid(on_target, target.size_hw)
        if self.stage.weight_target:
            terms["target"] = cross_entropy(logits_BKhw, self._labels(target), IGNORE)
        if self.stage.weight_distill:
            terms["distill"] = self._distillation(logits_BKhw, target)
        loss = sum(getattr(self.stage, f"weight_{name}") * term for name, term in terms.items())
        return {"loss": torch.as_tensor(loss), **terms}

    def _labels(self, target: TargetBatch) -> Tensor:
        """Confident hard labels in the strong view."""
        if self.carrier.replayed:  # the official order: first harden, then carry
            hard_Bhw = confident_labels(target.soft_BKhw, self.stage.threshold, target.valid_Bhw)
            return self.carrier.labels(hard_Bhw, target, IGNORE)
        soft_BKhw = self.carrier.probabilities(target.soft_BKhw, target)
        return confident_labels(soft_BKhw, self.stage.threshold, self.carrier.valid(target))

    def _distillation(self, logits_BKhw: Tensor, target: TargetBatch) -> Tensor:
        valid_Bhw = None
        if self.live:
            teacher_BKhw = self._run_teacher(target)
        else:
            teacher_BKhw = self._softened(self.carrier.probabilities(target.soft_BKhw, target))
            valid_Bhw = self.carrier.valid(target)
        logits_BKhw = logits_BKhw / self.stage.temperature
        if self.stage.divergence == "official":
            return official_distillation(teacher_BKhw, logits_BKhw)
        return kl_divergence(teacher_BKhw, logits_BKhw, valid_Bhw, self.stage.kl_mean)

    @torch.no_grad()
    def _run_teacher(self, target: TargetBatch) -> Tensor:
        logits_BKhw = self.see(self.live[0], target.strong_BCHW).logits_BKhw
        return (self.to_grid(logits_BKhw, target.size_hw) / self.stage.temperature).softmax(dim=1)

    def _softened(self, soft_BKhw: Tensor) -> Tensor:
        """The teacher's probabilities at the recipe's temperature, summing to 1."""
        powered_BKhw = soft_BKhw ** (1 / self.stage.temperature)
        return powered_BKhw / powered_BKhw.sum(dim=1, keepdim=True).clamp(min=1e-6)


def confident_labels(soft_BKhw: Tensor, threshold: float, valid_Bhw: Tensor) -> Tensor:
    """Hard labels where the probability exceeds the threshold and the pixel is valid, IGNORE elsewhere."""
    confidence_Bhw, label_Bhw = soft_BKhw.max(dim=1)
    return label_Bhw.where(valid_Bhw & (confidence_Bhw > threshold), IGNORE)
