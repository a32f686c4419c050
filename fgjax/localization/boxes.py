"""Boxes: (ymin, xmin, ymax, xmax), normalised to [0, 1] of the image they lie in.

Pure functions of arrays with any leading dimensions, computed by NumPy.
"""

import cv2
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Real

WHOLE: Float32[np.ndarray, "4"] = np.array([0.0, 0.0, 1.0, 1.0], np.float32)


def area(boxes: Real[ArrayLike, "*n 4"]) -> Real[np.ndarray | np.number, "*n"]:
    """Area of boxes as a share of the image; 0 for empty ones."""
    boxes = np.asarray(boxes)
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(one: Real[ArrayLike, "*#n 4"], other: Real[ArrayLike, "*#n 4"]) -> Float[np.ndarray, "*n"]:
    """Intersection over union of boxes, in [0, 1]; 0 where both are empty."""
    one, other = np.asarray(one), np.asarray(other)
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    common = area(np.concatenate([low, high], axis=-1))
    union = area(one) + area(other) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


def to_window(
    boxes: Real[ArrayLike, "*#n 4"], window: Real[ArrayLike, "*#n 4"]
) -> Float32[np.ndarray, "*n 4"]:
    """Coordinates of image boxes inside a window of the image, clipped to it."""
    origin, side = _origin_and_side(window)
    found = (np.asarray(boxes, np.float32) - origin) / np.maximum(side, np.float32(1e-6))
    return np.minimum(np.maximum(found, 0), 1)


def square_of(height: int, width: int, place: float = 0.5) -> Float32[np.ndarray, "4"]:
    """The largest square of an image: a shorter side resized, and a crop of that size.

    `place` in [0, 1] is where it lies along the longer side; 0.5 is the middle.

    >>> square_of(100, 200, 0.0).tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    side = min(height, width)
    down, across = side / height, side / width
    top, left = place * (1 - down), place * (1 - across)
    return np.array([top, left, top + down, left + across], np.float32)


def from_window(
    boxes: Real[ArrayLike, "*#n 4"], window: Real[ArrayLike, "*#n 4"]
) -> Float32[np.ndarray, "*n 4"]:
    """Inverse of `to_window`: boxes inside a window back to the image's coordinates."""
    origin, side = _origin_and_side(window)
    return np.asarray(boxes, np.float32) * side + origin


def _origin_and_side(
    window: Real[ArrayLike, "*n 4"],
) -> tuple[Float32[np.ndarray, "*n 4"], Float32[np.ndarray, "*n 4"]]:
    """(y, x, y, x) of a window's corner and of its sides."""
    window = np.asarray(window, np.float32)
    origin = window[..., [0, 1, 0, 1]]
    return origin, window[..., [2, 3, 2, 3]] - origin


def around(
    centers: Real[ArrayLike, "*n 2"], half_size: float | Real[ArrayLike, "*#n 2"]
) -> Float32[np.ndarray, "*n 4"]:
    """Boxes of half side `half_size`, or half height and width, around centres (y, x).

    They are clipped to [0, 1].
    """
    centers, half_size = np.asarray(centers, np.float32), np.asarray(half_size, np.float32)
    return np.clip(np.concatenate([centers - half_size, centers + half_size], axis=-1), 0, 1)


def centers(boxes: Real[ArrayLike, "*n 4"]) -> Float[np.ndarray, "*n 2"]:
    """Centres (y, x) of boxes."""
    boxes = np.asarray(boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def contains(
    boxes: Real[ArrayLike, "*#n 4"], points: Real[ArrayLike, "*#n 2"]
) -> Bool[np.ndarray | np.bool_, "*n"]:
    """Whether points lie inside boxes, borders included."""
    boxes, points = np.asarray(boxes), np.asarray(points)
    return np.all((points >= boxes[..., :2]) & (points <= boxes[..., 2:]), axis=-1)


def to_pixels(box: Real[ArrayLike, "4"], height: int, width: int) -> tuple[int, int, int, int]:
    """Whole pixels (y0, x0, y1, x1) of a box, at least one pixel each way, inside the image."""
    ymin, xmin, ymax, xmax = np.asarray(box, np.float64).tolist()  # numbers: this runs per image
    y0 = min(max(round(ymin * height), 0), height - 1)
    x0 = min(max(round(xmin * width), 0), width - 1)
    y1 = min(max(round(ymax * height), y0 + 1), height)
    x1 = min(max(round(xmax * width), x0 + 1), width)
    return y0, x0, y1, x1


def flip(boxes: Real[ArrayLike, "*n 4"]) -> Real[np.ndarray, "*n 4"]:
    """Boxes of the horizontally mirrored image."""
    boxes = np.asarray(boxes)
    return np.stack([boxes[..., 0], 1 - boxes[..., 3], boxes[..., 2], 1 - boxes[..., 1]], axis=-1)


def largest_component(
    mask: Bool[ArrayLike, "H W"], *, smallest: float = 0.05
) -> Float32[np.ndarray, "4"]:
    """Box of the largest 8-connected region of a mask.

    Ties go to the first region in raster order. A region smaller than the share `smallest` of the
    image, or an empty mask, gives the whole image.
    """
    mask = np.asarray(mask, np.uint8)
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return WHOLE.copy()
    left, top, width, height, pixels = statistics[1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA])]
    if pixels < smallest * mask.size:
        return WHOLE.copy()
    rows, columns = mask.shape
    box = [top / rows, left / columns, (top + height) / rows, (left + width) / columns]
    return np.array(box, np.float32)
