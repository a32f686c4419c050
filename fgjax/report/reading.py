"""Which images take longest to read: a training whose data cannot keep up waits for these."""

import time
from typing import NamedTuple

import numpy as np

from fgjax.data.datasets.splits import Split
from fgjax.data.images import Encoded, size_of
from fgjax.data.loading import read_window
from fgjax.localization import boxes

LOOKED_AT, TIMED, SHOWN, REPEATS = 300, 24, 6, 3


class Slow(NamedTuple):
    """An image that takes long.

    Attributes:
      row: of the split.
      milliseconds: to decode and resize it.
      pixels: (height, width).
      bytes: of its file.
    """

    row: int
    milliseconds: float
    pixels: tuple[int, int]
    bytes: int


def slowest(split: Split, size: int) -> tuple[list[Slow], float]:
    """The slowest of a split's images, the first the slowest, and the median of ordinary ones.

    Args:
      split: some hundreds of its images are looked at, spread evenly; the largest files are timed.
      size: in pixels, to which images are resized.

    Returns:
      The images, and the milliseconds that half of the ordinary ones stay below.
    """
    rows = np.unique(np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split))).astype(int))
    lengths = np.array([len(split.source[int(row)]["image"]) for row in rows])
    largest = rows[np.argsort(-lengths, kind="stable")[:TIMED]]
    usual = rows[np.linspace(0, len(rows) - 1, min(TIMED, len(rows))).astype(int)]
    times = _milliseconds(split, np.union1d(largest, usual), size)
    chosen = sorted(largest.tolist(), key=lambda row: -times[row])[:SHOWN]
    found = []
    for row in chosen:
        data = split.source[row]["image"]
        found.append(Slow(row, times[row], size_of(data), len(data)))
    return found, float(np.median([times[row] for row in usual.tolist()]))


def _milliseconds(split: Split, rows: np.ndarray, size: int) -> dict[int, float]:
    """The best of a few times, one image after the other: the last one is still in memory."""
    times: dict[int, float] = {}
    for _ in range(REPEATS):
        for row in rows.tolist():
            image = Encoded(split.source[row]["image"], split.filenames[row])
            began = time.perf_counter()
            read_window(image, boxes.WHOLE, size)
            taken = 1000 * (time.perf_counter() - began)
            times[row] = min(taken, times.get(row, taken))
    return times
