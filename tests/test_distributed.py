"""Many processes compute what one does: the number of processes changes the speed alone."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from acclimate import distributed, recipe
from acclimate.data.views import SourceBatch, TargetBatch
from acclimate.errors import UserError
from acclimate.networks import Segmenter, build
from acclimate.selflabel import MemoryBank, PrototypeMeans, label_shares, sinkhorn
from acclimate.stages.distill import DistillTask
from acclimate.stages.initialise import Initial
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.stages.task import Task
from acclimate.stages.warmup import SupervisedTask, WarmupTask
from acclimate.training import descend

CLASSES, HEIGHT, WIDTH, STEPS = 4, 32, 64, 20
BATCH = 4
"""Images of a step, of all processes together."""


def run_processes(world: int, work: Callable[..., Any], *args: Any) -> None:
    """``work(*args)`` in that many processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_enter, (world, port, work, args), nprocs=world)


def _enter(rank: int, world: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with distributed.processes("cpu"):
        work(*args)


def choices(**sections: Any) -> recipe.Recipe:
    network = {"backbone": "test_resnet.r160_in1k", "weights": "none", "channels": 16, "dropout": 0.0}
    network |= sections.pop("network", {})
    optimizer = {"ramp": 0, "lr": 1e-3, "name": "sgd", **sections.pop("optimizer", {})}
    return recipe.parse({"network": network, "optimizer": optimizer, **sections})


def network(seed: int) -> Segmenter:
    torch.manual_seed(seed)
    return build(choices().network, CLASSES)


def batches(step: int) -> tuple[SourceBatch, TargetBatch]:
    """A step's images, some labelled sparsely, so that processes have different numbers of valid pixels."""
    rng = torch.Generator().manual_seed(step)
    h, w = HEIGHT // 4, WIDTH // 4
    image, other = (torch.randint(0, 256, (BATCH, 3, HEIGHT, WIDTH), generator=rng, dtype=torch.uint8) for _ in "st")
    label = torch.randint(0, CLASSES, (BATCH, HEIGHT, WIDTH), generator=rng)
    label[: BATCH // 2, 8:] = 255
    valid = torch.ones(BATCH, h, w, dtype=torch.bool)
    valid[-1, :, 3:] = False
    soft = torch.randn(BATCH, CLASSES, h, w, generator=rng).mul(3).softmax(dim=1) * valid[:, None]
    shift = torch.eye(3).repeat(BATCH, 1, 1)
    shift[:, 0, 2] = 8.0
    replay = torch.full((BATCH, 10), float("nan"))
    replay[:, 0], replay[:, 3] = 0, 8.0
    placed = torch.tensor([HEIGHT, WIDTH, 0, HEIGHT, 0, WIDTH, 0]).repeat(BATCH, 1)
    target = TargetBatch(
        other, other.flip(1), soft, valid, shift, valid, replay, other, placed, torch.arange(BATCH)
    )  # fmt: skip
    return SourceBatch(image, label), target


def part(batch: Any) -> Any:
    """This process's images of a batch."""
    own = distributed.part(BATCH)
    place = slice(distributed.rank() * own, (distributed.rank() + 1) * own)
    return type(batch)(*(value[place] for value in vars(batch).values()))


def make(kind: str) -> Task:
    small = {"bank": 150, "pixels": 24, "weight_uniform": 0.1}
    initial = Initial(torch.tensor([0.4, 0.3, 0.2, 0.1]).double(), torch.eye(CLASSES, 16))
    match kind:
        case "source":
            return SupervisedTask(network(0), choices(), recipe.Supervised())
        case "warmup":
            return WarmupTask(network(0), choices())
        case "selflabel":
            return SelfLabelTask(network(0), initial, choices(selflabel={**small, "weight_contrast": 0.01}))
        case "frugal":
            memory = {"network": {"checkpointing": True}, "optimizer": {"accumulate": 2}}
            return SelfLabelTask(network(0), initial, choices(selflabel=small, **memory))
        case "official":
            return SelfLabelTask(network(0), initial, choices(method="official", selflabel=small))
        case _:
            return DistillTask(network(0), initial.distribution_K, choices(distill={"threshold": 0.5}))


def train(kind: str, folder: Path) -> None:
    task = make(kind).double().train()
    losses = []
    for step in range(STEPS):
        source, target = (part(batch) for batch in batches(step))
        torch.manual_seed(step)
        batch = source if kind == "source" else (source, target)
        terms = descend(task, batch, task.choices.optimizer.accumulate)
        losses.append({name: float(distributed.mean(term)) for name, term in terms.items() if not term.ndim})
    state = task.state_dict()  # of all processes: the bank is in it
    if distributed.is_main():
        torch.save({"losses": losses, "state": state}, folder / f"{kind}-{distributed.count()}.pt")


def train_all(kinds: list[str], folder: Path) -> None:
    for kind in kinds:
        train(kind, folder)


def assert_same(a: Any, b: Any, place: str = "") -> None:
    if isinstance(a, torch.Tensor) and a.is_floating_point():
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=lambda m: f"{place}: {m}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5), place
    else:
        assert a == b, place


KINDS = ["source", "warmup", "selflabel", "frugal", "official", "distill"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one, two and four processes made of the same images."""
    folder = tmp_path_factory.mktemp("processes")
    torch.set_num_threads(1)
    train_all(KINDS, folder)
    run_processes(2, train_all, KINDS, folder)
    run_processes(4, train_all, ["selflabel"], folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "world"), [*((kind, 2) for kind in KINDS), ("selflabel", 4)])
def test_processes_agree_with_one(kind: str, world: int, trained: Path) -> None:
    """Losses, weights, statistics, prototypes, distribution and bank after 20 steps; the bank turns over in between."""
    one, many = (torch.load(trained / f"{kind}-{count}.pt", weights_only=True) for count in (1, world))
    assert one["losses"][0]["loss"] != one["losses"][-1]["loss"]
    for step, (ours, theirs) in enumerate(zip(one["losses"], many["losses"], strict=True)):
        assert_same(ours, theirs, f"step {step}")
    assert_same(one["state"], many["state"])


def check_parts(out: Path) -> None:
    """Properties of the parts, each in the processes themselves."""
    world, rank = distributed.count(), distributed.rank()
    torch.manual_seed(3)
    values = torch.randn(24, CLASSES)
    own = values[rank * 24 // world : (rank + 1) * 24 // world]
    torch.testing.assert_close(distributed.logsumexp(own), values.logsumexp(dim=0))
    first = 24 // world
    torch.testing.assert_close(distributed.logsumexp(own[: 5 * (rank == 1)]), values[first:][:5].logsumexp(dim=0))
    uneven = [values[r * first : r * first + r + 1] for r in range(world)]
    assert all(map(torch.equal, distributed.gather_rows_each(own[: rank + 1]), uneven))
    assert torch.equal(distributed.gather_rows(own), values[: first * world])
    chosen = torch.tensor([23, 0, 7, 7, 12])
    leaf = own.clone().requires_grad_()
    fetched = distributed.fetch(leaf.T.reshape(1, CLASSES, 2, -1), chosen)
    assert torch.equal(fetched, values[chosen])
    fetched.sum().backward()
    everywhere = torch.bincount(chosen, minlength=24)[rank * 24 // world : (rank + 1) * 24 // world]
    assert leaf.grad is not None and torch.equal(leaf.grad[:, 0], world * everywhere.float())

    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    rest = torch.randn(10, CLASSES)
    whole = sinkhorn(torch.cat([values, rest]), shares)[24:]
    torch.testing.assert_close(sinkhorn(rest, shares, remembered_MK=own), whole)

    bank = MemoryBank(7, 1)
    for start in range(0, 18, 3):
        numbers = torch.arange(start, start + 3)
        bank.push(numbers[:, None].float(), numbers)
    state = bank.state_dict()["_extra_state"]
    assert state["label_N"].tolist() == [14, 15, 16, 17, 11, 12, 13] and state["pushed"] == 18
    assert sum(map(len, distributed.gather_rows_each(bank.labels()))) == 7
    twin = MemoryBank(7, 1)
    twin.load_state_dict(bank.state_dict())
    assert torch.equal(twin.features(), bank.features())

    means = PrototypeMeans(CLASSES, 2, min_pixels=1)
    means.add(torch.full((1, 2, 2, 2), float(rank)), torch.eye(CLASSES)[rank].view(1, -1, 1, 1).expand(1, -1, 2, 2))
    assert means.means()[:world, 0].tolist() == list(range(world))
    assert label_shares(torch.full((rank + 1,), rank), CLASSES)[1] == pytest.approx(2 / sum(range(world + 1)))
    assert sorted(chain(*distributed.gathered(list(distributed.share(range(7)))))) == list(range(7))
    check_statistics()
    if world == 2:
        check_traffic()
    with pytest.raises(UserError, match="cannot be divided among"):
        distributed.part(world + 1)
    with pytest.raises(UserError, match="once") as caught:
        distributed.on_main(_refuse)
    assert caught.value.told == (rank > 0)
    (out / str(rank)).touch()


def check_statistics() -> None:
    """BatchNorm over all images, where float32 has no digits to spare, and with one exchange there and one back."""
    from benchmarks.speed.traffic import counted

    torch.manual_seed(4)
    spread, centre = torch.tensor([1.0, 0.02, 30.0, 0.0]), torch.tensor([0.0, 50.0, -4000.0, 7.0])
    norm = torch.nn.BatchNorm2d(4)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    x_BCHW, wanted_BCHW = torch.randn(2, 12, 4, 3, 5)
    x_BCHW = x_BCHW * spread.view(-1, 1, 1) + centre.view(-1, 1, 1)

    def passed(norm: torch.nn.Module, x_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> list[torch.Tensor]:
        leaf_BCHW = x_BCHW.clone().requires_grad_()
        y_BCHW = norm(leaf_BCHW)
        (y_BCHW * wanted_BCHW).sum().backward()
        assert leaf_BCHW.grad is not None
        return [y_BCHW.detach(), leaf_BCHW.grad]

    exact = copy.deepcopy(norm).double()
    whole = passed(exact, x_BCHW.double(), wanted_BCHW.double())
    own = slice(distributed.rank() * 12 // distributed.count(), (distributed.rank() + 1) * 12 // distributed.count())
    with distributed.whole_batch_statistics(), counted() as traffic:
        ours = passed(norm, x_BCHW[own], wanted_BCHW[own])
    assert traffic.exchanges == {"BatchNorm, forward": 1, "BatchNorm, backward": 1}
    for mine, theirs in zip(ours, whole, strict=True):
        torch.testing.assert_close(
            mine / mine.abs().amax((0, 2, 3), True),
            (theirs[own] / mine.abs().amax((0, 2, 3), True)).float(),
            rtol=0,
            atol=2e-3,
        )
    torch.testing.assert_close(norm.running_mean, exact.running_mean.float())
    torch.testing.assert_close(norm.running_var, exact.running_var.float(), rtol=1e-3, atol=1e-6)


def check_traffic() -> None:
    """What a step gives to the others: as docs/scaling.md says, whatever the bank holds and however many images are."""
    from benchmarks.speed.traffic import counted

    found, pixels = [], 24
    for bank, images in ((150, 0), (6000, 10**6)):
        initial = Initial(torch.tensor([0.4, 0.3, 0.2, 0.1]).double(), torch.eye(CLASSES, 16))
        batchwise = {"statistics": "trained"}  # else BatchNorm has nothing to tell
        chosen = choices(selflabel={"bank": bank, "pixels": pixels}, network=batchwise)
        task = SelfLabelTask(network(0), initial, chosen).train()
        source, target = (part(batch) for batch in batches(0))
        target.index_B += images
        for _ in range(2):  # the second has a bank to look at
            torch.manual_seed(0)
            with counted() as traffic:
                descend(task, (source, target))
        found.append((traffic.exchanges, traffic.bytes))
    assert found[0] == found[1]
    exchanges, given = found[0]
    norms = [module for module in task.student.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    channels = sum(norm.num_features for norm in norms)
    assert given["gradients"] == 4 * sum(p.numel() for p in task.parameters() if p.requires_grad)
    assert given["BatchNorm, forward"] == given["BatchNorm, backward"] == 16 * channels
    assert exchanges["BatchNorm, forward"] == exchanges["BatchNorm, backward"] == len(norms)
    assert given["labels to draw pixels from"] == BATCH // 2 * (HEIGHT // 4) * (WIDTH // 4)
    assert 0 < given["features and logits of the drawn pixels"] <= 4 * (pixels * BATCH + CLASSES) * (16 + CLASSES)
    assert given["Sinkhorn"] == 3 * 4 * CLASSES
    assert sum(exchanges.values()) - exchanges["gradients"] - 2 * len(norms) < 12
    assert "other" not in given


def _refuse() -> None:
    raise UserError("once")


@pytest.mark.parametrize("world", [2, 3])
def test_what_processes_share(world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    run_processes(world, check_parts, tmp_path)
    assert len(list(tmp_path.iterdir())) == world
