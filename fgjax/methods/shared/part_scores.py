"""How well found part boxes fit the annotated ones, beside random boxes and a fixed grid.

Where a dataset annotates many parts, they are taken together as regions (CUB: head, body, tail): a
centre hits a region where it lies in the box of any of the region's visible parts. Which found part
stands for which region is decided on training images alone.
"""

import dataclasses

import numpy as np
import scipy

from fgjax.data.datasets import Dataset
from fgjax.data.loading import generator
from fgjax.localization import boxes

_DRAWS = 5  # of random boxes


@dataclasses.dataclass(frozen=True)
class Truth:
    """The annotated parts of a split's images, in the coordinates of their windows.

    Attributes:
      parts: boxes [M, P, 4]; NaN where a part is not visible.
      regions: the parts of each region.
    """

    parts: np.ndarray
    regions: tuple[tuple[int, ...], ...]

    def hits(self, centers: np.ndarray) -> np.ndarray:
        """Share of images in which each of N centres [M, N, 2] hits each region: [N, R].

        An image counts for a region where any of its parts is visible; 0 where none ever is.
        """
        inside = np.asarray(boxes.contains(self.parts[:, None], centers[:, :, None]))  # [M, N, P]
        known = np.asarray(~np.isnan(self.parts).any(axis=-1))
        shares = []
        for region in self.regions:
            seen = known[:, list(region)].any(axis=1)
            any_part = np.asarray(inside[:, :, list(region)].any(axis=2))
            shares.append(any_part[seen].mean(axis=0) if seen.any() else np.zeros(inside.shape[1]))
        return np.stack(shares, axis=1)


def match(hits: np.ndarray) -> list[tuple[int, int]]:
    """The one-to-one pairs (found part, region) with the most hits [N, R]; min(N, R) of them."""
    found, regions = scipy.optimize.linear_sum_assignment(hits, maximize=True)
    return list(zip(found.tolist(), regions.tolist()))


def shares(
    centers: dict[str, np.ndarray], truths: dict[str, Truth]
) -> dict[str, list[tuple[int, float]]]:
    """(region, share of hits) of each matched part, by split; matched on the split `train`."""
    pairs = match(truths["train"].hits(centers["train"]))
    found = {name: truth.hits(centers[name]) for name, truth in truths.items()}
    return {
        name: [(region, float(hits[part, region])) for part, region in pairs]
        for name, hits in found.items()
    }


def scores(
    dataset: Dataset,
    found: dict[str, np.ndarray],
    windows: dict[str, np.ndarray],
    grid: dict[str, np.ndarray],
) -> dict[str, float]:
    """Shares of part centres inside the right region, by split: means, and region by region.

    Args:
      dataset: whose two splits have annotated parts.
      found: part boxes [M, N, 4] by split, in the windows' coordinates.
      windows: [M, 4] by split, in image coordinates.
      grid: boxes like `found` that nothing was learnt for.
    """
    splits = {"train": dataset.train, "test": dataset.test}
    regions = tuple(dataset.part_regions.values())
    truths = {}
    for name, split in splits.items():
        assert split.parts is not None
        parts = [boxes.to_window(p, w) for p, w in zip(split.parts, windows[name])]
        truths[name] = Truth(np.stack(parts), regions)
    mean_of = lambda matched: float(np.mean([share for _, share in matched]))  # noqa: E731
    metrics = {}
    by_kind = {
        "": shares({name: boxes.centers(found[name]) for name in splits}, truths),
        "_grid": shares({name: boxes.centers(grid[name]) for name in splits}, truths),
    }
    draws = [shares(_random(found, draw), truths) for draw in range(_DRAWS)]
    for name in splits:
        for kind, matched in by_kind.items():
            metrics[f"{name}_part_centers_inside{kind}"] = mean_of(matched[name])
        random = float(np.mean([mean_of(draw[name]) for draw in draws]))
        metrics[f"{name}_part_centers_inside_random"] = random
        names = tuple(dataset.part_regions)
        for region, share in by_kind[""][name]:
            metrics[f"{name}_part_centers_inside_{names[region]}"] = share
    return metrics


def _random(found: dict[str, np.ndarray], draw: int) -> dict[str, np.ndarray]:
    """Centres of boxes as large as those found, anywhere where they fit."""
    centers = {}
    for number, (name, like) in enumerate(found.items()):
        half = min(float(np.max(like[..., 2] - like[..., 0])) / 2, 0.5)
        shape = (*like.shape[:2], 2)
        centers[name] = generator(draw, 1, number).uniform(half, 1 - half, shape)
    return centers
