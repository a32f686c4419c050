"""What reads images fails in sentences: a worker that dies or hangs, an image that is none."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from fgjax.config import Augmentation, Data
from fgjax.data import loading, watching
from fgjax.errors import UserError


def slowly(items, seconds):
    for item in items:
        time.sleep(seconds)
        yield item


def threads():
    return [t for t in threading.enumerate() if t.name == "batches"]


def test_all_of_them_in_order():
    assert list(watching.watched(iter(range(100)), patience=5, workers=0)) == list(range(100))


def test_slow_is_not_hung():
    found = watching.watched(slowly(range(3), 0.3), patience=1, workers=0)
    assert list(found) == [0, 1, 2]


@pytest.mark.parametrize(("workers", "who"), [(0, "the reading threads"), (3, "the 3 workers")])
def test_what_hangs_is_left(workers, who):
    released = threading.Event()

    def hanging():
        yield 1
        released.wait(60)

    found = watching.watched(hanging(), patience=0.4, workers=workers)
    assert next(found) == 1
    began = time.monotonic()
    with pytest.raises(
        UserError, match=rf"^{who} gave no batch for 0\.4 seconds: .*data\.patience"
    ):
        next(found)
    assert time.monotonic() - began < 5
    released.set()


def test_the_first_batch_may_take_longer():
    found = watching.watched(slowly([1], 0.6), patience=0.3, workers=1)
    assert list(found) == [1]


def test_nothing_runs_on_after_a_loop_that_was_left():
    before = len(threads())
    found = watching.watched(iter(range(1000)), patience=5, workers=0)
    next(found)
    assert len(threads()) == before + 1
    found.close()
    deadline = time.monotonic() + 5
    while len(threads()) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(threads()) == before


def test_an_error_of_ours_is_raised_as_it_is():
    def failing():
        yield 1
        raise KeyError("a defect")

    found = watching.watched(failing(), patience=5, workers=0)
    assert next(found) == 1
    with pytest.raises(KeyError, match="a defect"):
        next(found)


class Source:
    """Encoded images, one of which is none."""

    def __init__(self, split, bad):
        self.source, self.bad = split.source, bad

    def __getitem__(self, row):
        return {"image": b"no image"} if row == self.bad else self.source[row]

    def __len__(self):
        return len(self.source)


def stream(dataset, bad=-1):
    split = dataclasses.replace(dataset.train, source=Source(dataset.train, bad))
    reader = loading.Reader(split, 16, Augmentation())
    return loading.training_stream(reader, np.arange(len(split)), seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_none_is_named(tiny_dataset, workers):
    found = loading.batches(stream(tiny_dataset, bad=5), batch_size=8, data=Data(workers=workers))
    with pytest.raises(UserError, match=tiny_dataset.train.filenames[5]) as error:
        for _ in range(len(tiny_dataset.train) // 8 + 1):
            next(found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sign", "says"),
    [(signal.SIGKILL, "a worker that reads images ended"),
     (signal.SIGSTOP, r"the worker gave no batch for 3 seconds")],
)  # fmt: skip
def test_a_worker_that_dies_or_hangs_ends_the_loop(tiny_dataset, sign, says):
    """Within a minute, and never not at all."""
    mine = psutil.Process()
    before = {child.pid for child in mine.children(recursive=True)}
    data = Data(workers=1, prefetch=1, patience=3.0)
    found = loading.batches(stream(tiny_dataset), batch_size=8, data=data)
    next(found)
    new = [c for c in mine.children(recursive=True) if c.pid not in before]
    started = [child for child in new if "spawn_main" in " ".join(child.cmdline())]
    assert started
    began = time.monotonic()
    for worker in started:
        os.kill(worker.pid, sign)
    try:
        with pytest.raises(UserError, match=says):
            for _ in range(1000):
                next(found)
        assert time.monotonic() - began < 60
    finally:
        for worker in started:
            if psutil.pid_exists(worker.pid):
                os.kill(worker.pid, signal.SIGKILL)
