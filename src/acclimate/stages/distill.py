"""Stages 2 and 3: what one stage has learned is taught to a freshly initialised student."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.geometry import resample
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.labels import IGNORE
from acclimate.networks import Segmenter
from acclimate.selflabel import cross_entropy, kl_divergence
from acclimate.stages.task import Task, optimizer_for, unit_image, upsample


class DistillTask(Task):
    """Source labels, confident pseudo labels and the teacher's full distribution on the strong view.

    The teacher is the previous stage's model, and it is not run here: its flip-averaged soft labels were
    stored once for each image, and hard labels are where these are confident. A true KL divergence with a
    mean over pixels (the official code feeds probabilities where log-probabilities belong).
    """

    def __init__(self, student: Segmenter, choices: recipe.Recipe) -> None:
        self.stage = choices.distill
        super().__init__(student, choices, self.stage.lr)
        self.optimizers = [optimizer_for(self)]

    def step(self, batch: tuple[SourceBatch, TargetBatch]) -> dict[str, Tensor]:
        source, target = batch
        count, stride = len(source.image_BCHW), self.student.stride
        image_BCHW = unit_image(torch.cat([source.image_BCHW, target.strong_BCHW]))
        logits_BKhw = self.see(self.student, image_BCHW).logits_BKhw.float()
        soft_BKhw = resample(
            target.soft_BKhw, target.strong_to_weak_B33, target.soft_BKhw.shape[-2:], stride, "bilinear"
        )
        valid_Bhw = target.strong_valid_Bhw
        terms = {"source": cross_entropy(upsample(logits_BKhw[:count], source.label_BHW, stride), source.label_BHW)}
        if self.stage.weight_target:
            label_Bhw = confident_labels(soft_BKhw, self.stage.threshold, valid_Bhw)
            terms["target"] = cross_entropy(logits_BKhw[count:], label_Bhw, IGNORE)
        if self.stage.weight_distill:
            teacher_BKhw = self._softened(soft_BKhw)
            terms["distill"] = kl_divergence(teacher_BKhw, logits_BKhw[count:] / self.stage.temperature, valid_Bhw)
        loss = sum(getattr(self.stage, f"weight_{name}") * term for name, term in terms.items())
        return {"loss": torch.as_tensor(loss), **terms}

    def _softened(self, soft_BKhw: Tensor) -> Tensor:
        """The teacher's probabilities at the recipe's temperature, summing to 1."""
        powered_BKhw = soft_BKhw ** (1 / self.stage.temperature)
        return powered_BKhw / powered_BKhw.sum(dim=1, keepdim=True).clamp(min=1e-6)


def confident_labels(soft_BKhw: Tensor, threshold: float, valid_Bhw: Tensor) -> Tensor:
    """Hard labels where the probability exceeds the threshold and the pixel is valid, IGNORE elsewhere."""
    confidence_Bhw, label_Bhw = soft_BKhw.max(dim=1)
    return label_Bhw.where(valid_Bhw & (confidence_Bhw > threshold), IGNORE)
