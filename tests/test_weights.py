"""Files of trained networks: what is saved comes back, and what is wrong is said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from acclimate import recipe
from acclimate.errors import UserError
from acclimate.labels import LabelSpace
from acclimate.networks import build, deeplab, weights
from acclimate.networks.weights import load_model, save_model

SPACE = LabelSpace("três", ("road", "sky", "tree"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
SMALL = recipe.Network(backbone="test_resnet", weights="none", channels=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "runs" / "model.safetensors"
    save_model(path, build(SMALL, 3), SPACE, SMALL, {"width": 480})
    return path


@pytest.mark.parametrize(
    "choice",
    [
        SMALL,
        recipe.Network(),
        recipe.Network(backbone="test_vit", weights="none", channels=12, dropout=0.5),
        recipe.Network(architecture="deeplab", weights="none"),
    ],
    ids=["convolutional", "lite", "transformer", "deeplab"],
)
def test_comes_back_as_it_was(choice: recipe.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeplab, "BLOCKS", (1, 1, 1, 1))
    torch.manual_seed(3)
    network = build(choice, 3).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, network, SPACE, choice, {"width": 480})
    state = torch.get_rng_state()
    loaded, space, metadata = load_model(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert space == SPACE
    assert metadata["width"] == 480
    assert recipe.parse({"network": metadata["network"]}).network == choice
    image = torch.rand(1, 3, 40, 50)
    torch.testing.assert_close(loaded(image), network(image))
    assert list(loaded.state_dict()) == list(network.state_dict())


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    network = build(SMALL, 3)
    for name in "abcd":
        save_model(tmp_path / name, network, SPACE, SMALL, {"width": 480, "more": [1]})
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half of")
        raise OSError("no space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(weights, "save_file", disk_full)
    with pytest.raises(UserError, match="no space"):
        save_model(saved, build(SMALL, 3), SPACE, SMALL, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


class TestRefuses:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"none\.safetensors: no such model"):
            load_model(tmp_path / "none.safetensors")

    @pytest.mark.parametrize("length", [0, 5, 400, -100])
    def test_a_truncated_file(self, saved: Path, length: int) -> None:
        saved.write_bytes(saved.read_bytes()[:length])
        with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
            load_model(saved)

    def test_a_foreign_file(self, saved: Path) -> None:
        save_file({"weight": torch.zeros(2)}, saved, {"format": "pt"})
        with pytest.raises(UserError, match="not a model of Acclimate"):
            load_model(saved)

    def test_a_later_format(self, saved: Path) -> None:
        rewrite(saved, lambda tensors, metadata: metadata.update(version="2"))
        with pytest.raises(UserError, match="update Acclimate"):
            load_model(saved)

    @pytest.mark.parametrize("key", ["space", "network"])
    def test_damaged_metadata(self, saved: Path, key: str) -> None:
        rewrite(saved, lambda tensors, metadata: metadata.update({key: "{"}))
        with pytest.raises(UserError, match=f"metadata '{key}'"):
            load_model(saved)

    def test_another_architecture(self, saved: Path) -> None:
        other = dataclasses.replace(SMALL, channels=16)
        save_model(saved, build(SMALL, 3), SPACE, other, {})
        with pytest.raises(UserError, match=r"has shape \(8, .* instead of \(16, .* more"):
            load_model(saved)

    def test_missing_and_unknown_tensors(self, saved: Path) -> None:
        rewrite(saved, lambda tensors, metadata: tensors.update(stranger=tensors.pop("classifier.bias")))
        with pytest.raises(UserError, match=r"classifier\.bias is missing; stranger is unknown"):
            load_model(saved)

    def test_values_that_are_not_finite(self, saved: Path) -> None:
        rewrite(saved, lambda tensors, metadata: tensors["classifier.bias"].fill_(float("nan")))
        with pytest.raises(UserError, match=r"not finite, first classifier\.bias"):
            load_model(saved)


def rewrite(path: Path, change: Callable[[dict, dict], object]) -> None:
    """Alter the tensors or the metadata of a file in place."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["acclimate"])
    change(tensors, metadata)
    save_file(tensors, path, {"acclimate": json.dumps(metadata)})
