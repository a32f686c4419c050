"""SIGTERM, as schedulers send it before they take a machine away: save, and go.

While a loop runs, the signal is noticed at the end of its step, which is saved. Anywhere else the
process ends at once: what it was at is done anew.
"""

import collections
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL: the same command goes on where this one stopped


class Preempted(BaseException):
    """The process was asked to end. Not an Exception, so that nobody catches it by the way."""


class _State:
    in_loop = False
    asked = False


_state = _State()


def install() -> None:
    """Take SIGTERM from here on; only the main thread may."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _notice)


def _notice(number: int, frame: FrameType | None) -> None:
    del number, frame
    if _state.in_loop and not _state.asked:
        _state.asked = True
        return
    raise Preempted("SIGTERM: stopped at once; the same command goes on from what was finished.")


@contextlib.contextmanager
def loop() -> Iterator[Callable[[], bool]]:
    """A loop that looks by itself: gives what says whether the process was asked to end.

    Of several processes each has to look after every step; one that was asked ends all.
    """
    before, _state.in_loop = _state.in_loop, True
    from fgjax import hosts  # JAX's imports take a second, and command lines read this module
    from fgjax.training import sharding

    told: collections.deque[Any] = collections.deque()

    def asked() -> bool:
        if hosts.count() == 1:
            return _state.asked
        # All learn it at the same step, and look two steps later, so that nobody waits for it.
        told.append(sharding.anywhere(_state.asked))
        return len(told) > 2 and bool(told.popleft())

    try:
        yield asked
    finally:
        _state.in_loop = before
