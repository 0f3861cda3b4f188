"""Reading ahead of the network and writing behind it, in threads: decoders and disks let Python go on meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def threads() -> int:
    """How many read, and how many write: half of the processors of this process, 2 … 8."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # those that torchrun started on this machine
    return min(8, max(2, (os.cpu_count() or 1) // processes // 2))


def ahead(prepare: Callable[[T], R], items: Iterable[T], most: int = 0) -> Iterator[R]:
    """``prepare(item)`` of each item, in order; threads do the next ones while the caller works on the one before.

    Args:
        most: results that may wait for the caller; at least as many as there are threads.

    Raises:
        Exception: what ``prepare`` raised for an item, where its result would be.
    """
    most = max(most, threads())
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads(), thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # waits for what has begun, at most one item a thread


@contextmanager
def behind(count: int = 0) -> Generator[Callable[..., None]]:
    """Yields ``later(task, *args)``, by which a thread does the task while the caller goes on.

    Few tasks wait: ``later`` waits itself when each thread has one to come. All are done when the block has ended; if
    it ends with an error, or is interrupted, those that have begun are brought to their end and the others left.

    Args:
        count: threads; default `threads`. One does the tasks in their order.

    Raises:
        Exception: what a task raised, from a later call of ``later`` or at the end of the block.
    """
    count = count or threads()
    waiting: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(count, thread_name_prefix="behind")

    def later(task: Callable[..., None], *args: Any) -> None:
        waiting.append(pool.submit(task, *args))
        if len(waiting) > 2 * count:
            waiting.popleft().result()

    try:
        yield later
        while waiting:
            waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
