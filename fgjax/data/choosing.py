"""How many processes read images fastest here: measured, where a config leaves it open."""

import dataclasses
import logging
import time
from collections.abc import Generator, Iterator
from typing import cast

import numpy as np

from fgjax import hosts
from fgjax.config import MEASURED, Data
from fgjax.data import loading
from fgjax.data.datasets import Split
from fgjax.errors import UserError

log = logging.getLogger(__name__)

SECONDS = 1.5  # of reading that count, for each way
BATCH = 8
MOST = 32  # processes; more are for who says so


def workers(split: Split, data: Data) -> int:
    """`data.workers`, or what reads most images a second where it is `MEASURED`.

    Threads of this process are tried beside as many processes as it may use cores; processes that
    die or hang are none that could be chosen. Batches are the same either way.

    Raises:
      UserError: an image cannot be read.
    """
    if data.workers != MEASURED:
        return data.workers
    ways = candidates()
    if len(ways) == 1:
        return ways[0]
    rates = {}
    for number in ways:
        try:  # little is made ahead, which would count as if it were read meanwhile
            rates[number] = rate(split, dataclasses.replace(data, workers=number, prefetch=1))
        except UserError as error:
            if not number:
                raise
            log.warning("%d processes do not read: %s", number, error)
            rates[number] = 0.0
    fastest = max(rates, key=lambda number: rates[number])
    said = [f"{found:.0f} by {f'{n} processes' if n else 'threads'}" for n, found in rates.items()]
    log.info("images read a second: %s; data.workers=%d", ", ".join(said), fastest)
    return fastest


def candidates() -> tuple[int, ...]:
    """Threads (0), and a process for each core; on one core there is nothing to choose."""
    cores = min(hosts.cores(), MOST)
    return (0, cores) if cores > 1 else (0,)


def rate(split: Split, data: Data, *, seconds: float = SECONDS) -> float:
    """Images a second of the plain training stream, its start not counted."""
    reader = loading.Reader(split, data.image_size, data.augmentation)
    stream = loading.training_stream(reader, np.arange(len(split)), seed=0)
    batches = loading.batches(stream, batch_size=BATCH * hosts.count(), data=data)
    try:
        return steady(batches, seconds, after=max(data.workers, 1))
    finally:
        cast(Generator, batches).close()  # its processes end


def steady(batches: Iterator[loading.Example], seconds: float, *, after: int = 1) -> float:
    """Images a second from so many batches on: processes come in turn, and each takes its start."""
    for _ in range(after):
        next(batches)
    began, images = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        images += len(next(batches)["label"])
    return images / passed
