"""A dataset by its counts alone: what a run would cost can be said before its images are here."""

import dataclasses
import functools
import pathlib
from typing import Any

import cv2
import numpy as np

from fgjax.config import Data
from fgjax.data import datasets
from fgjax.data.datasets.base import Counts, FineGrainedBuilder, regions_of
from fgjax.data.datasets.splits import Dataset, Split
from fgjax.errors import UserError
from fgjax.localization import boxes

OF_A_FOLDER = Counts(train=1000, test=250, classes=10)  # where none is named


@dataclasses.dataclass(frozen=True)
class Blank:
    """A `Source` of one small grey image."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": _grey()}


@functools.cache
def _grey() -> bytes:
    return cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()


def without_images(data: Data) -> tuple[Dataset, str]:
    """The dataset that a config names, with blank images, and what was assumed about it.

    Labels and boxes are the real ones where the dataset is prepared, and then nothing is assumed.
    Otherwise the official counts are, with as many images of each class, all of them annotated.

    Raises:
      UserError: the dataset is unknown, or the folder that is named does not exist.
    """
    if data.dataset == "folder" and not data.path:
        return _spread("folder", OF_A_FOLDER, zero_shot=data.zero_shot), (
            f"No folder is named (--config.data.path): {_listed(OF_A_FOLDER)} are assumed, as many "
            "of each."
        )
    if data.dataset == "folder":
        return _blank(datasets.of_config(data)), ""
    builder = datasets.builder_of(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir)
    if pathlib.Path(builder.data_path).exists():
        return _blank(datasets.of_config(data)), ""
    counts = builder.expected_counts()
    if counts is None:
        raise UserError(
            f"{builder.title} is not prepared on this machine, and how many images it has is not "
            "known: prepare it by training, or name another dataset."
        )
    dataset = _spread(data.dataset, counts, zero_shot=data.zero_shot, builder=builder)
    said = _listed(counts)
    if data.zero_shot:
        said += f" ({len(dataset.train):,} and {len(dataset.test):,} images of either half)"
    of_all = "" if builder.complete else " of the whole dataset"
    return dataset, (
        f"{builder.title} is not prepared on this machine: {said}{of_all} are assumed, as many of "
        "each."
    )


def _listed(counts: Counts) -> str:
    return f"{counts.train:,} training and {counts.test:,} test images of {counts.classes} classes"


def _blank(dataset: Dataset) -> Dataset:
    """The same without images."""
    blank = lambda split: dataclasses.replace(split, source=Blank(len(split)))  # noqa: E731
    return dataclasses.replace(dataset, train=blank(dataset.train), test=blank(dataset.test))


def _spread(
    name: str, counts: Counts, *, zero_shot: bool, builder: FineGrainedBuilder | None = None
) -> Dataset:
    """As many images of each class, as far as they go round."""
    classes, seen = counts.classes, counts.classes
    labels = {"train": _labels(counts.train, classes), "test": _labels(counts.test, classes)}
    if zero_shot:
        seen = (classes + 1) // 2
        pooled = np.concatenate([labels["train"], labels["test"]])
        labels = {"train": pooled[pooled < seen], "test": pooled[pooled >= seen]}
        known = builder and builder.complete and builder.zero_shot_counts
        if known:
            labels = {
                "train": _labels(known[0], seen),
                "test": seen + _labels(known[1], classes - seen),
            }
    names = tuple(f"class {number + 1}" for number in range(classes))
    part_names = builder.part_names if builder else ()
    splits = {
        split: Split(
            source=Blank(len(own)),
            labels=own,
            # A folder has no boxes; those of a dataset are taken to be complete.
            boxes=np.tile(
                boxes.WHOLE if builder else np.full(4, np.nan, np.float32), (len(own), 1)
            ),
            parts=np.tile(boxes.WHOLE, (len(own), len(part_names), 1)) if part_names else None,
            filenames=("blank",) * len(own),
            crop_bottom=builder.crop_bottom if builder else 0,
        )
        for split, own in labels.items()
    }
    return Dataset(
        name=f"{name}-zero-shot" if zero_shot else name,
        class_names=names[:seen],
        unseen_names=names[seen:],
        fingerprint="assumed",
        part_names=part_names,
        part_regions=regions_of(builder) if builder else {},
        train=splits["train"],
        test=splits["test"],
    )


def _labels(count: int, classes: int) -> np.ndarray:
    return np.sort(np.arange(count) % classes).astype(np.int32)
