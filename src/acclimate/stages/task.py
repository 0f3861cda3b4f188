"""What every stage shares: a student that learns, and its moving average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate import distributed, recipe
from acclimate.data.geometry import Grid, enlarge
from acclimate.labels import IGNORE
from acclimate.networks import Average, Features, Segmenter
from acclimate.networks.execution import arrange
from acclimate.networks.groups import groups
from acclimate.selflabel.precision import wide


class Task(nn.Module):
    """One stage's learning problem. The loop in `acclimate.training` calls it and knows nothing else of it.

    All that changes while it learns is a parameter or buffer of this module or state of its optimisers, so
    that saving the two is saving the stage.

    Args:
        student: the network that learns.
        choices: the whole recipe.
        stage: the recipe's section of the stage, for its learning rates.
        noisy_teacher: see `Average`.
        steady: the student keeps BatchNorm's averages that it starts with and normalises by them: the target's,
            where the batch's would be half the source's.
    """

    def __init__(
        self,
        student: Segmenter,
        choices: recipe.Recipe,
        stage: recipe.Section,
        noisy_teacher: bool = False,
        steady: bool = False,
    ) -> None:
        super().__init__()
        self.student, self.steady = student, steady
        section = choices.optimizer
        self.average = Average(student, section.ema, section.average == "ramped", noisy_teacher)
        arrange(student, choices.network)
        arrange(self.teacher, choices.network, one_size=choices.selflabel.teacher_view == "weak")
        self.choices = choices
        self.lr = stage.lr or section.lr
        self.head_lr = self.lr * (stage.head_factor or section.head_factor)
        self.optimizers: list[torch.optim.Optimizer] = []

    def train(self, mode: bool = True) -> Self:
        """Learning, or not; a steady student's BatchNorm never does."""
        super().train(mode)
        for module in self.student.modules():
            if self.steady and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def step(self, batch: Any) -> dict[str, Tensor]:
        """Loss terms of a batch; ``loss`` is the one to descend, the others are for the log: scalars, or (K,)."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Let the averages follow, once the optimisers have stepped."""
        self.average.update(self.student)

    @property
    def teacher(self) -> Segmenter:
        """The averaged student: it labels."""
        return self.average.network

    @property
    def kept(self) -> Segmenter:
        """What the stage leaves behind."""
        return self.student if self.choices.optimizer.keep == "student" else self.teacher

    @property
    def grid(self) -> Grid:
        """The cells in which target losses are computed."""
        own, stride = self.student.grid, self.choices.network.loss_stride
        return Grid(stride, own.corners) if 0 < stride < own.stride else own

    def see(self, network: nn.Module, image_BCHW: Tensor) -> Features:
        """What a network says of uint8 images, in the recipe's precision."""
        half = self.choices.precision == "bfloat16"
        image_BCHW = image_BCHW.to(next(network.parameters()).dtype) / 255
        with distributed.whole_batch_statistics(), torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=half):
            return network(image_BCHW)

    def study(self, *views: Tensor) -> list[Features]:
        """What the student says of several batches of uint8 images: in one pass, or in one for each."""
        if self.choices.network.passes == "separate":
            return [self.see(self.student, view_BCHW) for view_BCHW in views]
        seen = self.see(self.student, torch.cat(views))
        counts = [len(view_BCHW) for view_BCHW in views]
        return [Features(*parts) for parts in zip(*(maps.split(counts) for maps in seen), strict=True)]

    def to_grid(self, maps_BChw: Tensor, size_hw: Sequence[int]) -> Tensor:
        """A network's maps of pictures of ``size_hw`` pixels, in the cells of `grid`, as float32 at least."""
        if self.grid == self.student.grid:
            return wide(maps_BChw)
        height, width = size_hw
        return enlarge(wide(maps_BChw), self.student.grid, (height, width), self.grid.stride)

    def to_pixels(self, maps_BChw: Tensor, label_BHW: Tensor) -> Tensor:
        """The student's maps at the pixels of the labels, as float32 at least."""
        height, width = label_BHW.shape[-2:]
        # A class after the other, as a softmax over classes takes it: it would copy the large maps, not these.
        return enlarge(wide(maps_BChw).contiguous(), self.student.grid, (height, width))


def by_class(weight_K: Tensor, label_BHW: Tensor) -> Tensor:
    """Weights of pixels, like the labels, from those of their classes; where there is no label any will do."""
    return weight_K[label_BHW.where(label_BHW != IGNORE, 0)]


def optimizer_for(task: Task, extra: list[dict[str, Any]] | None = None) -> torch.optim.Optimizer:
    """The recipe's optimiser over the student's backbone, its head (faster), and further groups."""
    section = task.choices.optimizer
    own = groups(task.student, task.lr, task.head_lr, section.layer_decay, decay_all=section.decay == "all")
    every = [*own, *(extra or [])]
    # Fused: one pass over weights, gradients and moments instead of four to ten.
    if section.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            every, momentum=section.momentum, weight_decay=section.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(every, weight_decay=section.weight_decay, fused=True)
    if section.clip:
        optimizer.register_step_pre_hook(lambda *_: _shorten(task.student, section.clip))
    return optimizer


def _shorten(network: nn.Module, longest: float) -> None:
    """Bring a gradient (over all parameters) that is longer than that to this length."""
    nn.utils.clip_grad_norm_(network.parameters(), longest)
