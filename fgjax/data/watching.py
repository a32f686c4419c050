"""Batches that come, or a sentence that says why not: workers that die, fail or hang."""

import multiprocessing
import queue
import threading
from collections.abc import Iterator
from typing import Any

from fgjax.errors import UserError

START = 5  # times the patience for the first batch: workers start, and import

_END = object()


def watched(batches: Iterator[Any], *, patience: float, workers: int) -> Iterator[Any]:
    """The same batches, one read ahead in a thread of its own.

    Args:
      batches: of grain.
      patience: seconds to wait for a batch.
      workers: processes that make them; for the sentence.

    Raises:
      UserError: none came in time, a worker died, or an image cannot be read.
    """
    others = set(multiprocessing.active_children())  # of whoever called
    found: queue.Queue = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(item: Any) -> bool:
        while not ended.is_set():
            try:
                found.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def fetch() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(_END)
        except BaseException as error:  # raised where the batch was waited for
            put(error)

    threading.Thread(target=fetch, daemon=True, name="batches").start()
    seconds = START * patience
    try:
        while True:
            try:
                item = found.get(timeout=seconds)
            except queue.Empty:
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()  # it would be waited for at exit
                raise UserError(_hung(seconds, workers)) from None
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise _for_people(item, workers)
            seconds = patience
            yield item
    finally:
        ended.set()


def _hung(seconds: float, workers: int) -> str:
    who = {0: "the reading threads", 1: "the worker"}.get(workers, f"the {workers} workers")
    return (
        f"{who} gave no batch for {seconds:g} seconds: look whether the disk answers, or set "
        "data.patience higher; the same command goes on from the last checkpoint."
    )


def _for_people(error: BaseException, workers: int) -> BaseException:
    """The error itself, unless it says that a process ended or wraps a sentence of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return UserError(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    if workers and isinstance(error, RuntimeError):
        if "terminated unexpectedly" in text:
            said = text.split(" Search")[0].rstrip(".")
            return UserError(
                f"a worker that reads images ended ({said}): often "
                "memory has run out, then fewer data.workers help; the same command goes on "
                "from the last checkpoint."
            )
        # A worker sends its exception as text.
        for line in text.splitlines():
            if (at := line.find("UserError: ")) >= 0:
                return UserError(line[at + len("UserError: ") :])
    return error
