"""Peak resident memory of a step of stage 1: ResNet-101, batch 2, crop 128x224, a full bank, each in a fresh process.

Checkpointing has the allocator give back what is freed; with MALLOC_MMAP_THRESHOLD_=65536 in the environment it tells
what a process would take if others did so too. They do not: glibc serves tensors below 32 MB from one heap, aligned to
64 bytes, so that a hole that one left is too small for the next of the same size.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from acclimate import recipe as recipes
from benchmarks.cost import imagined, memory_of, stages_of
from benchmarks.speed.measure import Row
from benchmarks.speed.step import CASES, step_and_passes

COMMAND = "python -m benchmarks.speed memory"
GOAL = 2.5
"""GB; the official implementation takes 3.9."""
STEPS = 2
"""The second has the momentum of the first."""
SAVINGS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "checkpointing": ("network.checkpointing=true",),
    "accumulate: 2": ("optimizer.accumulate=2",),
    "both and bfloat16": ("network.checkpointing=true", "optimizer.accumulate=2", "precision=bfloat16"),
}


def rows() -> Iterator[Row]:
    """GB at the peak; the limit is what is counted: weights, gradients, momentum, average, bank, what passes keep."""
    chosen = {name: recipe_of(*saving) for name, saving in SAVINGS.items()}
    for name, recipe in chosen.items():
        stage = next(stage for stage in stages_of(recipe) if stage.name == "stage 1")
        counted = memory_of(stage, recipe, imagined(recipe)) / 1e9
        measured = peak(*SAVINGS[name])
        yield Row(f"peak memory of a step, ResNet-101, {name}, GB", GOAL, measured, "lower", counted, COMMAND)


def recipe_of(*choices: str) -> recipes.Recipe:
    """The recipe of `step`, with choices."""
    return recipes.load("laptop", [*CASES["ResNet-101"], "network.weights=none", *choices])


def peak(*choices: str) -> float:
    """GB that a process had resident at most when it had done some steps."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", str(STEPS), *choices]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main() -> None:
    """Do as many steps as the first argument says, with the recipe's choices that follow, and print the peak."""
    whole, _ = step_and_passes(recipe_of(*sys.argv[2:]))
    for _ in range(int(sys.argv[1])):
        whole()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9)


if __name__ == "__main__":
    main()
