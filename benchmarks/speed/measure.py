"""Fair timing: what is compared is measured in turn, in one process, and medians are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One line of `results.json`."""

    name: str
    """What is measured, with its unit unless it is a ratio."""
    goal: float
    measured: float
    better: Literal["lower", "higher"]
    limit: float
    """What the machine or the arithmetic would allow at best, in the same unit."""
    command: str

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured <= self.goal if self.better == "lower" else self.measured >= self.goal


def in_turn(tasks: Iterable[Callable[[], Any]], repeats: int, warmup: int = 1) -> list[list[float]]:
    """Seconds of each repeat of each task: all once, then all again, so that a slow minute of the machine hits all."""
    tasks = list(tasks)
    seconds: list[list[float]] = [[] for _ in tasks]
    for repeat in range(warmup + repeats):
        for task, taken in zip(tasks, seconds, strict=True):
            started = time.perf_counter()
            task()
            if repeat >= warmup:
                taken.append(time.perf_counter() - started)
    return seconds


def medians(tasks: Iterable[Callable[[], Any]], repeats: int, warmup: int = 1) -> list[float]:
    """Median seconds of each task."""
    return [statistics.median(taken) for taken in in_turn(tasks, repeats, warmup)]


def ratio(one: Callable[[], Any], other: Callable[[], Any], repeats: int, warmup: int = 1) -> float:
    """How many times longer one task takes than another: the median over pairs measured next to each other."""
    ones, others = in_turn((one, other), repeats, warmup)
    return statistics.median(a / b for a, b in zip(ones, others, strict=True))
