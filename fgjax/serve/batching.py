"""Requests that come together go through the network together; too many are sent away."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Busy(Exception):
    """More is waiting than the queue holds."""


class Batcher(Generic[Item, Answer]):
    """`await batcher(items)`: answers, computed with whatever else waits, in one thread.

    Args:
      work: answers for a list of items, in order.
      most: items that `work` gets at once.
      waiting: items that may wait, those at work not counted; more raise `Busy`.
    """

    def __init__(self, work: Callable[[list[Item]], list[Answer]], *, most: int, waiting: int):
        self._work, self._most, self._limit = work, most, waiting
        self._items: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "answers")
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        """Begin to work; inside a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; what waits is given up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._items.empty():
            self._items.get_nowait()[1].cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, items: list[Item]) -> list[Answer]:
        """Answers of one request.

        Raises:
          Busy: they do not fit into the queue; none of them was taken.
        """
        if self._items.qsize() + len(items) > self._limit:
            raise Busy
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        for pair in zip(items, futures, strict=True):
            self._items.put_nowait(pair)
        return list(await asyncio.gather(*futures))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._items.get()]
            while len(batch) < self._most and not self._items.empty():
                batch.append(self._items.get_nowait())
            batch = [pair for pair in batch if not pair[1].done()]  # whose caller has gone
            if not batch:
                continue
            items = [item for item, _ in batch]
            try:
                answers = await loop.run_in_executor(self._thread, self._work, items)
            except Exception as error:  # of this batch's callers, not of the server
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
