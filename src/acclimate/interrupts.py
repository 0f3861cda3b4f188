"""Being asked to stop: by Ctrl-C (SIGINT), or by a scheduler or a shutdown (SIGTERM)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM; to whoever does not look closely it is as good as Ctrl-C."""


_KINDS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@dataclass
class Asked:
    """Whether the process has been asked to stop."""

    how: type[KeyboardInterrupt] | None = None
    """What to raise, once it is convenient."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def end(number: int, frame: Any) -> None:
        raise Terminated

    with _handling({signal.SIGTERM: end}):
        yield


@contextmanager
def deferred() -> Iterator[Asked]:
    """Within the block a first Ctrl-C or SIGTERM is only noted; a second one acts as it would outside.

    Raises:
        KeyboardInterrupt: the block has ended, and what was noted has not been obeyed.
    """
    asked = Asked()

    def note(number: int, frame: Any) -> None:
        asked.how = _KINDS[number]
        restore()

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
def _handling(handlers: dict[int, Callable[[int, Any], None]]) -> Iterator[Callable[[], None]]:
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
