"""Official checkpoints: read as they are, refused where they are something else, converted there and back."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from acclimate import cli, recipe
from acclimate.errors import UserError
from acclimate.labels import LabelSpace, label_space
from acclimate.networks import build, deeplab, official
from acclimate.networks.convert import convert
from acclimate.networks.weights import load_model, require_space, save_model
from acclimate.prediction import load

SMALL = {"BLOCKS": (1, 1, 1, 1), "HEAD_DILATIONS": (6,)}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(deeplab, name, value)


@pytest.fixture(scope="module")
def states() -> Callable[..., OrderedDict[str, torch.Tensor]]:
    """State dictionaries of the network by class count and extra normalisation, drawn once."""
    made: dict[tuple[int, bool], OrderedDict[str, torch.Tensor]] = {}

    def state(classes: int = 19, extra_norm: bool = False) -> OrderedDict[str, torch.Tensor]:
        if (classes, extra_norm) not in made:
            torch.manual_seed(classes)
            made[classes, extra_norm] = deeplab.DeepLab(classes, extra_norm=extra_norm).state_dict()
        return made[classes, extra_norm].copy()

    return state


def cpsl(state: dict, classes: int = 19, **more: Any) -> dict[str, Any]:
    """What the official code saves in stage 1."""
    prototypes = torch.randn(classes, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network = {"model_state": state, "prototypes_ema": prototypes}
    return {"ResNet101": network, **more, "iter": 84001, "best_iou": np.float64(0.1) + np.float64(0.2)}


@pytest.fixture
def checkpoint(states: Callable, tmp_path: Path) -> Path:
    path = tmp_path / "from_gta5_to_cityscapes_on_deeplabv2_best_model.pkl"
    torch.save(cpsl(states()), path)
    return path


def same(a: Any, b: Any) -> bool:
    """Equal in nesting, order, types and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = a.dtype == b.dtype and a.shape == b.shape and a.requires_grad == b.requires_grad
        return bits and a.detach().contiguous().numpy().tobytes() == b.detach().contiguous().numpy().tobytes()
    if isinstance(a, dict):
        versions = getattr(a, "_metadata", None) == getattr(b, "_metadata", None)
        return versions and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def nested_in_itself() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["a"] = tree
    return tree


def there_and_back(tree: Any, folder: Path, *, legacy: bool = False) -> tuple[Any, Path]:
    """The content of a file after conversion to safetensors and back, and the safetensors file."""
    first, ours, last = folder / "in.pkl", folder / "ours.safetensors", folder / "out.pkl"
    torch.save(tree, first, _use_new_zipfile_serialization=not legacy)
    convert(first, ours)
    convert(ours, last)
    return torch.load(last, weights_only=False), ours


class TestLoads:
    @pytest.mark.parametrize(
        ("suffix", "legacy"), [(".pkl", False), (".pth", True), (".tar", False), (".safetensors", False)]
    )
    def test_the_network_whatever_the_container(
        self, states: Callable, tmp_path: Path, suffix: str, legacy: bool
    ) -> None:
        path = tmp_path / f"model{suffix}"
        torch.save(cpsl(states()), path, _use_new_zipfile_serialization=not legacy)
        generator = torch.get_rng_state()
        network, space, metadata = load_model(path)
        assert torch.equal(torch.get_rng_state(), generator)
        assert not network.training
        assert space == label_space("cityscapes19")
        assert metadata["width"] == 2048
        assert same(dict(network.state_dict()), dict(states()))

    @pytest.mark.parametrize(("classes", "extra_norm"), [(19, True), (16, True), (13, False)])
    def test_classes_and_extra_norm_are_told_from_the_tensors(
        self, states: Callable, tmp_path: Path, classes: int, extra_norm: bool
    ) -> None:
        torch.save(cpsl(states(classes, extra_norm), classes), tmp_path / "m.pkl")
        network, space, _ = load_model(tmp_path / "m.pkl")
        assert space == label_space(f"cityscapes{classes}")
        assert isinstance(network.bn_pretrain, nn.BatchNorm2d if extra_norm else nn.Identity)
        image = torch.rand(1, 3, 40, 56)
        assert network(image).logits_BKhw.shape[1] == classes

    def test_as_a_model_for_prediction(self, checkpoint: Path) -> None:
        model = load(checkpoint, device="cpu")
        assert model.width == 2048
        assert len(model.space) == 19

    def test_proda_data_parallel_and_without_counters(self, states: Callable, tmp_path: Path) -> None:
        state = {f"module.{k}": v for k, v in states().items() if not k.endswith("num_batches_tracked")}
        tree = {"ResNet101": {"model_state": state, "objective_vectors": torch.zeros(19, 256)}, "iter": 1}
        torch.save(tree, tmp_path / "m.pkl")
        network, *_ = load_model(tmp_path / "m.pkl")
        assert torch.equal(network.layer4[0].conv2.weight, state["module.layer4.0.conv2.weight"])

    def test_matches_are_reported(self, checkpoint: Path, caplog: pytest.LogCaptureFixture, states: Callable) -> None:
        with caplog.at_level(logging.INFO, logger="acclimate"):
            load_model(checkpoint)
        expected = f"{len(states())} tensors matched, 0 missing, 1 (official.ResNet101.prototypes_ema) left over"
        assert expected in caplog.text


class TestConverts:
    @pytest.mark.parametrize(("legacy", "extra_norm"), [(False, False), (True, True)])
    def test_there_and_back_without_loss(
        self, states: Callable, tmp_path: Path, legacy: bool, extra_norm: bool
    ) -> None:
        tree = cpsl(states(extra_norm=extra_norm))
        back, ours = there_and_back(tree, tmp_path, legacy=legacy)
        assert same(back, tree)
        convert(tmp_path / "out.pkl", tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == ours.read_bytes()

    def test_all_else_in_the_file_is_kept(self, states: Callable, tmp_path: Path) -> None:
        judge = nn.Conv2d(19, 4, 3)
        tree = cpsl(states())
        tree["FCDiscriminator"] = {
            "model_state": judge.state_dict(),
            "prototypes_ema": tree["ResNet101"]["prototypes_ema"],  # the very same tensor, as in the official code
        }
        optimizer = torch.optim.SGD(judge.parameters(), lr=0.1, momentum=0.9)
        judge(torch.rand(1, 19, 4, 4)).sum().backward()
        optimizer.step()
        tree["ResNet101"]["optimizer_state"] = optimizer.state_dict()
        tree["odd"] = [
            None,
            True,
            -3,
            float("inf"),
            float("nan"),
            "ü",
            b"\xff",
            (1, ("a",)),
            np.float32(0.1),
            np.int64(7),
        ]
        tree["tensors"] = [torch.zeros(()), torch.arange(6).view(2, 3).T, torch.ones(2).bfloat16(), torch.zeros(0, 3)]
        back, _ = there_and_back(tree, tmp_path)
        bfloat = (tree["tensors"].pop(2), back["tensors"].pop(2))
        assert bfloat[0].dtype == bfloat[1].dtype and torch.equal(*bfloat)
        assert same(back, tree)

    def test_order_prefix_and_precision_are_kept(self, states: Callable, tmp_path: Path) -> None:
        state = {f"module.{key}": value.half() for key, value in reversed(states().items())}
        back, _ = there_and_back({"ResNet101": {"model_state": state}}, tmp_path)
        assert same(back, {"ResNet101": {"model_state": state}})

    def test_both_formats_give_the_same_predictions(self, checkpoint: Path, tmp_path: Path) -> None:
        convert(checkpoint, tmp_path / "a.safetensors")
        convert(tmp_path / "a.safetensors", tmp_path / "b.pkl")
        image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
        first, *others = (
            load_model(path)[0](image) for path in (checkpoint, tmp_path / "a.safetensors", tmp_path / "b.pkl")
        )
        assert all(torch.equal(first.logits_BKhw, other.logits_BKhw) for other in others)

    @pytest.mark.parametrize("classes", ["cityscapes19", "streets"])
    def test_a_model_of_ours_there_and_back(self, tmp_path: Path, classes: str) -> None:
        space = label_space(classes)
        choice = recipe.Network(architecture="deeplab", weights="none", dropout=0.2)
        ours, pkl, again = tmp_path / "a.safetensors", tmp_path / "b.pkl", tmp_path / "c.safetensors"
        network = build(choice, len(space))
        save_model(ours, network, space, choice, {"width": 480, "note": "ü"})
        convert(ours, pkl)
        tree = torch.load(pkl, weights_only=True)
        assert list(tree) == ["ResNet101", "iter", "best_iou", "acclimate"]
        assert list(tree["ResNet101"]["model_state"]) == list(network.state_dict())
        assert load_model(pkl)[1] == space
        convert(pkl, again)
        assert again.read_bytes() == ours.read_bytes()

    def test_what_the_entry_of_ours_says_is_checked(self, checkpoint: Path) -> None:
        tree = torch.load(checkpoint, weights_only=False)
        for entry in ("{", "[]", "{}", 3, json.dumps({"format": "acclimate", "version": "1", "space": 3})):
            torch.save({**tree, "acclimate": entry}, checkpoint)
            with pytest.raises(UserError, match=checkpoint.name):
                load_model(checkpoint)

    def test_command_line(self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        out = tmp_path / "new" / "m.safetensors"
        assert cli.main(["convert", str(checkpoint), str(out)]) == 0
        printed = capsys.readouterr().out
        assert (
            "19 classes (cityscapes19), without extra normalisation, iter 84001, best_iou 0.30000000000000004"
            in printed
        )
        assert "0 missing, 1 (official.ResNet101.prototypes_ema) left over" in printed
        before = out.read_bytes()
        assert cli.main(["convert", str(checkpoint), str(out)]) == 2
        assert "exists" in capsys.readouterr().err
        assert cli.main(["convert", str(checkpoint), str(out), "--overwrite"]) == 0
        assert out.read_bytes() == before

    def test_what_cannot_be_converted(self, checkpoint: Path, tmp_path: Path) -> None:
        light = recipe.Network(backbone="test_resnet", weights="none", channels=8)
        model = tmp_path / "light.safetensors"
        save_model(model, build(light, 19), label_space("cityscapes19"), light, {"width": 480})
        for source, name, message in (
            (model, "a.pkl", "paper's network alone"),
            (model, "a.safetensors", "is a model of Acclimate already"),
            (checkpoint, "a.pth", "in the official layout already"),
            (checkpoint, "a.onnx", "the suffix says what to write"),
            (tmp_path / "none.pkl", "a.safetensors", "no such model"),
        ):
            with pytest.raises(UserError, match=message):
                convert(source, tmp_path / name)
            assert not (tmp_path / name).exists()

    def test_a_damaged_record_of_the_nesting(self, checkpoint: Path, tmp_path: Path) -> None:
        from acclimate.networks.weights import write

        convert(checkpoint, tmp_path / "a.safetensors")
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = json.loads(file.metadata()["acclimate"])
        for damage in ({"dict": [["a", {"tensor": "gone"}]]}, {"what": 1}, {}, {"dict": 3}):
            write(tmp_path / "a.safetensors", tensors, {**metadata, "official": damage})
            with pytest.raises(UserError, match="'official' of the model is damaged"):
                convert(tmp_path / "a.safetensors", tmp_path / "b.pkl")


class Exploit:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


class Objected:
    """Builds through NEWOBJ and BUILD instead of a function call."""

    def __setstate__(self, state: object) -> None:
        pytest.fail("an object of the file was built")

    def __getstate__(self) -> dict:
        return {"a": 1}


class TestMaliciousFiles:
    @pytest.fixture
    def trap(self, tmp_path: Path) -> Iterator[Path]:
        yield tmp_path / "executed"
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(
        "entrance", [load_model, lambda path: build(recipe.Network("deeplab", weights=str(path)), 19)]
    )
    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    def test_a_bare_pickle(self, trap: Path, tmp_path: Path, protocol: int, entrance: Callable) -> None:
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(Exploit(trap), protocol))
        with pytest.raises(UserError, match=r"m\.pkl"):
            entrance(tmp_path / "m.pkl")

    @pytest.mark.parametrize(
        "entrance", [load_model, lambda path: build(recipe.Network("deeplab", weights=str(path)), 19)]
    )
    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_hidden_in_a_checkpoint(
        self, states: Callable, trap: Path, tmp_path: Path, legacy: bool, entrance: Callable
    ) -> None:
        path = tmp_path / "m.pkl"
        for evil in (Exploit(trap), Objected(), np.array([Exploit(trap)], object), nn.Linear(1, 1)):
            torch.save(cpsl(states(), more=evil), path, _use_new_zipfile_serialization=not legacy)
            with pytest.raises(UserError, match=r"m\.pkl: refused.*could run code.*asks for .*save it anew"):
                entrance(path)

    def test_conversion_and_prediction_refuse_it_too(self, trap: Path, tmp_path: Path) -> None:
        torch.save({"ResNet101": Exploit(trap)}, tmp_path / "m.pkl")
        for words in (["convert", "m.pkl", "o.safetensors"], ["predict", "m.pkl", "m.pkl", "--out", "o"]):
            assert cli.main([w if w in ("convert", "predict", "--out") else str(tmp_path / w) for w in words]) == 2
        assert not (tmp_path / "o.safetensors").exists()

    def test_numbers_of_numpy_are_all_that_is_allowed(self, tmp_path: Path) -> None:
        for value in (np.dtype("O"), np.datetime64("2020-01-01"), np.str_("a"), np.void(b"ab")):
            torch.save({"a": value}, tmp_path / "m.pkl")
            with pytest.raises(UserError, match="refused"):
                load_model(tmp_path / "m.pkl")


class TestRefuses:
    def change(self, path: Path, change: Callable[[OrderedDict], object]) -> None:
        tree = torch.load(path, weights_only=False)
        change(tree["ResNet101"]["model_state"])
        torch.save(tree, path)

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_a_truncated_file(self, states: Callable, tmp_path: Path, legacy: bool) -> None:
        path = tmp_path / "m.pkl"
        torch.save(cpsl(states()), path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        for length in (0, 1, 8, 300, len(whole) // 2, len(whole) - 7):
            path.write_bytes(whole[:length])
            with pytest.raises(UserError, match=r"m\.pkl: damaged"):
                load_model(path)

    def test_values_that_are_not_finite(self, checkpoint: Path) -> None:
        self.change(checkpoint, lambda state: state["layer3.0.conv1.weight"].view(-1)[3].fill_(float("nan")))
        with pytest.raises(UserError, match=r"not finite, first layer3\.0\.conv1\.weight"):
            load_model(checkpoint)

    def test_a_deeper_network(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deeplab, "BLOCKS", (1, 2, 1, 1))
        with pytest.raises(UserError, match=r"layer2\.1\.conv1\.weight is missing.*another architecture"):
            load_model(checkpoint)

    def test_other_class_counts(self, states: Callable, tmp_path: Path) -> None:
        torch.save(cpsl(states(7), 7), tmp_path / "m.pkl")
        with pytest.raises(UserError, match="a network of 7 classes, but official checkpoints have 19, 16, 13"):
            load_model(tmp_path / "m.pkl")

    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            (
                {"layer5.conv2d_list.0.weight": torch.zeros(19, 8, 3, 3)},
                "plain DeepLab-v2 of 19 classes.*network.weights",
            ),
            ({"state_dict": {"conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}}, "classification network"),
            ({"resnet": {"net.0.0.weight": torch.zeros(2)}, "head": {}}, "classification network.*network.weights"),
            ({"ema": {"encoder.a": torch.zeros(2), "encoder.b": torch.zeros(2)}}, "2 tensors such as encoder.a"),
            ({"iter": 3, "config": {"lr": 1.0}}, "without named tensors .found: iter, config"),
            ([1, 2], "without named tensors .found: list"),
            (nested_in_itself(), "itself"),
            (torch.zeros(3), "without named tensors .found: Tensor"),
        ],
        ids=["plain deeplab", "resnet", "simclr", "foreign", "no tensors", "list", "cycle", "tensor"],
    )
    def test_another_architecture(self, tmp_path: Path, tree: Any, message: str) -> None:
        torch.save(tree, tmp_path / "m.pkl")
        with pytest.raises(UserError, match=rf"m\.pkl: .*{message}"):
            load_model(tmp_path / "m.pkl")

    def test_what_could_not_be_kept(self, states: Callable, tmp_path: Path) -> None:
        torch.save(cpsl(states(), odd={"place": torch.float16}), tmp_path / "m.pkl")
        with pytest.raises(UserError, match=r"odd\.place is of type dtype"):
            load_model(tmp_path / "m.pkl")

    def test_classes_that_were_not_asked_for(self, checkpoint: Path) -> None:
        space = load_model(checkpoint)[1]
        require_space(space, label_space("cityscapes19"), checkpoint)
        with pytest.raises(
            UserError,
            match=r"best_model\.pkl: a model of 19 classes \(cityscapes19\), but 16 are asked for \(cityscapes16\): "
            r"it has besides terrain, truck, train; set data.classes to cityscapes19",
        ):
            require_space(space, label_space("cityscapes16"), checkpoint)
        turned = LabelSpace("turned", space.classes[::-1], space.colours)
        with pytest.raises(UserError, match="in another order"):
            require_space(space, turned, checkpoint)


@pytest.mark.slow
def test_the_full_network_there_and_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    with torch.random.fork_rng(devices=[]):
        state = deeplab.DeepLab(16, extra_norm=True).state_dict()
    assert len(state) == 658
    tree = cpsl(state, 16)
    back, ours = there_and_back(tree, tmp_path)
    assert same(back, tree)
    assert load_model(ours)[1] == label_space("cityscapes16")
    assert official.read(tmp_path / "out.pkl")[1]["official"] == official.read(tmp_path / "in.pkl")[1]["official"]
