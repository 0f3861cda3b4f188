"""What `benchmarks/cost.py` counts is what real passes keep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acclimate import recipe as recipes
from acclimate.networks import Segmenter, build, deeplab
from acclimate.networks.execution import recompute_blocks

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cost import imagined, kept, memory_of, stages_of

CROP = (64, 96)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["light", "deeplab"])
def test_counted_bytes_are_those_of_a_real_pass(architecture: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 2, 1, 1))
    recipe = recipes.parse({"network": {"architecture": architecture, "weights": "none"}})
    counted = kept(imagined(recipe), 2, CROP, half)
    network = build(recipe.network, 19).train()
    whole = really_kept(network, half)
    recompute_blocks(network)
    between = really_kept(network, half)
    assert whole == pytest.approx(counted.whole, rel=0.01)
    assert between == pytest.approx(counted.between, rel=0.01)
    assert between < 0.7 * whole


def really_kept(network: Segmenter, half: bool) -> int:
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        network(torch.rand(2, 3, *CROP))
    own = {value.untyped_storage().data_ptr() for value in [*network.parameters(), *network.buffers()]}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in own)


def test_the_gta5_recipe_fits_16_gb_when_blocks_are_computed_anew() -> None:
    recipe = recipes.load("gta5-cityscapes", ["network.checkpointing=true"])
    network = imagined(recipe)
    counted = max(memory_of(stage, recipe, network) for stage in stages_of(recipe))
    assert 1.2 * counted < 16e9, "with a fifth for the moment and the allocator"
    half = recipes.load("gta5-cityscapes", ["network.checkpointing=true", "optimizer.accumulate=4"])
    assert max(memory_of(stage, half, network) for stage in stages_of(half)) < counted / 2
