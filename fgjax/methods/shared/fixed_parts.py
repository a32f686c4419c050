"""Part boxes that nothing was learnt for: a grid, random ones, and the annotated.

They show what localization brings and what mixing brings without it.
"""

import numpy as np

from fgjax.data.datasets import Dataset, Split
from fgjax.data.loading import generator
from fgjax.errors import UserError
from fgjax.localization import boxes


def half_sizes(part_size: float, windows: np.ndarray | None) -> np.ndarray | float:
    """Half sides of a part box in the coordinates of object crops.

    A number, where `part_size` is a share of the crop (no `windows`); where it is one of the image,
    [N, 1, 2], at most half of the crop.
    """
    if windows is None:
        return part_size / 2
    sides = np.maximum(windows[:, 2:] - windows[:, :2], 1e-6)
    return np.minimum(part_size / 2 / sides, 0.5)[:, None].astype(np.float32)


def grid(count: int, num_parts: int, half: np.ndarray | float) -> np.ndarray:
    """The same boxes in every crop, along its horizontal middle: [count, P, 4]."""
    columns = (np.arange(num_parts) + 0.5) / num_parts
    centers = np.stack([np.full_like(columns, 0.5), columns], axis=-1)
    return boxes.around(np.broadcast_to(centers, (count, *centers.shape)), half)


def random(count: int, num_parts: int, half: np.ndarray | float, *, seed: int) -> np.ndarray:
    """Boxes anywhere in the crop where they fit, each image's own: [count, P, 4]."""
    low = np.broadcast_to(np.minimum(half, 0.5), (count, 1, 2))
    centers = low + (1 - 2 * low) * generator(seed).uniform(size=(count, num_parts, 2))
    return boxes.around(centers, half)


def check(field: str, dataset: Dataset, others: str) -> None:
    """Refuse a field that is `annotated`, where the dataset has no parts; names what it may be.

    Raises:
      UserError: it has none.
    """
    if dataset.train.parts is None or dataset.test.parts is None:
        raise UserError(
            f"{field} is annotated, but {dataset.name} has no part boxes: choose {others}."
        )


def annotated(
    dataset: Dataset, split: Split, windows: np.ndarray, half: np.ndarray | float
) -> np.ndarray:
    """A box for each of the dataset's regions, [N, R, 4].

    A region of one part is its annotated box. One of several (CUB: head, body, tail) is a box
    around the mean centre of those that are visible; where none is, the grid's.

    Raises:
      ValueError: the dataset has no parts; see `check`.
    """
    if split.parts is None:
        raise ValueError(f"{dataset.name} has no part boxes.")
    regions = list(dataset.part_regions.values())
    found = grid(len(split), len(regions), half)
    parts = boxes.to_window(split.parts, windows[:, None])  # NaN where invisible
    for number, region in enumerate(regions):
        own = parts[:, list(region)]
        seen = np.asarray(~np.isnan(own).any(axis=-1))
        some = seen.any(axis=1)
        if len(region) == 1:
            found[some, number] = own[some, 0]
            continue
        middles = np.where(seen[..., None], boxes.centers(own), 0).sum(axis=1)
        middles = middles / np.maximum(seen.sum(axis=1), 1)[:, None]
        around = boxes.around(middles[:, None], half)[:, 0]
        found[some, number] = around[some]
    return found
