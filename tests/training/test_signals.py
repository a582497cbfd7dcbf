"""Signals ask a training to stop; they do not tear it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from emergence.training.signals import stop_requests

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_one_signal_is_noted_and_a_second_one_interrupts(number):
    before = [signal.getsignal(n) for n in NUMBERS]
    with stop_requests() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop == [number]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(n) for n in NUMBERS] == before


def test_handlers_come_back_after_an_exception():
    before = [signal.getsignal(n) for n in NUMBERS]
    with pytest.raises(ZeroDivisionError), stop_requests():
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in NUMBERS] == before


def test_another_thread_leaves_the_handlers_alone():
    before, seen = [signal.getsignal(n) for n in NUMBERS], []

    def work() -> None:
        with stop_requests() as stop:
            seen.append((list(stop), [signal.getsignal(n) for n in NUMBERS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], before)]
