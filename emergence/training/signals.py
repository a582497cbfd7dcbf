"""Stage training: Ctrl-C and SIGTERM end a run between two steps, with its state kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Yield a list that stays empty until Ctrl-C or SIGTERM comes, and then holds the signal's number.

    A second signal raises `KeyboardInterrupt` at once. The handlers from before come back on exit. Python
    delivers signals to the main thread only, so in any other thread the list stays empty.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
