"""Batches of chosen classes: P classes with K images each, as a pure function of the position."""

import dataclasses
import functools
from collections.abc import Callable

import grain.python as grain
import numpy as np

from fgjax.data.loading import Example, generator
from fgjax.errors import UserError


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
        """The rows of each class, in ascending order of both."""
        labels = self.labels[self.indices]
        return {int(k): self.indices[labels == k] for k in np.unique(labels)}

    def row(self, position: int) -> int:
        """The row; a class with fewer than K images repeats them."""
        batch, slot = divmod(position, self.batch_size)
        classes = generator(self.seed, batch).permutation(list(self._members))
        label = int(classes[slot // self.per_class])
        order = generator(self.seed, batch, label).permutation(self._members[label])
        return int(np.resize(order, self.per_class)[slot % self.per_class])


def class_stream(
    batches: ClassBatches, transform: Callable[[int, int], Example]
) -> grain.MapDataset:
    """An endless stream of examples: element k is transform(k, batches.row(k))."""
    return (
        grain.MapDataset.range(1)
        .repeat()
        .map_with_index(lambda position, _: transform(int(position), batches.row(int(position))))
    )
