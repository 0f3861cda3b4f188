"""Every shipped recipe, whole, on small folders that lie as its data sets do when downloaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import miniature
import pytest
import timm
import torch

from acclimate import recipe as recipes
from acclimate.errors import UserError
from acclimate.evaluation import Scores
from acclimate.networks import build, deeplab
from acclimate.networks.groups import groups
from acclimate.networks.weights import load_model
from acclimate.pipeline import adapt
from acclimate.prediction import load
from acclimate.recipe import Folder
from acclimate.run import Run

BENCHMARKS = [name for name in recipes.names() if name.endswith(("cityscapes", "official"))]
TRANSFORMERS = [name for name in recipes.names() if name.endswith(("-dinov2-s", "-dinov2-l", "-dinov3-l", "-mit-b5"))]
SHRUNK: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 64, "depth": 4, "num_heads": 2},
    "pvt": {"embed_dims": (8, 16, 40, 64), "depths": (1, 1, 2, 1)},
}
"""What makes a large transformer of timm small, by the beginning of its name."""
ROLES = ("source", "target", "val")
SMALL = [
    "source.iterations=1", "warmup.iterations=1", "selflabel.iterations=2", "distill.iterations=1",
    *(f"{stage}.batch=2" for stage in ("source", "warmup", "selflabel", "distill")),
    "data.width=128", "data.crop=[64, 96]", "data.workers=0", "selflabel.bank=48", "selflabel.pixels=24",
    "network.weights=none", "network.channels=24", "device=cpu", "selection.images=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("downloads")
    for layout in (miniature.gta5, miniature.synthia, miniature.cityscapes):
        layout(root / layout.__name__)
    return root


def dry_run(name: str, downloads: Path, out: Path, *overrides: str) -> Run:
    given = recipes.load(name)
    layouts = [getattr(given.data, role).layout for role in ROLES]
    if name in ("demo", "laptop", "gpu-dinov2-s"):  # recipes for anybody's folders
        layouts = ["gta5", "cityscapes", "cityscapes"]
        overrides += (*(f"data.{role}.layout={layout}" for role, layout in zip(ROLES, layouts, strict=True)),)
        overrides += ("data.classes=cityscapes19",)
    paths = [f"data.{role}.path={downloads / layout}" for role, layout in zip(ROLES, layouts, strict=True)]
    parts = min(given.optimizer.accumulate, 2)
    return adapt(recipes.load(name, [*SMALL, f"optimizer.accumulate={parts}", *paths, *overrides]), out)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **SHRUNK.get(name[:3], {}), **given))


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("name", recipes.names())
def test_every_stage_of_a_shipped_recipe_runs(name: str, downloads: Path, tmp_path: Path) -> None:
    run = dry_run(name, downloads, tmp_path / "run")
    distilled = [] if name == "laptop" else ["distill-1", "distill-2"]
    averaged = ["average"] if name == "demo" else []
    assert [row["name"] for row in run.results] == ["source", "warmup", "selflabel", *distilled, *averaged]
    network, space, _ = load_model(run.best)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert len(space) == (16 if name.startswith("synthia") else 19)
    subsets = run.results[-1]["subsets"]
    assert set(subsets) == {"cityscapes13"} if len(space) == 16 else {"cityscapes16", "cityscapes13"}
    official = name.endswith("official")
    if name in BENCHMARKS:
        assert network.choices.extra_norm == official, "the last student has the norm of distill.extra_norm"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_of_full_size_learns_and_judges(name: str) -> None:
    """On tensors with a shape and no content."""
    recipe = recipes.load(name)
    with torch.device("meta"):
        network = build(dataclasses.replace(recipe.network, weights="none"), 19).train()
        crop_BCHW, image_BCHW = torch.zeros(2, 3, *recipe.data.crop), torch.zeros(1, 3, 1024, 2048)
    assert all(side % network.multiple == 0 for side in recipe.data.crop), "a crop's edge would be padding"
    logits, feat = network(crop_BCHW)
    (logits.float().mean() + feat.float().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        assert network.eval()(image_BCHW).logits_BKhw.shape == (1, 19, 256, 512)
    choice = recipe.optimizer
    shares = groups(network, choice.lr, choice.lr * choice.head_factor, choice.layer_decay, choice.decay == "all")
    assert sum(len(group["params"]) for group in shares) == len(list(network.parameters()))
    if name.endswith("mit-b5"):  # SegFormer's own count of its largest encoder (Xie et al., 2021)
        assert round(sum(p.numel() for p in network.backbone_parameters()) / 1e6, 1) == 81.4


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_official_numbers_can_be_run_from_a_published_warm_up(downloads: Path, tmp_path: Path) -> None:
    """A checkpoint in the official layout is measured the same in every form, and stage 1 goes on from it."""
    from acclimate.networks.convert import convert

    before = dry_run("gta5-cityscapes", downloads, tmp_path / "before", "selflabel.iterations=0", "distill.rounds=0")
    published = tmp_path / "from_gta5_to_cityscapes_on_deeplabv2_best_model.pkl"
    convert(before.best, published)
    run = dry_run(
        "gta5-cityscapes-official", downloads, tmp_path / "run", f"start={published}", "distill.rounds=0",
    )  # fmt: skip
    assert [row["name"] for row in run.results] == ["start", "selflabel"]
    (chosen,) = (row for row in before.results if row.get("chosen"))
    assert run.results[0]["iou"] == chosen["iou"]

    with pytest.raises(UserError, match=r"best_model\.pkl: a model of 19 classes .*, but 16 are asked for"):
        dry_run("synthia-cityscapes-official", downloads, tmp_path / "other", f"start={published}")
    assert not list((tmp_path / "other" / "stages").iterdir()), "refused before anything is done"

    def scores(path: Path) -> Scores:
        return load(path, width=128).evaluate(Folder(str(downloads / "cityscapes"), "cityscapes", "val"))

    again, back = tmp_path / "again.safetensors", tmp_path / "back.pkl"
    convert(published, again)
    convert(again, back)
    # NaN, of classes that are absent, equals nothing.
    assert repr(scores(published)) == repr(scores(again)) == repr(scores(back))
    ours, theirs = (torch.load(path, weights_only=True)["ResNet101"]["model_state"] for path in (published, back))
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
