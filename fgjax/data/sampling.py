"""Batches of chosen classes: P classes with K images each, as a pure function of the position."""

import dataclasses
import functools
from collections.abc import Callable

import grain.python as grain
import numpy as np

from fgjax.data.loading import Example, generator
from fgjax.errors import UserError


def by_value(values: np.ndarray) -> dict[int, np.ndarray]:
    """{value: where it stands}, both in ascending order."""
    order = np.argsort(values, kind="stable")
    unique, starts = np.unique(values[order], return_index=True)
    return dict(zip(unique.tolist(), np.split(order, starts[1:])))


def rows_by_class(labels: np.ndarray, indices: np.ndarray) -> dict[int, np.ndarray]:
    """Those of the rows `indices` that each class has, in their order."""
    return {label: indices[places] for label, places in by_value(labels[indices]).items()}


@dataclasses.dataclass(frozen=True)
class ClassBatches:
    """Which row stands at a position of a stream whose batches hold P classes of K images.

    Attributes:
      labels: of every row of the split.
      indices: rows that may be drawn.
      batch_size: P · K.
      per_class: K.
      seed: decides everything together with the position.
    """

    labels: np.ndarray
    indices: np.ndarray
    batch_size: int
    per_class: int
    seed: int

    def __post_init__(self):
        classes = len(np.unique(self.labels[self.indices]))
        wanted = self.batch_size // self.per_class
        if self.batch_size % self.per_class or wanted > classes:
            most = self.per_class * classes
            raise UserError(
                f"batches of {self.batch_size} with {self.per_class} images of each class need "
                f"{self.batch_size / self.per_class:g} classes, but {classes} train: choose a "
                f"batch size that is a multiple of {self.per_class} and at most {most}."
            )

    @functools.cached_property
    def _members(self) -> dict[int, np.ndarray]:
        return rows_by_class(self.labels, self.indices)

    def row(self, position: int) -> int:
        """The row; a class with fewer than K images repeats them."""
        batch, slot = divmod(position, self.batch_size)
        classes = generator(self.seed, batch).permutation(list(self._members))
        label = int(classes[slot // self.per_class])
        order = generator(self.seed, batch, label).permutation(self._members[label])
        return int(np.resize(order, self.per_class)[slot % self.per_class])


@dataclasses.dataclass(frozen=True)
class AnchorBatches:
    """Which row stands at a position of a stream whose batches hold P images, each with K − 1 more.

    The P anchors come from a shuffled pass over all images, so that every image is one as often as
    any other, whatever its class; the others are of the anchor's class. Two anchors may share a
    class; not all do.

    Attributes:
      labels: of every row of the split.
      indices: rows that may be drawn.
      batch_size: P · K.
      per_class: K.
      seed: decides everything together with the position.
    """

    labels: np.ndarray
    indices: np.ndarray
    batch_size: int
    per_class: int
    seed: int

    def __post_init__(self):
        if self.batch_size % self.per_class or self.batch_size < 2 * self.per_class:
            raise UserError(
                f"batches of {self.batch_size} with {self.per_class} images of each class do not "
                f"hold two classes: choose a multiple of {self.per_class} from "
                f"{2 * self.per_class} on."
            )

    @functools.cached_property
    def _members(self) -> dict[int, np.ndarray]:
        return rows_by_class(self.labels, self.indices)

    @functools.cached_property
    def _orders(self) -> dict[int, np.ndarray]:
        return {}

    def _anchor(self, number: int) -> int:
        """Anchor `number` of the stream."""
        turn, place = divmod(number, len(self.indices))
        order = self._orders.get(turn)
        if order is None:  # reading threads share this: what one drops, another may still hold
            order = generator(self.seed, 0, turn).permutation(self.indices)
            for old in list(self._orders)[:-1]:
                self._orders.pop(old, None)
            self._orders[turn] = order
        return int(order[place])

    def _anchors(self, batch: int) -> list[int]:
        count = self.batch_size // self.per_class
        first = batch * count
        rows = [self._anchor(first + k) for k in range(count)]
        if len({int(self.labels[row]) for row in rows}) == 1 and len(self._members) > 1:
            number = first + count
            while self.labels[rows[-1]] == self.labels[rows[0]]:
                rows[-1], number = self._anchor(number), number + 1
        return rows

    def row(self, position: int) -> int:
        """The row; a class with fewer than K images repeats them."""
        batch, slot = divmod(position, self.batch_size)
        group, place = divmod(slot, self.per_class)
        anchor = self._anchors(batch)[group]
        if not place:
            return anchor
        members = self._members[int(self.labels[anchor])]
        others = generator(self.seed, 1, batch, group).permutation(members[members != anchor])
        return int(np.resize(others if len(others) else members, self.per_class)[place - 1])


def class_stream(
    batches: ClassBatches | AnchorBatches, transform: Callable[[int, int], Example]
) -> grain.MapDataset:
    """An endless stream of examples: element k is transform(k, batches.row(k))."""
    return (
        grain.MapDataset.range(1)
        .repeat()
        .map_with_index(lambda position, _: transform(int(position), batches.row(int(position))))
    )
