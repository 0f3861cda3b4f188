"""Before self-labelling: plain training on source labels, and adversarial alignment of the outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import recipe
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.networks import Discriminator, Segmenter
from acclimate.selflabel.losses import cross_entropy
from acclimate.selflabel.precision import wide
from acclimate.stages.task import Task, optimizer_for


class SupervisedTask(Task):
    """Cross-entropy on labelled images: the source-only model, and the ceiling on target labels."""

    def __init__(self, student: Segmenter, choices: recipe.Recipe, stage: recipe.Supervised) -> None:
        super().__init__(student, choices, stage)
        self.optimizers = [optimizer_for(self)]

    def step(self, batch: SourceBatch) -> dict[str, Tensor]:
        logits_BKhw = self.see(self.student, batch.image_BCHW).logits_BKhw
        return {"loss": cross_entropy(self.to_pixels(logits_BKhw, batch.label_BHW), batch.label_BHW)}


class WarmupTask(Task):
    """Cross-entropy on source images, whose outputs a discriminator pulls the target's towards.

    Least-squares adversarial alignment of softmax maps (AdaptSegNet, CVPR 2018). One backward pass serves
    both players: the segmenter's term sees the discriminator's weights as constants, the discriminator's
    terms see the segmenter's outputs as constants. Source and target usually go through the network as one
    batch, so that its normalisation statistics are those of both domains, as they will be in the teacher.
    """

    def __init__(self, student: Segmenter, choices: recipe.Recipe) -> None:
        stage = choices.warmup
        super().__init__(student, choices, stage)
        self.optimizers = [optimizer_for(self)]
        self.weight = stage.adversarial_weight if stage.adversarial else 0.0
        if self.weight:
            self.discriminator = Discriminator(student.num_classes)
            parameters = self.discriminator.parameters()
            self.optimizers.append(
                torch.optim.Adam(parameters, lr=stage.discriminator_lr, betas=(0.9, 0.99), fused=True)
            )

    def step(self, batch: tuple[SourceBatch, TargetBatch]) -> dict[str, Tensor]:
        source, target = batch
        on_source, on_target = (wide(seen.logits_BKhw) for seen in self.study(source.image_BCHW, target.weak_BCHW))
        terms = {"source": cross_entropy(self.to_pixels(on_source, source.label_BHW), source.label_BHW)}
        if self.weight:
            terms |= self._adversarial(on_source.softmax(dim=1), on_target.softmax(dim=1))
        # The discriminator's loss touches its own weights only, so its weight in the sum is its own affair.
        loss = terms["source"] + self.weight * terms.get("adversarial", 0) + terms.get("discriminator", 0)
        return {"loss": loss, **terms}

    def _adversarial(self, source_BKhw: Tensor, target_BKhw: Tensor) -> dict[str, Tensor]:
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = torch.func.functional_call(self.discriminator, frozen, (target_BKhw,))
        on_source = self.discriminator(source_BKhw.detach())
        on_target = self.discriminator(target_BKhw.detach())
        return {
            "adversarial": (fooled - 1).square().mean(),
            "discriminator": 0.5 * ((on_source - 1).square().mean() + on_target.square().mean()),
        }
