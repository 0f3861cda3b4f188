"""What a recipe asks of a GPU: memory and arithmetic of each stage, counted without running it.

    python benchmarks/cost.py gta5-cityscapes
    python benchmarks/cost.py gta5-cityscapes-official selflabel.batch=2

On torch's meta device it counts the tensors that the passes of a stage keep for the backward pass (float32),
adds weights, gradients, optimiser state and the averaged network, and counts the floating-point operations of
convolutions and products (backward: twice the forward pass). Not counted: buffers of the moment and what the
allocator leaves unused, usually 10 to 20 % more memory; losses, data and waiting.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from acclimate import recipe as recipes
from acclimate.networks import Segmenter, build

GIB, TERA = 1 << 30, 1e12
SPEED = 20
"""TFLOP/s that hours are given for: about what a data-centre GPU of 2020 does in float32; bfloat16 is faster."""


class Stage(NamedTuple):
    """What a step of a stage shows to the networks."""

    name: str
    iterations: int
    learned: int
    """Crops that the student sees."""
    judged: float
    """Crops, or as much of whole images, that a teacher sees without learning."""


def main() -> None:
    """Print a Markdown table, a row per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    recipe = recipes.load(args.recipe, args.overrides)
    own = recipe.network
    with torch.device("meta"):
        network = build(recipes.Network(own.architecture, own.backbone, "none", own.channels), 19)
    kept, operations = one_crop(network, recipe.data.crop)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    fixed = weights * (4 if recipe.optimizer.name == "sgd" else 5)  # itself, gradient, average, one or two moments
    print(f"| stage | crops in a step | memory, GiB | TFLOP in a step | hours at {SPEED} TFLOP/s |")
    print("|---|---:|---:|---:|---:|")
    for stage in stages_of(recipe):
        tera = operations * (3 * stage.learned + stage.judged) / TERA
        hours = stage.iterations * tera / SPEED / 3600
        memory = (stage.learned * kept + fixed) / GIB
        print(f"| {stage.name} | {stage.learned} | {memory:.0f} | {tera:.1f} | {hours:.0f} |")


def stages_of(recipe: recipes.Recipe) -> list[Stage]:
    """The stages that learn."""
    section, (height, width) = recipe.selflabel, recipe.data.crop
    views = 3 if section.target_view == "weak" else 2
    whole = recipe.data.width**2 / 2 / (height * width) if section.teacher_view == "whole" else 1
    live = recipe.distill.batch if recipe.distill.teacher == "live" else 0
    stages = [
        Stage("source only", recipe.source.iterations, recipe.source.batch, 0),
        Stage("warm-up", recipe.warmup.iterations, 2 * recipe.warmup.batch, 0),
        Stage("stage 1", section.iterations, views * section.batch, section.batch * whole),
    ]
    rounds = range(1, recipe.distill.rounds + 1)
    stages += [Stage(f"stage {n + 1}", recipe.distill.iterations, 2 * recipe.distill.batch, live) for n in rounds]
    return [stage for stage in stages if stage.iterations]


def one_crop(network: Segmenter, crop_hw: tuple[int, int]) -> tuple[int, int]:
    """Bytes that one crop's pass in train mode keeps for the backward pass, and operations of its forward pass."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, since a freed one could lend its address to the next
        return tensor

    counter = FlopCounterMode(display=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), counter:
        network.train()(torch.zeros(1, 3, *crop_hw, device="meta"))
    kept = sum(storage.nbytes() for address, storage in storages.items() if address not in own)
    return kept, counter.get_total_flops()


if __name__ == "__main__":
    main()
