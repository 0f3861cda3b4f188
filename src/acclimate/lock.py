"""One run in one folder at a time."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from acclimate.errors import UserError
from acclimate.files import explained

try:
    import fcntl
except ImportError:  # Windows: there, nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Keep other runs out of a folder, which is made if need be, for the time of the block.

    The system lets go of the lock when the process ends, however it does. The file stays: only its lock counts.

    Raises:
        UserError: another process has the lock, or the folder cannot be written.
    """
    path = folder / LOCK
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _HELD.add(descriptor)
    try:
        _take(descriptor, path)
        yield
    finally:
        _HELD.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks, such as some mounts of Lustre
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        raise UserError(
            f"{path.parent}: {holder} is at work in this run folder; wait for it, stop it, or give another --out"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _let_go() -> None:
    """A forked data worker that outlives a killed run must not hold on to its lock."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
