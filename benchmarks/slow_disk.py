"""Does reading ahead hide a slow disk? Seconds of a training step while each image arrives late.

    PYTHONPATH=. python benchmarks/slow_disk.py

Every image of the drawn aircraft waits before it is read, as on a disk that seeks or a network that
asks. Beside it the same without reading ahead: a batch is read when its step wants it, by as many
threads. The step is a real one, ResNet-18 at 64 px, 16 images.
"""

import argparse
import concurrent.futures
import dataclasses
import tempfile
import time

import numpy as np

from benchmarks.train_step import ours
from fgjax.config import Augmentation, Data
from fgjax.data import loading
from fgjax.data.datasets import load_dataset

BATCH, SIZE, THREADS, WARM = 16, 64, 4, 12
DELAYS = (0, 10, 20, 40, 80)  # milliseconds an image


class Late:
    """A source whose images come late."""

    def __init__(self, source, seconds: float):
        self.source, self.seconds = source, seconds

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.source[index]


def ahead(split, steps: int):
    """Batches as training reads them."""
    stream = loading.training_stream(
        loading.Reader(split, SIZE, Augmentation()), np.arange(len(split)), seed=0
    )
    return loading.batches(stream, batch_size=BATCH, stop=steps, data=Data(workers=0))


def on_demand(split, steps: int):
    """The same batches, each read when it is asked for."""
    stream = loading.training_stream(
        loading.Reader(split, SIZE, Augmentation()), np.arange(len(split)), seed=0
    )
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for number in range(steps):
            rows = range(number * BATCH, (number + 1) * BATCH)
            yield list(pool.map(stream.__getitem__, rows))


def seconds(batches, step) -> float:
    """Mean seconds of a step: reading ahead may stall every few of them only."""
    for number, _ in enumerate(batches):
        if number == WARM:
            began = time.perf_counter()
        step()
    return (time.perf_counter() - began) / (number + 1 - WARM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=52)
    steps = parser.parse_args().steps
    step = ours("resnet18", SIZE, BATCH, half=False)["train"]
    step()
    with tempfile.TemporaryDirectory() as folder:
        train = load_dataset("synthetic_aircraft", data_dir=folder).train
        alone = seconds(range(steps), step)
        print(f"the step alone: {1e3 * alone:.0f} ms\n\n| delay of an image, ms | reading ahead, ms"
              " a step | read on demand, ms a step |\n|---|---|---|")  # fmt: skip
        for delay in DELAYS:
            late = dataclasses.replace(train, source=Late(train.source, delay / 1e3))
            cells = [1e3 * seconds(way(late, steps), step) for way in (ahead, on_demand)]
            print(f"| {delay} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
