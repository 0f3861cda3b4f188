"""Many processes: what travels in a step, what a cost model makes of it, and what two and four processes here need.

The model: a step takes the arithmetic of one process's part of the batch, plus for each exchange the time that an
empty one takes, plus the bytes over the bandwidth. It knows of no overlap, since there is none.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from acclimate import distributed, recipe
from acclimate.networks import Segmenter
from acclimate.stages.selflabel import SelfLabelTask
from acclimate.training import descend
from benchmarks import cost
from benchmarks.speed.step import CLASSES, random_batch, untrained
from benchmarks.speed.traffic import counted

BATCH, CROP = 8, (96, 128)
STEPS = 7
BATCHWISE = ("network.weights=none", "network.dropout=0", "network.statistics=trained")
"""BatchNorm by the statistics of batches, as in all other stages and in the paper's stage 1."""
OTHERS = 12
"""Exchanges of a step of stage 1 beside gradients and BatchNorm: see the table that `print_traffic` prints."""


@dataclass(frozen=True)
class Cluster:
    """Assumed machines, for the table of what was not measured."""

    flops: float = 20e12
    """Per second and rank: as in `benchmarks/cost.py`."""
    inside: int = 8
    """Ranks in one machine."""
    bandwidth: tuple[float, float] = (100e9, 12.5e9)
    """Bytes per second and rank, inside a machine (NVLink) and between machines (100 Gbit/s a GPU)."""
    latency: tuple[float, float] = (20e-6, 40e-6)
    """Seconds of an exchange of no size, inside and between machines."""

    def seconds(self, ranks: int, exchanges: int, sent: int) -> tuple[float, float]:
        """Seconds that the exchanges and their bytes take, with a ring of that many ranks."""
        if ranks == 1:
            return 0.0, 0.0
        far = ranks > self.inside
        return exchanges * self.latency[far], 2 * (ranks - 1) / ranks * sent / self.bandwidth[far]


def print_model(cluster: Cluster | None = None) -> None:
    """Stage 1 of the GTA5 recipe on 1 to 64 ranks, as Markdown."""
    cluster = cluster or Cluster()
    choices = recipe.load("gta5-cityscapes")
    network = cost.imagined(choices)
    crop_flops = cost.operations_of(network, choices.data.crop)
    stage = next(stage for stage in cost.stages_of(choices) if stage.name == "stage 1")
    pair_flops = crop_flops * (3 * stage.learned + stage.judged) / choices.selflabel.batch
    print("\n| ranks | batch | arithmetic, s | exchanges, ms | bytes, ms | step, s | images/s | efficiency |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    alone = cluster.flops / pair_flops
    for ranks in (1, 2, 4, 8, 16, 32, 64):
        batch = max(choices.selflabel.batch, ranks)
        sums, latencies = exchanged(network, choices, batch, ranks)
        arithmetic = batch / ranks * pair_flops / cluster.flops
        waiting, moving = cluster.seconds(ranks, latencies, sums)
        step = arithmetic + waiting + moving
        print(
            f"| {ranks} | {batch} | {arithmetic:.2f} | {1e3 * waiting:.0f} | {1e3 * moving:.0f} | {step:.2f} "
            f"| {batch / step:.1f} | {batch / step / alone / ranks:.0%} |"
        )


def exchanged(network: Segmenter, choices: recipe.Recipe, batch: int, ranks: int) -> tuple[int, int]:
    """Bytes that a process gives in a step of stage 1, and the number of exchanges: the formulas of docs/scaling.md."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    parameters = sum(p.numel() for p in network.parameters())
    rows, columns = network.grid.cells(choices.data.crop)
    pixels = choices.selflabel.pixels * batch
    given = 4 * parameters + 32 * sum(norm.num_features for norm in norms)
    given += batch // ranks * rows * columns + 4 * pixels * (network.channels + CLASSES)
    return given, 2 * len(norms) + -(-4 * parameters // distributed.BUCKET) + OTHERS


@dataclass(frozen=True)
class Measured:
    """What processes on this machine needed."""

    processes: int
    step: float
    """Seconds, median."""
    latency: float
    """Seconds of an exchange of 2 kB."""
    bandwidth: float
    """Bytes of a large exchange per second."""
    exchanges: dict[str, int]
    given: dict[str, int]

    def predicted(self, alone: float) -> float:
        """Seconds of a step by the model; processes share the processors of this machine."""
        arithmetic = alone / min(self.processes, os.cpu_count() or 1)
        if self.processes == 1:
            return arithmetic
        waiting = sum(self.exchanges.values()) * self.latency
        return arithmetic + waiting + sum(self.given.values()) / self.bandwidth


def print_measured() -> None:
    """One, two and four processes with Gloo, beside the model, as Markdown."""
    print(
        f"\n{BATCH} crops of {CROP[0]}x{CROP[1]}, laptop network, one thread a process, {os.cpu_count()} processors\n"
    )
    print("| processes | step, s | model, s | exchanges | MB given | empty exchange, ms | MB/s |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    alone = 0.0
    for processes in (1, 2, 4):
        found = in_processes(processes, measure)
        alone = alone or found.step
        one = f"{1e3 * found.latency:.2f} | {found.bandwidth / 1e6:.0f}" if processes > 1 else " | "
        print(
            f"| {processes} | {found.step:.2f} | {found.predicted(alone):.2f} | {sum(found.exchanges.values())} "
            f"| {sum(found.given.values()) / 1e6:.1f} | {one} |"
        )
        if processes == 2:
            traffic = found
    print_traffic(traffic)


def print_traffic(found: Measured) -> None:
    """What a process gives to the others in a step of stage 1, as Markdown."""
    print("\n| what | exchanges | bytes |\n|---|---:|---:|")
    for what, given in sorted(found.given.items(), key=lambda item: -item[1]):
        print(f"| {what} | {found.exchanges[what]} | {given:,} |")


def measure(out: Path, bank: int = 4096) -> None:
    """Time steps and exchanges in one of several processes; the first writes what it found."""
    task = make(bank)
    torch.manual_seed(distributed.rank())
    batch = random_batch(task, distributed.part(BATCH), CROP)
    seconds = []
    for step in range(STEPS):
        distributed.barrier()
        torch.manual_seed(step)
        started = time.perf_counter()
        descend(task, batch)
        distributed.largest(0)
        seconds.append(time.perf_counter() - started)
    with counted() as traffic:  # apart from the clock: who sends what is found by looking at the stack
        descend(task, batch)
        distributed.largest(0)
    latency, bandwidth = (exchange(256, 100), exchange(1 << 21, 7)) if distributed.count() > 1 else (0.0, 1.0)
    if distributed.is_main():
        found = Measured(
            distributed.count(), statistics.median(seconds[2:]), latency, (8 << 21) / bandwidth,
            dict(traffic.exchanges), dict(traffic.bytes),
        )  # fmt: skip
        out.write_text(json.dumps(vars(found)))


def exchange(numbers: int, repeats: int) -> float:
    """Median seconds of a sum of float64 over all processes."""
    value, seconds = torch.zeros(numbers, dtype=torch.float64), []
    for _ in range(repeats):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(value)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def make(bank: int) -> SelfLabelTask:
    """Stage 1 of the laptop's recipe, untrained, with room for that many features in its memory bank."""
    return untrained(recipe.load("laptop", [*BATCHWISE, f"selflabel.bank={bank}"]))


def in_processes(world: int, work: Callable[[Path], None]) -> Measured:
    """What ``work`` writes, done in that many processes of one thread that know of each other."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        mp.spawn(_enter, (world, folder, work, out), nprocs=world)
        return Measured(**json.loads(out.read_text()))


def _enter(rank: int, world: int, folder: str, work: Callable[[Path], Any], out: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    work(out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    print_model()
    print_measured()
