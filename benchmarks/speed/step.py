"""A step of stage 1 beside the network passes it cannot do without: float32, batches in memory, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from acclimate import recipe as recipes
from acclimate.data.geometry import Size
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.networks import build
from acclimate.recipe import Recipe
from acclimate.stages.initialise import Initial
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.training import descend, seed_step, to_device
from benchmarks.speed.measure import Row, ratio

CLASSES, GOAL = 19, 1.05
CPU = torch.device("cpu")
CASES = {
    "ResNet-101": ("network.architecture=deeplab", "network.channels=256", "selflabel.batch=2", "data.crop=[128, 224]",
                   "optimizer.name=sgd"),
    "laptop": ("selflabel.batch=8",),
}  # fmt: skip
REPEATS = {"ResNet-101": 3, "laptop": 7}


def rows() -> Iterator[Row]:
    """How many times longer a whole step takes than its passes, in turn."""
    for name, choices in CASES.items():
        whole, passes = step_and_passes(recipes.load("laptop", [*choices, "network.weights=none"]))
        measured = ratio(whole, passes, REPEATS[name])
        if measured > GOAL:
            explain(whole, passes)
        command = "python -m benchmarks.speed step"
        yield Row(f"step of stage 1 / its network passes, {name}", GOAL, measured, "lower", 1.0, command)


def step_and_passes(recipe: Recipe) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step as the training loop does it; and what its networks alone do: student forth and back, teacher forth."""
    task = untrained(recipe)
    student = task.student
    task.clusters.bank.push(
        torch.nn.functional.normalize(torch.randn(recipe.selflabel.bank, student.channels), dim=1),
        torch.randint(CLASSES, (recipe.selflabel.bank,)),
    )
    batch = random_batch(task, recipe.selflabel.batch, recipe.data.crop)

    def whole() -> None:
        seed_step(0, "selflabel", 0, CPU)
        descend(task, to_device(batch, CPU))

    def passes() -> Tensor:
        source, target = batch
        student.zero_grad(set_to_none=True)
        with torch.no_grad():
            task.see(task.teacher, target.weak_BCHW)
        seen = task.study(source.image_BCHW, target.strong_BCHW)
        sum(maps.sum() for view in seen for maps in view).backward()
        return source.label_BHW

    return whole, passes


def untrained(recipe: Recipe) -> SelfLabelTask:
    """Stage 1 of a recipe from random weights and prototypes, with an empty bank."""
    torch.manual_seed(0)
    student = build(recipe.network, CLASSES)
    initial = Initial(torch.rand(CLASSES).softmax(dim=0).double(), torch.randn(CLASSES, student.channels))
    return SelfLabelTask(student, initial, recipe).train()


def explain(whole: Callable[[], object], passes: Callable[[], object]) -> None:
    """Print the operations that take longer in the whole step, in ms."""
    spent = []
    for task in (passes, whole):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            task()
        spent.append({event.key: event.self_cpu_time_total / 1e3 for event in profiled.key_averages()})
    more = {name: taken - spent[0].get(name, 0) for name, taken in spent[1].items()}
    for name in sorted(more, key=more.__getitem__, reverse=True)[:8]:
        print(f"<!-- {more[name]:7.1f} ms more: {name} -->")


def random_batch(task: SelfLabelTask, count: int, crop_hw: Size) -> tuple[SourceBatch, TargetBatch]:
    """Noise with labels in patches of 16 pixels; the strong view lies a little beside the weak one."""
    height, width = crop_hw
    rows, columns = task.grid.cells(crop_hw)
    image, weak, strong = (torch.randint(256, (count, 3, height, width), dtype=torch.uint8) for _ in range(3))
    label = torch.randint(CLASSES, (count, height // 16 + 1, width // 16 + 1))
    label = label.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width].contiguous()
    soft = torch.randn(count, CLASSES, rows, columns).mul(3).softmax(dim=1)
    matrix = torch.eye(3).repeat(count, 1, 1)
    matrix[:, :2, 2] = torch.rand(count, 2) * 30 - 15
    matrix[:, 0, 1] = torch.rand(count) * 0.4 - 0.2
    valid = torch.ones(count, rows, columns, dtype=torch.bool)
    target = TargetBatch(
        weak, strong, soft, valid, matrix, valid, torch.zeros(count, 10), weak[:, :0, :0, :0],
        torch.zeros(count, 7, dtype=torch.long), torch.arange(count),
    )  # fmt: skip
    return SourceBatch(image, label), target
