"""Being asked to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from acclimate import interrupts
from acclimate.interrupts import Terminated, deferred, terminable


def test_sigterm_is_raised_and_no_longer_than_wanted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)], ids=["ctrl-c", "sigterm"]
)
def test_the_first_request_is_noted_and_the_second_obeyed(
    number: int, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "HANDED_ON", -1.0)
    noted = False
    with pytest.raises(kind) as caught, terminable(), deferred() as asked:
        assert asked.how is None
        signal.raise_signal(number)
        noted = asked.how is kind
        signal.raise_signal(number)
    assert noted and type(caught.value) is kind


def test_a_request_that_comes_by_two_ways_is_one() -> None:
    done = False
    with pytest.raises(Terminated), terminable(), deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        done = True
    assert done


def test_a_request_is_obeyed_at_the_end_at_the_latest() -> None:
    done = False
    with pytest.raises(Terminated), deferred():
        signal.raise_signal(signal.SIGTERM)
        done = True
    assert done


def test_what_is_ignored_outside_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred() as asked:
            signal.raise_signal(signal.SIGINT)
        assert asked.how is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_say() -> None:
    results: list[object] = []

    def work() -> None:
        with terminable(), deferred() as asked:
            results.append(asked.how)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [None]
