"""What the pipeline knows of a prepared dataset: its splits, and how they are pooled and cut."""

import dataclasses
import hashlib
from typing import Any, Protocol, SupportsIndex

import numpy as np

from fgjax.errors import UserError


class Source(Protocol):
    """Random access to records with an `image` of encoded bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split, and what is known about them without decoding an image.

    Attributes:
      source: encoded images.
      labels: int32 [N].
      boxes: float32 [N, 4], the annotated object; NaN rows where there is none.
      parts: float32 [N, P, 4] or None, annotated part boxes.
      filenames: N names.
      crop_bottom: rows of pixels to cut off (FGVC-Aircraft's copyright banner).
    """

    source: Source
    labels: np.ndarray
    boxes: np.ndarray
    parts: np.ndarray | None
    filenames: tuple[str, ...]
    crop_bottom: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> list[str]:
        """SHA-256 of each image's file."""
        read = (self.source[row]["image"] for row in range(len(self)))
        return [hashlib.sha256(data).hexdigest() for data in read]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset: its splits and class names.

    Attributes:
      part_regions: by name the annotated parts that are scored as one; each is one by default.
      hierarchy: for each coarser level, its names and the int parent [num_classes] of each class.
      fingerprint: changes when any label, name or box does.
      unseen_names: of the classes that only the test split has, whose labels follow the others'.
      zero_shot_counts: images that the halves of the classes officially have, if known.
      skipped: images that could not be decoded and were left out, by name.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    fingerprint: str
    part_names: tuple[str, ...] = ()
    part_regions: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    hierarchy: dict[str, tuple[tuple[str, ...], np.ndarray]] = dataclasses.field(
        default_factory=dict
    )
    skipped: tuple[str, ...] = ()
    unseen_names: tuple[str, ...] = ()
    zero_shot_counts: tuple[int, int] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes that are trained on."""
        return len(self.class_names)

    def name_of(self, label: SupportsIndex) -> str:
        """The class's name, also of one that is not trained on."""
        return (*self.class_names, *self.unseen_names)[label]

    def zero_shot(self) -> "Dataset":
        """The first half of the classes as training split, the other half as test split (HDCL 4.1).

        Of an odd number of classes the training split has one more (Pets: 19 and 18). The official
        splits are pooled first. Labels stay as they are.

        Raises:
          UserError: there is a single class, or the counts are not the official ones.
        """
        seen = (self.num_classes + 1) // 2
        if self.num_classes < 2:
            raise UserError(f"{self.name} has one class: a zero-shot split needs at least two.")
        pooled = pool(self.train, self.test)
        halves = [np.flatnonzero(pooled.labels < seen), np.flatnonzero(pooled.labels >= seen)]
        counts = (len(halves[0]), len(halves[1]))
        if self.zero_shot_counts not in (None, counts):
            official = " and ".join(map(str, self.zero_shot_counts))
            raise UserError(
                f"the zero-shot split of {self.name} has {counts[0]} and {counts[1]} images where "
                f"the official data has {official}: the archive is not complete."
            )
        train, test = (take(pooled, rows) for rows in halves)
        hierarchy = {k: (names, parent[:seen]) for k, (names, parent) in self.hierarchy.items()}
        return dataclasses.replace(
            self,
            name=f"{self.name}-zero-shot",
            class_names=self.class_names[:seen],
            unseen_names=self.class_names[seen:],
            train=train,
            test=test,
            fingerprint=hashlib.sha256(f"zero-shot {self.fingerprint}".encode()).hexdigest()[:16],
            hierarchy=hierarchy,
        )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows of several sources as one; (source, row) of each."""

    sources: tuple[Source, ...]
    places: np.ndarray  # int [N, 2]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, row = self.places[index].tolist()
        return self.sources[source][row]


def pool(*splits: Split) -> Split:
    """Splits one after another as one."""
    places = [[(number, row) for row in range(len(s))] for number, s in enumerate(splits)]
    parts = [s.parts for s in splits if s.parts is not None]
    return Split(
        source=_Rows(tuple(s.source for s in splits), np.concatenate(places)),
        labels=np.concatenate([s.labels for s in splits]),
        boxes=np.concatenate([s.boxes for s in splits]),
        parts=np.concatenate(parts) if len(parts) == len(splits) else None,
        filenames=sum((s.filenames for s in splits), ()),
        crop_bottom=splits[0].crop_bottom,
    )


def take(split: Split, rows: np.ndarray) -> Split:
    """Some rows of a split, in the given order."""
    places = np.stack([np.zeros(len(rows), int), rows], axis=1)
    return Split(
        source=_Rows((split.source,), places),
        labels=split.labels[rows],
        boxes=split.boxes[rows],
        parts=None if split.parts is None else split.parts[rows],
        filenames=tuple(split.filenames[row] for row in rows.tolist()),
        crop_bottom=split.crop_bottom,
    )
