"""Files are read ahead of the network and written behind it: in order, few at a time, no thread outlives an error."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acclimate import files, prediction
from acclimate.errors import UserError
from acclimate.files import atomic
from acclimate.overlap import ahead, behind, threads
from acclimate.prediction import Model, predict_files

PATIENCE = 20
"""Seconds after which a thread that was to do something does so in vain."""


def alone() -> bool:
    """Whether no thread of a pool is left."""
    return not any(thread.name.startswith(("ahead", "behind")) for thread in threading.enumerate())


def test_results_come_in_order_and_ahead_of_who_takes_them():
    begun = [threading.Event() for _ in range(40)]

    def prepare(item: int) -> int:
        begun[item].set()
        if item % threads() == 0 and item + 1 < len(begun):
            assert begun[item + 1].wait(PATIENCE), "another thread has the next one meanwhile"
        return 10 * item

    taken = 0
    for taken, result in enumerate(ahead(prepare, range(len(begun))), start=1):
        assert result == 10 * (taken - 1)
        for event in begun[taken : taken + threads()]:
            assert event.wait(PATIENCE), "the next ones are on their way"
        assert sum(event.is_set() for event in begun) <= taken + threads(), "and no more than these"
    assert taken == len(begun) and alone()


def test_more_results_wait_where_the_caller_takes_several_at_a_time():
    begun = [threading.Event() for _ in range(40)]
    results = ahead(lambda item: begun[item].set(), range(40), most=12)
    next(results)
    assert all(event.wait(PATIENCE) for event in begun[:13])
    assert not any(event.is_set() for event in begun[13:])
    results.close()
    assert alone()


def test_an_error_comes_in_its_place():
    def prepare(item: int) -> int:
        if item == 3:
            raise UserError("3 is broken")
        return item

    results, taken = ahead(prepare, range(100)), []
    with pytest.raises(UserError, match=r"^3 is broken$"):
        taken.extend(results)
    assert taken == [0, 1, 2] and alone()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_caller_that_fails_leaves_no_thread_and_nothing_half_done(error):
    begun, done, failing = [], [], threading.Event()

    def task(number: int) -> None:
        begun.append(number)
        assert failing.wait(PATIENCE)
        done.append(number)

    def offer() -> None:
        with behind() as later:
            for item in ahead(int, range(1000)):
                later(task, item)
                if item == 2 * threads() - 1:
                    failing.set()
                    raise error

    with pytest.raises(error):
        offer()
    assert sorted(begun) == sorted(done) and len(done) <= 2 * threads()
    assert alone()


def test_all_is_written_when_the_block_ends():
    done: list[int] = []
    with behind(1) as later:
        for number in range(30):
            later(done.append, number)
    assert done == list(range(30)) and alone()


def test_few_tasks_wait_and_their_errors_are_heard():
    gate, started = threading.Event(), []

    def task(number: int) -> None:
        assert gate.wait(PATIENCE)
        raise UserError(f"disk full at {number}")

    def offer() -> None:
        with behind(1) as later:
            for number in range(10):
                started.append(number)
                later(task, number)

    def let_go() -> None:
        while len(started) < 3:
            pass
        gate.set()

    helper = threading.Thread(target=let_go)
    helper.start()
    with pytest.raises(UserError, match=r"^disk full at 0$"):
        offer()
    helper.join()
    assert len(started) == 3, "the third call waits for the first task, and hears of its error"
    assert alone()


def test_two_threads_write_files_whose_names_begin_alike(tmp_path):
    together = threading.Barrier(2, timeout=PATIENCE)

    def write(name: str) -> None:
        with atomic(tmp_path / name) as temporary:
            together.wait()
            temporary.write_text(name)
            together.wait()

    names = ["x" * 60 + end for end in "ab"]
    with behind(2) as later:
        for name in names:
            later(write, name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in names}


# What is built on it


@pytest.fixture
def photos(tmp_path: Path, blocks) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.fromarray(blocks(40, 60, number)[0]).save(tmp_path / "photos" / f"{number:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def model(brightest, rgb_space) -> Model:
    return Model(brightest, rgb_space, 64)


def test_masks_belong_to_their_photos_also_behind_a_broken_one(model, photos, tmp_path):
    (photos / "05.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"11 masks written, 1 images left out:\n.*05\.png"):
        predict_files(model, photos, tmp_path / "out", overlay=True)
    for photo in sorted(photos.iterdir()):
        mask = tmp_path / "out" / photo.name
        assert mask.exists() == (photo.name != "05.png")
        if mask.exists():
            assert np.array_equal(np.asarray(Image.open(mask)), model.predict(photo))


def test_a_full_disk_ends_the_prediction_with_its_own_message(model, photos, tmp_path, monkeypatch):
    def sync(path: Path) -> None:
        if ".07.png." in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", sync)
    with pytest.raises(UserError, match=r"07\.png: cannot be written \(No space left"):
        predict_files(model, photos, tmp_path / "out")
    assert not (tmp_path / "out" / "07.png").exists()
    assert not list((tmp_path / "out").rglob("*.tmp")) and alone()


def test_an_interrupted_prediction_leaves_whole_files(model, photos, tmp_path, monkeypatch):
    seen = []

    def scores(*args, **more):
        seen.append(1)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return original(*args, **more)

    original = prediction.scores
    monkeypatch.setattr(prediction, "scores", scores)
    with pytest.raises(KeyboardInterrupt):
        predict_files(model, photos, tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{number:02d}.png" for number in range(len(written))] and len(written) <= 7
    for name in written:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), model.predict(photos / name))
    assert alone()
