"""Files that are whole or absent, on disks that are full, read-only or gone; and the lock of a run folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from acclimate import files
from acclimate.errors import UserError
from acclimate.files import atomic, atomic_folder, read_json, sweep, write_json
from acclimate.lock import locked


def test_what_was_there_can_be_kept(tmp_path: Path) -> None:
    for text in ("1", "2", "3"):
        with atomic(tmp_path / "new", keep=tmp_path / "old") as temporary:
            temporary.write_text(text)
    assert [(path.name, path.read_text()) for path in sorted(tmp_path.iterdir())] == [("new", "3"), ("old", "2")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(error), atomic(tmp_path / "file", keep=tmp_path / "before") as temporary:
        temporary.write_text("ne")
        raise error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_content_is_on_the_disk_before_its_name_is_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(files, "sync", lambda path: order.append(f"sync {'folder' if path.is_dir() else 'file'}"))
    monkeypatch.setattr(os, "replace", lambda *paths: order.append("rename") or replace(*paths))
    write_json(tmp_path / "file", 1)
    assert order == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_what_the_disk_says_becomes_a_message_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(UserError) as caught:
        write_json(tmp_path / "file", 1)
    assert str(tmp_path / "file") in str(caught.value) and os.strerror(number) in str(caught.value)
    assert str(caught.value).endswith(files._REMEDIES[number])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


WRITERS = {
    "torch": lambda path, content: torch.save({"a": content}, path.open("wb")),
    "safetensors": lambda path, content: save_file({"a": content}, path),
    "numpy": lambda path, content: np.save(path.open("wb"), content.numpy()),
    "text": lambda path, content: path.write_text(str(content.tolist())),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_says_that_it_cannot_grow(tmp_path: Path, kind: str) -> None:
    """In a process of its own that may not write more than 100 kB into a file."""
    program = f"""
import resource, signal, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_files import WRITERS
from acclimate.files import atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with atomic(Path({str(tmp_path / "file")!r})) as temporary:
    WRITERS[{kind!r}](temporary, torch.randn(100_000))
"""
    (tmp_path / "file").write_text("old")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"UserError: {tmp_path / 'file'}: cannot be written (" in ended.stderr
    assert "files may not grow that large" in ended.stderr or kind == "numpy"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (UserError("mine"), RuntimeError("a bug"), ValueError("os error 7")):
        with pytest.raises(type(error)) as caught, atomic(tmp_path / "file"):
            raise error
        assert caught.value is error


def test_a_folder_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "old").touch()
    with pytest.raises(ValueError), atomic_folder(tmp_path / "stage") as temporary:
        temporary.mkdir()
        raise ValueError
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["old"]
    with atomic_folder(tmp_path / "stage") as temporary:
        (temporary / "inner").mkdir(parents=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["stage", "inner"]


def test_only_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "stages" / ".source.77.tmp" / "soft").mkdir(parents=True)
    for name in (".model.safetensors.123.tmp", "notes.tmp", ".hidden", ".my.tmp"):
        (tmp_path / "stages" / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == [".hidden", ".my.tmp", "notes.tmp"]


def test_cut_json_is_named(tmp_path: Path) -> None:
    for content in (b"", b'{"a": ', b'{"a": "\xff"}'):
        (tmp_path / "file.json").write_bytes(content)
        with pytest.raises(UserError, match=r"file\.json: cut or damaged, not JSON; mend it"):
            read_json(tmp_path / "file.json", "mend it")


HOLD = """
import sys, time
from pathlib import Path
from acclimate.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout and other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"process {other.pid} on .* is at work"),
            locked(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with locked(tmp_path):
        pass


def test_a_forked_worker_that_outlives_its_run_does_not_hold_the_lock(tmp_path: Path) -> None:
    program = HOLD.replace("import sys, time", "import os, sys, time").replace(
        '    print("held"', '    if os.fork() == 0:\n        time.sleep(60)\n    print("held"'
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert other.stdout and other.stdout.readline() == "held\n"
        other.kill()
        other.wait()
        time.sleep(0.1)
        with locked(tmp_path):
            pass
    finally:
        os.killpg(other.pid, 9)


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(UserError, match=f"process {os.getpid()}"), locked(tmp_path / "run"):
        pass
