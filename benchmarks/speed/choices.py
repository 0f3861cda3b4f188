"""Recipe choices that are about speed alone: the network passes of a stage-1 step beside the same in plain float32.

Plain is ``network.channels_last: false``. What is compiled is the laptop's network; ResNet-101 takes minutes to compile
(``python -m benchmarks.speed.choices`` measures it too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate import recipe as recipes
from benchmarks.cost import imagined, operations_of, stages_of
from benchmarks.speed.measure import Row, medians
from benchmarks.speed.step import CASES, step_and_passes

COMMAND = "python -m benchmarks.speed choices"
PLAIN = "network.channels_last=false"
HALF = "precision=bfloat16"
COMPILED = "network.compile=true"
EAGER: dict[str, tuple[str, ...]] = {
    "channels_last": (),
    "bfloat16": (PLAIN, HALF),
    "bfloat16, channels_last": (HALF,),
}
ALL = EAGER | {"compile, channels_last": (COMPILED,), "bfloat16, channels_last, compile": (COMPILED, HALF)}
CHOICES = {"ResNet-101": EAGER, "laptop": ALL}
REPEATS = {"ResNet-101": 2, "laptop": 5}


def rows(choices: dict[str, dict[str, tuple[str, ...]]] = CHOICES) -> Iterator[Row]:
    """Times relative to plain float32; the limit is that of large convolutions in the same precision."""
    rates = {half: rate(torch.bfloat16 if half else torch.float32) for half in (False, True)}
    print(f"(large convolutions: {rates[False]:.0f} GFLOP/s in float32, {rates[True]:.0f} in bfloat16)\n")
    for case, variants in choices.items():
        recipes_of = [recipe_of(case, PLAIN), *(recipe_of(case, *chosen) for chosen in variants.values())]
        plain, *others = medians([step_and_passes(recipe)[1] for recipe in recipes_of], REPEATS[case])
        work = operations(recipes_of[0]) / 1e9
        for (name, chosen), seconds in zip(variants.items(), others, strict=True):
            limit = work / rates[HALF in chosen] / plain
            yield Row(f"passes with {name} / in plain float32, {case}", 1.0, seconds / plain, "lower", limit, COMMAND)


def recipe_of(case: str, *choices: str) -> recipes.Recipe:
    """The recipe of `step`, with choices."""
    return recipes.load("laptop", [*CASES[case], "network.weights=none", *choices])


def operations(recipe: recipes.Recipe) -> float:
    """Floating-point operations of convolutions and products in the passes of a step of stage 1."""
    stage = next(stage for stage in stages_of(recipe) if stage.name == "stage 1")
    return operations_of(imagined(recipe), recipe.data.crop) * (3 * stage.learned + stage.judged)


def rate(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of some convolutions, which come closer to what the machine can do than products."""

    def convolution(channels: int, size: int) -> Callable[[], Tensor]:
        weight = torch.rand(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
        maps = torch.rand(4, channels, size, size).to(dtype, memory_format=torch.channels_last)
        return lambda: F.conv2d(maps, weight, padding=1)

    shapes = [(256, 56), (512, 28), (512, 56)]
    seconds = medians([convolution(*shape) for shape in shapes], repeats=5)
    return max(2 * 9 * c**2 * 4 * size**2 / taken for (c, size), taken in zip(shapes, seconds, strict=True)) / 1e9


if __name__ == "__main__":
    for row in rows(dict.fromkeys(CASES, ALL)):
        print(f"{row.name}: {row.measured:.2f} (limit {row.limit:.2f})", flush=True)
