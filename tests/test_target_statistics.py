"""BatchNorm's averages are those of the target's images as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_pipeline import tiny

from acclimate.data import streets
from acclimate.data.datasets import ImageSet, open_images
from acclimate.networks import Segmenter, build
from acclimate.pipeline import adapt
from acclimate.recipe import Folder, Network
from acclimate.target_statistics import TOGETHER, measure_statistics

STATISTICS = ("running_mean", "running_var")


def averages(network: Segmenter) -> dict[str, torch.Tensor]:
    return {name: t for name, t in network.state_dict().items() if name.endswith(STATISTICS)}


def photos(sizes: list[tuple[int, int]], folder: Path) -> ImageSet:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        colour = rng.integers(0, 256, 3)
        image = np.clip(colour + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return open_images(Folder(path=str(folder)), "target")


def network() -> Segmenter:
    torch.manual_seed(0)
    return build(Network(weights="none", dropout=0.5), 4)


def test_the_first_layer_averages_over_the_images(tmp_path: Path) -> None:
    images = photos([(64, 96)] * TOGETHER, tmp_path / "photos")
    measured = network()
    weights = {name: p.clone() for name, p in measured.named_parameters()}
    measure_statistics(measured, images, width=96)

    batch_BHWC = torch.from_numpy(np.stack([images.image(index) for index in range(TOGETHER)]))
    seen: list[torch.Tensor] = []
    first = next(m for m in measured.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    measured.eval()(batch_BHWC.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, seen[0].var((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not measured.training
    assert all(torch.equal(p, weights[name]) for name, p in measured.named_parameters())


def test_images_of_many_sizes_all_count(tmp_path: Path) -> None:
    alike = photos([(64, 96)] * 9, tmp_path / "alike")
    mixed = photos([(64, 96)] * 5 + [(96, 64)] * 4, tmp_path / "mixed")
    found = []
    for images in (alike, mixed, mixed):
        measured = network()
        measure_statistics(measured, images, width=96)
        found.append(averages(measured))
        assert all(t.isfinite().all() for t in found[-1].values())
    assert any(not torch.equal(t, found[1][name]) for name, t in found[0].items())
    assert all(torch.equal(t, found[2][name]) for name, t in found[1].items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    root = tmp_path_factory.mktemp("statistics")
    streets.write(root / "data", source=5, target=4, val=2, seed=3, size=(48, 80))
    found = {}
    for choice in ("target", "trained"):
        shorter = {"distill__rounds": 0, "selflabel__iterations": 0, "data__ceiling__path": "", "selection__by": "last"}
        recipe = tiny(root / "data", network__statistics=choice, **shorter)
        run = adapt(recipe, root / choice)
        found[choice] = {stage: load_file(run.model(stage)) for stage in ("source", "warmup")}
    return found


def test_adapted_models_carry_them_and_the_source_only_model_does_not(runs: dict) -> None:
    target, trained = runs["target"], runs["trained"]
    assert all(torch.equal(t, trained["source"][name]) for name, t in target["source"].items())
    changed = {name for name, t in target["warmup"].items() if not torch.equal(t, trained["warmup"][name])}
    assert changed, "the warm-up's averages are the target's"
    assert all(name.endswith((*STATISTICS, "num_batches_tracked")) for name in changed), "what was learned stays"
