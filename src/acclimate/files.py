"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from acclimate.errors import UserError

_REMEDIES = {
    errno.ENOSPC: "free some space on this disk, then call again",
    errno.EDQUOT: "your quota is used up: delete something, then call again",
    errno.EFBIG: "files may not grow that large here (ulimit -f): allow more, or choose another disk",
    errno.EACCES: "make the folder writable, or choose another",
    errno.EPERM: "make the folder writable, or choose another",
    errno.EROFS: "this disk is read-only: make it writable, or choose another",
    errno.ENOENT: "its folder is gone: was it moved or deleted meanwhile?",
    errno.ENOTDIR: "a part of its path is a file: choose another folder",
    errno.EEXIST: "a part of its path is a file: choose another folder",
    errno.ESTALE: "the network disk has lost it: look after the disk, then call again",
    errno.EIO: "the disk reports a fault: look after it, then call again",
}
_TOLD_BY_RUST = re.compile(r"\(os error (\d+)\)")


@contextmanager
def atomic(path: Path, keep: Path | None = None) -> Generator[Path]:
    """A temporary path beside ``path`` to write to; takes its place, synced, when the block ends without an error.

    Args:
        keep: where what was at ``path`` before goes, instead of being replaced.

    Raises:
        UserError: the disk is full, read-only or gone. What was at ``path`` is as it was.
    """
    temporary = _temporary(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """A temporary folder beside ``path`` to fill; takes its place, synced, when the block ends without an error."""
    temporary = _temporary(path)
    with explained(path):
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                sync(entry)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def expanded(path: str | Path) -> Path:
    """The path with ``~`` written out; a user that is none stays as it is, where ``Path.expanduser`` raises."""
    return Path(os.path.expanduser(path))


def sync(path: Path) -> None:
    """Have the disk hold what a file contains, or which files a folder does."""
    if os.name != "posix" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed processes left anywhere in a folder in which no process writes now."""
    for path in list(folder.rglob(".*.tmp")):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn what the system says when ``path`` cannot be written into a `UserError` with a remedy."""
    try:
        yield
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        remedy = _REMEDIES.get(cause.errno or 0, "is the disk full?")
        raise UserError(f"{path}: cannot be written ({cause.strerror or cause}); {remedy}") from error


def write_json(path: Path, content: Any) -> None:
    """Write content as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str = "delete it and run again to have it made anew") -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is cut or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{path}: cut or damaged, not JSON; {remedy}") from None


def _temporary(path: Path) -> Path:
    # The thread's number is the machine's, not Python's: two that write names that begin alike don't meet.
    return path.with_name(f".{path.name[:50]}.{threading.get_native_id()}.tmp")


def _system_error(error: BaseException | None) -> OSError | None:
    """What the system said, behind an exception that may be a library's."""
    if isinstance(error, OSError):
        return error
    if not isinstance(error, RuntimeError | SafetensorError):
        return None
    if told := _TOLD_BY_RUST.search(str(error)):
        return OSError(int(told[1]), os.strerror(int(told[1])))
    # torch fails once more while it closes the file, and says nothing of why it did at first.
    return _system_error(error.__context__)
