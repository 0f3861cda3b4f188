"""A step queues its work on a GPU and goes on. Whatever makes it wait is counted here, on a device that is a fake."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_stages import PAIR, choices, initial, network
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

from acclimate import recipe
from acclimate.journal import Journal
from acclimate.stages.distill import DistillTask
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.stages.task import Task
from acclimate.stages.warmup import SupervisedTask, WarmupTask
from acclimate.training import Plan, descend, fit, to_device

aten = torch.ops.aten
FAKE = torch.device("meta")
"""Name of the fake device: torch computes nothing on it, so that nothing can be on it but an `OnDevice`."""
READS = {
    aten._local_scalar_dense, aten.nonzero, aten.bincount, aten.masked_select, aten.equal, aten.is_nonzero,
    aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.unique_dim_consecutive,
    aten.repeat_interleave.Tensor.overloadpacket,
}  # fmt: skip
"""Operations whose result, or its shape, Python must know before it can go on."""


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; its values are here."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        strides = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        kind = {"dtype": values.dtype, "layout": values.layout, "device": FAKE}
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, **strides, **kind)

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def tolist(self) -> Any:  # which torch has for its own tensors only
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the device outside of the watch")


class Watch(TorchDispatchMode):
    """Computes what is on the device, and notes every operation that would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [isinstance(value, OnDevice) for value in tensors]
        assert not any(type(value) is Tensor and value.device == FAKE for value in tensors), (
            f"{func}: numbers of Python's went to the device by torch.tensor or new_tensor, which waits"
        )
        asked = kwargs.get("device")
        stays = any(there) if asked is None else torch.device(asked) == FAKE
        if self.waiting(func, args, kwargs, tensors, there, stays):
            self.waits.append(str(func))
        if asked is not None and stays:
            kwargs["device"] = torch.device("cpu")
        plain = tree_map_only(OnDevice, lambda value: value.values, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if not stays:
            return result
        wrapped = tree_map_only(Tensor, OnDevice, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    @staticmethod
    def waiting(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], there: list[bool], stays: bool) -> bool:
        """Whether Python cannot go on before the device is done with all that was queued."""
        kind = func.overloadpacket
        if kind in (aten._to_copy, aten.copy_):
            unhurried = kwargs.get("non_blocking") or (kind is aten.copy_ and args[2:] == (True,))
            return len({*there, stays}) > 1 and not (stays and unhurried)
        if not any(there):
            return False
        if kind in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            return bool(masks) or not all(there)
        # A single number may come from here; anything larger would have to be brought there first.
        return kind in READS or any(not on and value.dim() for on, value in zip(there, tensors, strict=True))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """What torch has no way to do on a device of this name is put right."""
    torch.__future__.set_swap_module_params_on_conversion(True)  # Module.to would replace what the optimisers hold
    optimizer = import_module("torch.optim.optimizer")
    fused = optimizer._get_fused_kernels_supported_devices
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused(), FAKE.type])
    monkeypatch.setattr("torch.autocast", lambda *args, **kwargs: nullcontext())
    with Watch() as watch:
        yield watch
    torch.__future__.set_swap_module_params_on_conversion(False)


def official(**section: Any) -> recipe.Recipe:
    return choices(method="official", selflabel={"bank": 96, "pixels": 32, **section})  # type: ignore[arg-type]


TASKS: dict[str, Callable[[], Task]] = {
    "source": lambda: SupervisedTask(network(), choices(), recipe.Supervised()),
    "warmup": lambda: WarmupTask(network(), choices()),
    "selflabel": lambda: SelfLabelTask(network(), initial(), choices(selflabel={"bank": 96, "pixels": 32})),
    "selflabel-uniform": lambda: SelfLabelTask(network(), initial(), choices(selflabel={"stratified": False})),
    "distill": lambda: DistillTask(network(), initial().distribution_K, choices(distill={"threshold": 0.5})),
}
READS_OF_A_STEP = {"selflabel": 1, "selflabel-uniform": 1}
"""How many pixels are drawn depends on how many of each class there are."""


def learn(task: Task, folder: Path, each: Callable[[], None] = lambda: None, steps: int = 6) -> None:
    """Train for some steps, with a log line every second one; ``each`` is called before every step, and at the end."""

    def batches(start: int) -> Iterator[Any]:
        for _ in range(start, steps):
            each()
            yield PAIR[0] if isinstance(task, SupervisedTask) else PAIR

    plan, journal = Plan("some", steps, folder), Journal(folder / "metrics.jsonl")
    fit(task, batches, plan, dataclasses.replace(task.choices, log_every=2, save_every=100), journal)
    each()


@pytest.mark.parametrize("kind", TASKS)
def test_a_step_does_not_wait_for_the_device_but_to_log(kind: str, tmp_path: Path, watch: Watch) -> None:
    task, seen = TASKS[kind]().to(FAKE), []
    learn(task, tmp_path, lambda: seen.append(len(watch.waits)))
    waited = [after - before for before, after in pairwise(seen)]
    own = READS_OF_A_STEP.get(kind, 0)
    assert waited == [own, own + 2] * 3, watch.waits[seen[0] :]  # losses, and whether all is finite


@pytest.mark.parametrize("kind", TASKS)
def test_the_device_computes_what_it_should(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What the counts rest on: to the digit, the losses are those that the CPU finds."""
    for name in ("plain", "device"):
        (tmp_path / name).mkdir()
    learn(TASKS[kind](), tmp_path / "plain")
    request.getfixturevalue("watch")
    learn(TASKS[kind]().to(FAKE), tmp_path / "device")
    plain, device = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("plain", "device"))
    assert plain and plain == device


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: bool((x > 0).all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.long().bincount(),
        lambda x: x.unique(),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x[torch.zeros(3, dtype=torch.long)],
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.index_put((x > 0,), torch.zeros(()).to(x.device, non_blocking=True)),
    ],
    ids=range(13),
)
def test_whatever_waits_is_seen(wait: Callable[[Tensor], Any], watch: Watch) -> None:
    x = torch.arange(3.0).to(FAKE, non_blocking=True)
    assert not watch.waits
    wait(x)
    assert watch.waits


def test_numbers_made_tensors_on_the_device_are_seen(watch: Watch) -> None:
    x = torch.ones(2).to(FAKE, non_blocking=True)
    with pytest.raises(AssertionError, match="which waits"):
        x.new_tensor([1.0, 2.0]) + x


def test_the_official_method_waits_more_often(tmp_path: Path, watch: Watch) -> None:
    """It carries maps from view to view by numbers that Python reads, and contrasts as many pixels as it finds."""
    task = SelfLabelTask(network(), initial(), official()).to(FAKE)
    watch.waits.clear()
    learn(task, tmp_path, steps=1)
    assert len(watch.waits) - 2 > 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", TASKS)
def test_on_a_gpu_torch_itself_finds_no_other_waits(kind: str) -> None:
    task = TASKS[kind]().to("cuda").train()
    batch = to_device(PAIR[0] if kind == "source" else PAIR, torch.device("cuda"))
    descend(task, batch)  # what is waited for once only, as for the first allocations
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        descend(task, batch)
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "called a synchronizing" in str(warning.message)]
    assert len(waits) == READS_OF_A_STEP.get(kind, 0), waits


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", TASKS)
def test_a_gpu_learns_what_the_cpu_does(kind: str) -> None:
    """To what float32 leaves of one step: other kernels add up in another order, and dropout draws elsewhere."""
    losses = []
    for device in ("cpu", "cuda"):
        task = TASKS[kind]().to(device).eval()
        torch.manual_seed(0)
        pair = to_device(PAIR, torch.device(device))
        losses.append(float(descend(task, pair[0] if kind == "source" else pair)["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
