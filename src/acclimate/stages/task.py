"""What every stage shares: a student that learns, and its moving average that is kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate import recipe
from acclimate.networks import Average, Features, Segmenter


class Task(nn.Module):
    """One stage's learning problem. The loop in `acclimate.training` calls it and knows nothing else of it.

    All that changes while it learns is a parameter or buffer of this module or state of its optimisers, so
    that saving the two is saving the stage.

    Args:
        student: the network that learns.
        choices: the whole recipe.
        lr: the stage's own learning rate, or 0 for the optimiser's.
    """

    def __init__(self, student: Segmenter, choices: recipe.Recipe, lr: float) -> None:
        super().__init__()
        self.student = student
        self.average = Average(student, choices.optimizer.ema)
        self.choices = choices
        self.lr = lr or choices.optimizer.lr
        self.optimizers: list[torch.optim.Optimizer] = []

    def step(self, batch: Any) -> dict[str, Tensor]:
        """Loss terms of a batch as scalars; ``loss`` is the one to descend, the others are for the log."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Let the averages follow, once the optimisers have stepped."""
        self.average.update(self.student)

    @property
    def teacher(self) -> Segmenter:
        """The averaged student, in eval mode: it labels, and it is what a stage leaves behind."""
        return self.average.network

    def see(self, network: nn.Module, image_BCHW: Tensor) -> Features:
        """Run a network on images in [0, 1] in the recipe's precision."""
        half = self.choices.precision == "bfloat16"
        with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=half):
            return network(image_BCHW)


def optimizer_for(task: Task, extra: list[dict[str, Any]] | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser over the student's backbone, its head (faster), and further groups."""
    section = task.choices.optimizer
    groups: list[dict[str, Any]] = [
        {"params": list(task.student.backbone_parameters()), "lr": task.lr},
        {"params": list(task.student.head_parameters()), "lr": task.lr * section.head_factor},
    ]
    groups += extra or []
    if section.name == "sgd":
        return torch.optim.SGD(groups, momentum=section.momentum, weight_decay=section.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=section.weight_decay)


def unit_image(image_BCHW: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1], the networks' input."""
    return image_BCHW.float() / 255


def upsample(logits_BKhw: Tensor, label_BHW: Tensor, stride: int) -> Tensor:
    """Logits at the labels' resolution (bilinear); the network's padding at right and bottom is cut off."""
    height, width = label_BHW.shape[-2:]
    full = F.interpolate(logits_BKhw.float(), scale_factor=stride, mode="bilinear", align_corners=False)
    return full[..., :height, :width]
