"""Exact nearest neighbours on the host's own cores: products by NumPy's BLAS, choice by thresholds.

XLA's products on CPUs are slower than a BLAS, and its `top_k` sorts what a threshold rules out.
Rows that search each other need half of the products: what two of them have in common is one score.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer

Matches = tuple[Float32[np.ndarray, "B K"], Int32[np.ndarray, "B K"]]

_QUERIES = 1024
_TILE = 8192
_GROUPS = 8  # of columns, for each match that is wanted
_ROOM = 2**25  # entries of scores and lists that there may be at once


def blocks(
    queries: Float[np.ndarray, "Q D"],
    database: Float[np.ndarray, "N D"],
    count: int,
    own: Integer[np.ndarray, " Q"],
) -> Iterator[Matches]:
    """`retrieval.nearest` of one block of queries after the other.

    Args:
      queries: rows that search.
      database: rows that are searched; read tile by tile, never copied as a whole.
      count: matches for each query.
      own: a row of the database that a query must not find, or −1.
    """
    database = database.astype(np.float32, copy=False)
    width = min(_TILE, len(database))
    rows = min(_QUERIES, max(_ROOM // (width + 2 * count), 1))
    with _Rooms(rows * width) as rooms:
        if _is_same(queries, database) and 2 * count * len(database) <= _ROOM:
            itself = np.array_equal(own, np.arange(len(queries)))
            if itself or (own < 0).all():
                yield from _Mutual(database, count, itself).blocks(min(rows, width), width, rooms)
                return
        for start in range(0, len(queries), rows):
            block = queries[start : start + rows].astype(np.float32, copy=False)
            yield _search(block, database, width, count, own[start : start + rows], rooms)


class _Rooms:
    """Two rooms for scores: while products fill one, a thread chooses among those in the other."""

    def __init__(self, entries: int):
        self._rooms = [np.empty(entries, np.float32) for _ in range(2)]
        self._chosen: list[concurrent.futures.Future | None] = [None, None]
        self._chooser = concurrent.futures.ThreadPoolExecutor(1)

    def __enter__(self) -> "_Rooms":
        return self

    def __exit__(self, *_: object) -> None:
        self._chooser.shutdown()

    def put(self, rows: np.ndarray, tile: np.ndarray, choose: Callable[[np.ndarray], None]) -> None:
        """`choose(rows @ tile.T)`, one after the other, each while the next product is computed."""
        self._wait_for(0)
        shape = len(rows), len(tile)
        room = self._rooms[0][: shape[0] * shape[1]].reshape(shape)
        self._chosen[0] = self._chooser.submit(choose, np.matmul(rows, tile.T, out=room))
        self._rooms.reverse()
        self._chosen.reverse()

    def wait(self) -> None:
        """Until all is chosen."""
        self._wait_for(0)
        self._wait_for(1)

    def _wait_for(self, place: int) -> None:
        chosen = self._chosen[place]
        if chosen is not None:
            chosen.result()


def _is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are the same memory."""
    return one is other or (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.__array_interface__["data"] == other.__array_interface__["data"]
        and one.strides == other.strides
    )


def _search(
    queries: np.ndarray,
    database: np.ndarray,
    width: int,
    count: int,
    own: np.ndarray,
    rooms: _Rooms,
) -> Matches:
    """The matches of one block of queries among all tiles."""
    values, indices = _nothing(len(queries), count)

    def choose(start: int, scores: np.ndarray) -> None:
        hidden = np.flatnonzero((own >= start) & (own < start + scores.shape[1]))
        scores[hidden, own[hidden] - start] = -np.inf
        rows, columns = _promising(scores, values[:, -1], count, start)
        _merge(values, indices, rows, columns + start, scores[rows, columns])

    for start in range(0, len(database), width):
        tile = database[start : start + width]
        rooms.put(queries, tile, functools.partial(choose, start))
    rooms.wait()
    return values, indices


class _Mutual:
    """Rows that search each other: each score serves its row and its column."""

    def __init__(self, rows: np.ndarray, count: int, itself: bool):
        self.rows, self.count, self.itself = rows, count, itself
        self.values, self.indices = _nothing(len(rows), count)

    def blocks(self, height: int, width: int, rooms: _Rooms) -> Iterator[Matches]:
        """A block of rows is complete once it has met itself and what stands behind it."""
        for top in range(0, len(self.rows), height):
            block = self.rows[top : top + height]
            for left in range(top, len(self.rows), width):
                choose = functools.partial(self._choose, top, left)
                rooms.put(block, self.rows[left : left + width], choose)
            rooms.wait()
            yield self.values[top : top + height], self.indices[top : top + height]

    def _choose(self, top: int, left: int, scores: np.ndarray) -> None:
        bottom = top + len(scores)
        if self.itself and left == top:
            np.fill_diagonal(scores, -np.inf)
        values, indices = self.values[top:bottom], self.indices[top:bottom]
        rows, columns = _promising(scores, values[:, -1], self.count, left)
        _merge(values, indices, rows, columns + left, scores[rows, columns])
        first, end = max(bottom, left), left + scores.shape[1]
        values, indices = self.values[first:end], self.indices[first:end]
        scores = scores[:, first - left :]
        columns, rows = _promising_of_columns(scores, values[:, -1], self.count, top)
        _merge(values, indices, columns, rows + top, scores[rows, columns])


def _nothing(size: int, count: int) -> Matches:
    return np.full((size, count), -np.inf, np.float32), np.full((size, count), -1, np.int32)


def _promising(
    scores: np.ndarray, last: np.ndarray, count: int, seen: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in this order, of what may belong to the best `count` of each row.

    What equals the last match so far stands behind it: it has the higher index. Where so many rows
    were `seen` before that this match is a strict bound, nothing else is asked.
    """
    if seen < scores.shape[1]:
        last = np.maximum(last, _below(scores, count, axis=1))
    return _places(scores > last[:, None])


def _promising_of_columns(
    scores: np.ndarray, last: np.ndarray, count: int, seen: int
) -> tuple[np.ndarray, np.ndarray]:
    """`_promising` of the transposed scores, read as they lie."""
    if seen < len(scores):
        last = np.maximum(last, _below(scores, count, axis=0))
    rows, columns = _places(scores > last)
    order = np.argsort(columns, kind="stable")
    return columns[order], rows[order]


def _below(scores: np.ndarray, count: int, *, axis: int) -> np.ndarray | np.float32:
    """The float before a bound from below of the `count`-th score along an axis.

    A group's largest score is a score of its own. So the `count`-th largest of these is a bound,
    found without sorting all.
    """
    size = scores.shape[axis] // (_GROUPS * count)
    if size < 2:
        return np.float32(-np.inf)
    groups = scores.shape[axis] // size
    if axis:
        largest = scores[:, : groups * size].reshape(-1, size, groups).max(axis=1)
    else:
        largest = scores[: groups * size].reshape(size, groups, -1).max(axis=0).T
    bound = np.partition(largest, groups - count, axis=1)[:, groups - count]
    return np.nextafter(bound, np.float32(-np.inf))


def _places(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`np.nonzero`, ten times as fast for a few of many."""
    return np.divmod(np.flatnonzero(mask), max(mask.shape[1], 1))


def _merge(
    values: np.ndarray, indices: np.ndarray, rows: np.ndarray, found: np.ndarray, scores: np.ndarray
) -> None:
    """Sort what was found into the lists, in place. Among equals, what stands first stays first."""
    if not len(rows):
        return
    counts = np.bincount(rows, minlength=len(values))
    some = np.flatnonzero(counts)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    count, deepest = values.shape[1], int(counts.max())
    all_values = np.full((len(some), count + deepest), -np.inf, np.float32)
    all_indices = np.full((len(some), count + deepest), -1, np.int32)
    all_values[:, :count], all_indices[:, :count] = values[some], indices[some]
    at = np.searchsorted(some, rows), count + places
    all_values[at], all_indices[at] = scores, found
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :count]
    values[some] = np.take_along_axis(all_values, order, axis=1)
    indices[some] = np.take_along_axis(all_indices, order, axis=1)
