"""Choices of a recipe that save memory or time, and what they leave as it was."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_stages import PAIR, initial, source_batch
from torch import Tensor, nn

from acclimate import distributed, recipe
from acclimate.data.geometry import Grid
from acclimate.errors import UserError
from acclimate.journal import Journal
from acclimate.networks import Segmenter, build, deeplab
from acclimate.networks.execution import arrange, recompute_blocks, require_compiler
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.stages.task import Task
from acclimate.stages.warmup import SupervisedTask
from acclimate.training import Plan, descend, fit, require_parts

CHOICES: dict[str, dict[str, Any]] = {
    "contiguous": {"network": {"channels_last": False}},
    "checkpointing": {"network": {"checkpointing": True}},
    "compile": {"network": {"compile": True}},
    "accumulate": {"optimizer": {"accumulate": 2}},
    "bfloat16": {"precision": "bfloat16"},
    "all but compile": {
        "network": {"checkpointing": True},
        "optimizer": {"accumulate": 2},
        "precision": "bfloat16",
    },
}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name == "compile")) for name in CHOICES]
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"backbone": "test_resnet"},
    "lite": {"backbone": "efficientnet_lite0"},
    "deeplab": {"architecture": "deeplab"},
}


@pytest.fixture(autouse=True)
def small_deeplab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeplab, "BLOCKS", (2, 1, 1, 1))
    monkeypatch.setattr(deeplab, "HEAD_DILATIONS", (6,))


def choices(network: str = "resnet", choice: dict[str, Any] | None = None) -> recipe.Recipe:
    choice = choice or {}
    return recipe.parse({
        "selflabel": {"bank": 512, "pixels": 32},
        "save_every": 2,
        "log_every": 1,
        **choice,
        "network": {"weights": "none", "channels": 16, **NETWORKS[network], **choice.get("network", {})},
        "optimizer": {"ramp": 0, "lr": 1e-3, "name": "sgd", **choice.get("optimizer", {})},
    })  # fmt: skip


def fresh(chosen: recipe.Recipe) -> Segmenter:
    """Its channels that are constant do not lie on ReLU's kink, where the last bit decides if a gradient passes."""
    torch.manual_seed(0)
    network = build(chosen.network, 4)
    for name, bias in network.named_parameters():
        if bias.ndim == 1 and name.endswith("bias"):
            nn.init.constant_(bias, 0.1)
    return network


def stage_1(network: str = "resnet", choice: dict[str, Any] | None = None) -> SelfLabelTask:
    chosen = choices(network, choice)
    student = fresh(chosen)
    return SelfLabelTask(student, initial()._replace(proto_KD=torch.eye(4, student.channels)), chosen).train()


def learn(task: Task, steps: int = 2) -> list[dict[str, float]]:
    """The losses of some steps on one batch, brought to the cells of the task's network."""
    source, target = PAIR
    rows, columns = task.grid.cells(target.size_hw)
    maps = {name: value[..., :rows, :columns] for name, value in vars(target).items() if name.endswith("hw")}
    told = []
    for step in range(steps):
        torch.manual_seed(step)
        terms = descend(task, (source, dataclasses.replace(target, **maps)), task.choices.optimizer.accumulate)
        told.append({name: float(term) for name, term in terms.items() if not term.ndim})
    return told


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("choice", ["contiguous", "checkpointing"])
def test_the_network_s_choices_change_no_more_than_rounding(choice: str, network: str) -> None:
    plain, chosen = stage_1(network).double(), stage_1(network, CHOICES[choice]).double()
    for ours, theirs in zip(learn(plain), learn(chosen), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    before, after = plain.state_dict(), chosen.state_dict()
    assert list(before) == list(after)
    tensors = [name for name, value in before.items() if isinstance(value, Tensor)]
    if choice == "checkpointing":
        assert all(torch.equal(before[name], after[name]) for name in tensors)
    for name in tensors:
        torch.testing.assert_close(before[name], after[name], rtol=1e-6, atol=1e-9, msg=lambda m, at=name: f"{at}: {m}")


class Tiny(Segmenter):
    """So small that it is compiled in seconds; with all that compiling could change: BatchNorm and dropout."""

    HEAD = ("classifier",)

    def __init__(self) -> None:
        super().__init__(num_classes=4, channels=6, grid=Grid(4))
        block = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4, padding=1), nn.BatchNorm2d(6))
        self.backbone = nn.Sequential(Block(block))
        self.classifier = nn.Conv2d(6, 4, 1)

    def features(self, x_BCHW: Tensor) -> Tensor:
        return self.backbone(x_BCHW)

    def drop(self, feat_BDhw: Tensor) -> Tensor:
        return nn.functional.dropout2d(feat_BDhw, 0.5, self.training)

    def classify(self, dropped_BDhw: Tensor) -> Tensor:
        return self.classifier(dropped_BDhw)


class Block(nn.Module):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.layers(x_BCHW).relu()


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_network_learns_the_same(checkpointing: bool) -> None:
    told, states = [], []
    for compiled in (False, True):
        chosen = choices(choice={"network": {"compile": compiled, "checkpointing": compiled and checkpointing}})
        torch.manual_seed(0)
        task = SelfLabelTask(Tiny(), initial()._replace(proto_KD=torch.eye(4, 6)), chosen).double().train()
        told.append(learn(task, steps=3))
        states.append({name: value for name, value in task.state_dict().items() if isinstance(value, Tensor)})
        assert (copy.deepcopy(task.student)._compiled_call_impl is None) and compiled == (
            task.student._compiled_call_impl is not None
        )
    for plain, other in zip(*told, strict=True):
        assert plain == pytest.approx(other, rel=1e-9)
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("choice", EACH)
def test_a_run_goes_on_exactly_with_every_choice(choice: str, tmp_path: Path) -> None:
    chosen = choices(choice=CHOICES[choice])

    def first() -> Segmenter:
        torch.manual_seed(0)
        return Tiny() if choice == "compile" else build(chosen.network, 4)

    def train(folder: Path, stop_at: int = -1) -> dict[str, Tensor]:
        def batches(start: int) -> Iterator[Any]:
            for step in range(start, 5):
                if step == stop_at:
                    raise KeyboardInterrupt
                yield source_batch()

        folder.mkdir(exist_ok=True)
        task = SupervisedTask(first(), chosen, recipe.Supervised())
        fit(task, batches, Plan("source", 5, folder), chosen, Journal(folder / "metrics.jsonl"))
        return task.kept.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop_at=3)
    again = train(tmp_path / "broken")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert list(whole) == list(first().state_dict())
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert records[0] == records[1]


def test_parts_give_the_gradient_of_the_whole_batch() -> None:
    """Of a network without BatchNorm, where all parts have as many labelled pixels."""
    weights = []
    for accumulate in (1, 2, 4):
        chosen = choices(choice={
            "network": {"backbone": "test_convnext", "dropout": 0.0}, "optimizer": {"accumulate": accumulate},
        })  # fmt: skip
        task = SupervisedTask(fresh(chosen), chosen, recipe.Supervised()).double().train()
        for _ in range(3):
            loss = descend(task, source_batch(4), accumulate)["loss"]
        weights.append([loss, *task.student.parameters()])
    for ours, theirs in zip(weights[0] * 2, weights[1] + weights[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_parts_are_the_same_whether_or_not_processes_have_divided_the_batch() -> None:
    batch = source_batch(8)
    batch.label_BHW[:, 0, 0] = torch.arange(8)
    halves = [type(batch)(*(value[place] for value in vars(batch).values())) for place in (slice(4), slice(4, 8))]
    for part, *own in zip(batch.parts(2), *(half.parts(2) for half in halves), strict=True):
        assert part.label_BHW[:, 0, 0].tolist() == [int(i) for half in own for i in half.label_BHW[:, 0, 0]]


def test_parts_enter_the_bank_one_after_the_other() -> None:
    task = stage_1(choice=CHOICES["accumulate"])
    learn(task, steps=1)
    assert len(task.clusters.bank) == 2 * 32


def test_a_batch_must_have_as_many_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    require_parts("source", 8, 4)
    monkeypatch.setattr(distributed, "count", lambda: 4)
    with pytest.raises(UserError, match=r"a process has 2 of the 8 images of source\.batch, .* in 4 equal parts"):
        require_parts("source", 8, 4)


@pytest.mark.parametrize("network", NETWORKS)
def test_recomputing_keeps_less(network: str) -> None:
    chosen = choices(network)
    plain, recomputing = fresh(chosen).train(), fresh(chosen).train()
    recompute_blocks(recomputing)
    assert kept(recomputing) < 0.8 * kept(plain)


def kept(network: Segmenter) -> int:
    sizes = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        said = network(torch.zeros(2, 3, 64, 96))  # bound, so that no storage is freed and its address given anew
    assert said.logits_BKhw.requires_grad
    return sum(sizes.values())


def test_a_copy_of_a_network_recomputes_its_own_blocks() -> None:
    network = fresh(choices()).train()
    recompute_blocks(network)
    twin = copy.deepcopy(network)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert twin(torch.rand(2, 3, 64, 96)).feat_BDhw.std() > 0


def test_a_network_without_blocks_cannot_recompute() -> None:
    network = fresh(choices())
    network.backbone = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match=r"network\.checkpointing: test_resnet is no sequence of blocks"):
        arrange(network, recipe.Network(checkpointing=True))


class Pair(nn.Module):
    """A block that is given a list and changes it, as HRNet's do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps[0] = self.layer(maps[0])
        return [maps[0], maps[0] + maps[1]]


def test_blocks_that_are_given_lists_are_not_computed_anew() -> None:
    network = fresh(choices())
    network.backbone = nn.Sequential(Pair(), Pair())
    maps = torch.ones(1, 1, 4, 4)
    gradients = []
    for _ in "ab":
        network.backbone([maps, maps])[1].square().sum().backward()
        gradients.append([p.grad for p in network.backbone.parameters()])
        network.zero_grad()
        recompute_blocks(network)
    assert gradients[0] == gradients[1]


def test_a_missing_compiler_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.raises(
        UserError, match=r"cannot compile for cpu \(InvalidCxxCompiler: No working C\+\+ compiler found\)"
    ):
        require_compiler(torch.device("cpu"))


def test_many_processes_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(UserError, match="statistics of many processes cannot be compiled"):
        require_compiler(torch.device("cpu"))


@pytest.mark.slow
def test_this_machine_compiles() -> None:
    require_compiler(torch.device("cpu"))


@pytest.mark.skipif(sys.platform != "linux", reason="tells the C library of Linux")
def test_memory_that_is_freed_is_given_back() -> None:
    # In a process of its own: the choice stays, and other tests' holes would blur what is counted.
    code = """
import resource, torch
from pathlib import Path
from acclimate.devices import give_back_memory
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
def holes():
    full = [torch.ones(1 << 18) for _ in range(200)]  # 1 MiB each
    del full[1::2], full[::10]
    return full
kept = holes()  # glibc keeps what is this large from its second time on
give_back_memory()
before = resident()
kept += holes()
print(resident() - before, sum(map(len, kept)) >> 19)
"""
    grown, kept = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert grown < 0.6 * kept + 30, "holes are still resident"
