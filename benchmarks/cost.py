"""What a recipe asks of a GPU: memory and arithmetic of each stage, counted without running it.

    python benchmarks/cost.py gta5-cityscapes
    python benchmarks/cost.py gta5-cityscapes-official selflabel.batch=2

It counts, with tensors that have a shape and no content, what the passes of a stage keep for the backward pass, adds
weights, gradients, optimiser state, the averaged network and the memory bank, and counts the floating-point operations
of convolutions and products (backward: twice the forward pass). A second table says what the choices that save memory
would make of it. Not counted: buffers of the moment and what the allocator leaves unused, usually 10 to 20 % more
memory; losses, data and waiting.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from acclimate import recipe as recipes
from acclimate.errors import UserError
from acclimate.networks import Segmenter, build
from acclimate.networks.execution import blocks
from acclimate.recipe import Recipe

GIB, TERA = 1 << 30, 1e12
SPEED = 20
"""TFLOP/s that hours are given for: about what a data-centre GPU of 2020 does in float32; bfloat16 is faster."""
SAVING = (
    (),
    ("precision=bfloat16",),
    ("network.checkpointing=true",),
    ("optimizer.accumulate=2",),
    ("optimizer.accumulate=4",),
    ("network.checkpointing=true", "precision=bfloat16"),
    ("network.checkpointing=true", "precision=bfloat16", "optimizer.accumulate=4"),
)


class Stage(NamedTuple):
    """What a step of a stage shows to the networks."""

    name: str
    iterations: int
    learned: int
    """Crops that the student sees."""
    judged: float
    """Crops, or as much of whole images, that a teacher sees without learning."""
    bank: int = 0
    """Features that are remembered."""


class Kept(NamedTuple):
    """Bytes that a student's pass in train mode keeps for the backward pass."""

    whole: int
    between: int
    """With ``network.checkpointing``: what is not in the backbone's blocks, and their inputs."""
    block: int
    """What the largest block keeps when it is computed anew."""


def main() -> None:
    """Print two Markdown tables: a row per stage, and a row per way to save memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    recipe = recipes.load(args.recipe, args.overrides)
    network = imagined(recipe)
    operations = operations_of(network, recipe.data.crop)
    again = 1 if recipe.network.checkpointing else 0
    print(f"| stage | crops in a step | memory, GiB | TFLOP in a step | hours at {SPEED} TFLOP/s |")
    print("|---|---:|---:|---:|---:|")
    for stage in stages_of(recipe):
        tera = operations * ((3 + again) * stage.learned + stage.judged) / TERA
        hours = stage.iterations * tera / SPEED / 3600
        memory = memory_of(stage, recipe, network) / GIB
        print(f"| {stage.name} | {stage.learned} | {memory:.1f} | {tera:.1f} | {hours:.0f} |")
    names = [stage.name for stage in stages_of(recipe)]
    print("\n| GiB with | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for saving in SAVING:
        try:
            changed = recipes.load(args.recipe, [*args.overrides, *saving])
        except UserError:  # its batches have no such parts
            continue
        told = [f"{memory_of(stage, changed, network) / GIB:.1f}" for stage in stages_of(changed)]
        print(f"| {' '.join(f'`{s}`' for s in saving) or 'the recipe as it is'} | " + " | ".join(told) + " |")


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that learn."""
    section, (height, width) = recipe.selflabel, recipe.data.crop
    views = 3 if section.target_view == "weak" else 2
    whole = recipe.data.width**2 / 2 / (height * width) if section.teacher_view == "whole" else 1
    live = recipe.distill.batch if recipe.distill.teacher == "live" else 0
    stages = [
        Stage("source only", recipe.source.iterations, recipe.source.batch, 0),
        Stage("warm-up", recipe.warmup.iterations, 2 * recipe.warmup.batch, 0),
        Stage("stage 1", section.iterations, views * section.batch, section.batch * whole, section.bank),
    ]
    rounds = range(1, recipe.distill.rounds + 1)
    stages += [Stage(f"stage {n + 1}", recipe.distill.iterations, 2 * recipe.distill.batch, live) for n in rounds]
    return [stage for stage in stages if stage.iterations]


def memory_of(stage: Stage, recipe: Recipe, network: Segmenter) -> int:
    """Bytes at the end of the student's passes (of one part, with ``optimizer.accumulate``)."""
    half = recipe.precision == "bfloat16"
    one, two = (kept(network, crops, recipe.data.crop, half) for crops in (1, 2))
    chosen = [each.between + each.block if recipe.network.checkpointing else each.whole for each in (one, two)]
    per_crop = chosen[1] - chosen[0]
    once = chosen[0] - per_crop  # copies of the weights in bfloat16
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    fixed = weights * (4 if recipe.optimizer.name == "sgd" else 5)  # itself, gradient, average, one or two moments
    bank = stage.bank * network.channels * 4
    return fixed + bank + once + per_crop * stage.learned // recipe.optimizer.accumulate


def imagined(recipe: Recipe) -> Segmenter:
    """The recipe's network without content."""
    with torch.device("meta"):
        return build(dataclasses.replace(recipe.network, weights="none"), 19).train()


def operations_of(network: Segmenter, crop_hw: tuple[int, int]) -> int:
    """Operations of one crop's forward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(1, 3, *crop_hw, device="meta"))
    return counter.get_total_flops()


@cache
def kept(network: Segmenter, crops: int, crop_hw: tuple[int, int], half: bool = False) -> Kept:
    """What a pass of a batch of crops keeps, in float32 or ``half`` under autocast, beside weights and statistics.

    Counted with tensors of the CPU that have no content: a GPU casts all but the same operations.
    """
    sizes: dict[int, int] = {}
    held: list[torch.UntypedStorage] = []  # since a freed one could lend its address to the next
    inputs: set[int] = set()
    saved: list[set[int]] = [set()]  # outside of blocks, then in each block

    def note(tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage.nbytes()
        held.append(storage)
        return storage._cdata

    def pack(tensor: Tensor) -> Tensor:
        saved[-1 if entered else 0].add(note(tensor))
        return tensor

    entered: list[nn.Module] = []

    def enter(block: nn.Module, given: tuple[Tensor, ...]) -> None:
        entered.append(block)
        saved.append(set())
        inputs.update(note(x) for x in given if isinstance(x, Tensor))

    def leave(*_: Any) -> None:
        entered.pop()

    parts = blocks(network, "network.checkpointing")
    hooks = [hook for b in parts for hook in (b.register_forward_pre_hook(enter), b.register_forward_hook(leave))]
    with FakeTensorMode():
        own = {name: _blank(value) for name, value in [*network.named_parameters(), *network.named_buffers()]}
        image_BCHW = torch.zeros(crops, 3, *crop_hw)
        packing = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with packing, torch.autocast("cpu", torch.bfloat16, enabled=half):
            torch.func.functional_call(network, own, (image_BCHW,))
    for hook in hooks:
        hook.remove()
    sizes |= {value.untyped_storage()._cdata: 0 for value in own.values()}

    def total(storages: set[int]) -> int:
        return sum(sizes[storage] for storage in storages)

    outside, *inside = saved
    between = outside | inputs
    return Kept(total(set().union(*saved)), total(between), max(total(block - between) for block in inside))


def _blank(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)


if __name__ == "__main__":
    main()
