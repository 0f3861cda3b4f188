"""Being asked to stop: by Ctrl-C (SIGINT), or by a scheduler or a shutdown (SIGTERM)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM; to whoever does not look closely it is as good as Ctrl-C."""


HANDED_ON = 2.0
"""Seconds within which two requests are one: SLURM signals all processes of a job, torchrun among them, and torchrun
hands the signal on to those that have it already."""

_KINDS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@dataclass
class Asked:
    """Whether the process has been asked to stop."""

    how: type[KeyboardInterrupt] | None = None
    """What to raise, once it is convenient."""
    at: float = 0.0
    """When it was, by `time.monotonic`."""


@contextmanager
def terminable() -> Generator[None]:
    """Within the block SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def end(number: int, frame: Any) -> None:
        raise Terminated

    with _handling({signal.SIGTERM: end}):
        yield


@contextmanager
def deferred() -> Generator[Asked]:
    """Within the block a first Ctrl-C or SIGTERM is only noted; one more after `HANDED_ON` acts as it would outside.

    Raises:
        KeyboardInterrupt: the block has ended, and what was noted has not been obeyed.
    """
    asked = Asked()

    def note(number: int, frame: Any) -> None:
        if asked.how is None:
            asked.how, asked.at = _KINDS[number], time.monotonic()
        elif time.monotonic() - asked.at > HANDED_ON:
            restore()
            signal.raise_signal(number)

    with _handling(dict.fromkeys(_KINDS, note)) as restore:
        yield asked
    if asked.how:
        raise asked.how


def ignore(*_: Any) -> None:
    """Called in a process that prepares data: whether to stop is for the one that asked for the data to decide.

    A terminal and some schedulers signal all processes of a job at once.
    """
    for number in _KINDS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handling(handlers: dict[int, Callable[[int, Any], None]]) -> Generator[Callable[[], None]]:
    """Have signals handled within the block, in the main thread; yields what ends it before the block does."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in handlers}

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    for number, handler in handlers.items():
        if before[number] is signal.SIG_IGN:  # as nohup and background jobs have it
            del before[number]
        else:
            signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()
