"""Images that a finished run learned afterwards, without training: `fgjax learn` and `forget`."""

import dataclasses

import numpy as np

from fgjax.errors import UserError
from fgjax.galleries import Store
from fgjax.training.run import Run, Stage


@dataclasses.dataclass(frozen=True)
class Memory:
    """Where they lie, and what a method makes of them.

    Attributes:
      store: unit embeddings, each with the name of its class; WORKDIR/memory.
      class_names: that the run was trained on.
      new_classes: whether there may be others.
    """

    store: Store
    class_names: tuple[str, ...]
    new_classes: bool

    @classmethod
    def of(cls, run: Run, stage: Stage, *, new_classes: bool) -> "Memory":
        """Of a run whose embeddings come from a stage."""
        store = Store(run.workdir / "memory", stage.fingerprint)
        return cls(store, tuple(run.dataset.class_names), new_classes)

    def learned(self) -> tuple[np.ndarray, list[str]]:
        """Unit embeddings [N, D] and the names of their classes; N may be 0.

        Raises:
          UserError: it was made by other weights, or is damaged.
        """
        if not self.store.exists:
            return np.zeros((0, 0), np.float32), []
        snapshot = self.store.open()
        blocks = list(snapshot.blocks())
        vectors = np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)
        return vectors, [entry.label for entry in snapshot.entries]

    def extended(
        self, features: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """A run's own unit embeddings and labels with the learned ones, and all class names."""
        vectors, names = self.learned()
        classes = (*self.class_names, *sorted(set(names) - set(self.class_names)))
        if not names:
            return features, labels, classes
        own = np.array([classes.index(name) for name in names], labels.dtype)
        return np.concatenate([features, vectors]), np.concatenate([labels, own]), classes

    def check(self, names: set[str]) -> None:
        """Refuse classes that cannot be learned.

        Raises:
          UserError: one is new, and the method knows those that it was trained on alone.
        """
        new = sorted(names - set(self.class_names))
        if new and not self.new_classes:
            raise UserError(
                f"this run takes further images of the classes that it was trained on, and "
                f"{new[0]} is none of them: train the probe with --config.method.head=knn for that."
            )
