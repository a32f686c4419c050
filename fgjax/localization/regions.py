"""Region proposals on the device: anchors, suppression, crops. Boxes are as in `boxes`.

Fixed shapes throughout, so that all of it runs inside a jitted step; `vmap` over images.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Int32, Real


def anchors(grids: Sequence[int], sizes: Sequence[float]) -> Float32[np.ndarray, "A 4"]:
    """Square boxes of one size for each grid, centred on its cells, row by row, grid after grid.

    CCFR at 448 px: grids (14, 7) with sizes (96/448, 192/448) give 245.

    Args:
      grids: cells of each square feature map along a side.
      sizes: side of its boxes, as a share of the image.

    Returns:
      Boxes; they reach over the border, where `crop_and_resize` repeats the border.
    """
    found = []
    for cells, size in zip(grids, sizes, strict=True):
        middle = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centers = np.stack([y.ravel(), x.ravel()], axis=1)
        found.append(np.concatenate([centers - size / 2, centers + size / 2], axis=1))
    return np.concatenate(found).astype(np.float32)


def pairwise_iou(
    one: Real[ArrayLike, "A 4"], other: Real[ArrayLike, "B 4"]
) -> Float[jax.Array, "A B"]:
    """Intersection over union of each box with each other; 0 where both are empty."""
    one, other = jnp.asarray(one)[:, None], jnp.asarray(other)[None]
    side = lambda box: jnp.maximum(box[..., 2:] - box[..., :2], 0)  # noqa: E731
    area = lambda sides: sides[..., 0] * sides[..., 1]  # noqa: E731
    low = jnp.maximum(one[..., :2], other[..., :2])
    high = jnp.minimum(one[..., 2:], other[..., 2:])
    common = area(jnp.maximum(high - low, 0))
    union = area(side(one)) + area(side(other)) - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def nms(
    boxes: Float[ArrayLike, "A 4"],
    scores: Float[ArrayLike, " A"],
    *,
    iou_threshold: float = 0.25,
    count: int,
) -> tuple[Int32[jax.Array, " {count}"], Bool[jax.Array, " {count}"]]:
    """Greedy suppression: the best box, without those that overlap it, and again.

    Args:
      boxes: to choose from.
      scores: of the boxes; among equals the lower index comes first.
      iou_threshold: boxes with an IoU of at least this to a chosen one are suppressed.
      count: how many to choose, at most A.

    Returns:
      Indices in the order of choice, and whether a box was left; the places where none was take
      the suppressed boxes with the highest scores.

    Raises:
      ValueError: more boxes are asked for than there are, or shapes do not fit.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"nms: boxes are {boxes.shape} and scores {scores.shape}, but must be [A, 4] and [A]."
        )
    if not 1 <= count <= len(scores):
        raise ValueError(
            f"nms: {count} regions were asked for, but there are {len(scores)} anchors."
        )
    overlaps = pairwise_iou(boxes, boxes) >= iou_threshold
    places = jnp.arange(len(scores), dtype=jnp.int32)
    scores = jnp.maximum(scores, jnp.finfo(scores.dtype).min)
    available, taken = jnp.ones(len(scores), bool), jnp.zeros(len(scores), bool)
    indices, valid = [], []
    for _ in range(count):  # a few; a loop of XLA's could not be written as ONNX
        left = jnp.any(available)
        candidates = (left & available) | ~(left | taken)
        best = jnp.argmax(jnp.where(candidates, scores, -jnp.inf)).astype(jnp.int32)
        chosen = places == best
        available &= ~jnp.any(overlaps & chosen[:, None], axis=0) & ~chosen
        taken |= chosen
        indices.append(best)
        valid.append(left)
    return jnp.stack(indices), jnp.stack(valid)


def crop_and_resize(
    images: Float[ArrayLike, "B H W C"], boxes: Real[ArrayLike, "B R 4"], *, size: int
) -> Float[jax.Array, "B R {size} {size} C"]:
    """R boxes of each image, bilinearly resized to S × S pixels, S = `size`.

    Pixel centres lie at (i + ½) / S of the box, as in OpenCV's `resize` and PyTorch's
    `interpolate(align_corners=False)`; outside the image the border repeats. Two products with
    interpolation matrices: no gather, and gradients reach the images (not the boxes).
    """
    images = jnp.asarray(images)
    boxes = jax.lax.stop_gradient(jnp.asarray(boxes, jnp.float32))
    height, width = images.shape[1:3]
    rows = _interpolation(boxes[..., 0], boxes[..., 2], height, size)
    columns = _interpolation(boxes[..., 1], boxes[..., 3], width, size)
    rows, columns = rows.astype(images.dtype), columns.astype(images.dtype)
    tall = jnp.einsum("brsh,bhwc->brswc", rows, images)
    return jnp.einsum("brtw,brswc->brstc", columns, tall)


def _interpolation(
    low: Float[jax.Array, "B R"], high: Float[jax.Array, "B R"], pixels: int, size: int
) -> Float[jax.Array, "B R {size} {pixels}"]:
    """Weights of a line's pixels for the places along a box."""
    share = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    places = (low[..., None] + share * (high - low)[..., None]) * pixels - 0.5
    places = jnp.clip(places, 0, pixels - 1)
    distance = jnp.abs(places[..., None] - jnp.arange(pixels, dtype=jnp.float32))
    return jnp.maximum(1 - distance, 0)


def largest_region(mask: Bool[ArrayLike, "B H W"]) -> Bool[jax.Array, "B H W"]:
    """The largest 8-connected region of each mask (SCDA's connected component).

    Ties go to the first region in raster order; an empty mask stays empty. Every place takes the
    smallest number among its neighbours' until none changes: as many turns as the longest way
    through a region.
    """
    mask = jnp.asarray(mask)
    batch, height, width = mask.shape
    outside = height * width
    numbers = jnp.arange(outside, dtype=jnp.int32).reshape(1, height, width)
    start = jnp.where(mask, numbers, outside)

    def spread(found: jax.Array) -> jax.Array:
        for axis in (1, 2):
            edge = jax.lax.slice_in_dim(jnp.full_like(found, outside), 0, 1, axis=axis)
            size = found.shape[axis]
            before = jax.lax.slice_in_dim(found, 0, size - 1, axis=axis)
            after = jax.lax.slice_in_dim(found, 1, size, axis=axis)
            lower = jnp.concatenate([edge, before], axis=axis)
            upper = jnp.concatenate([after, edge], axis=axis)
            found = jnp.minimum(found, jnp.minimum(lower, upper))
        return jnp.where(mask, found, outside)

    def changes(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(pair[0] != pair[1])

    _, labels = jax.lax.while_loop(changes, lambda pair: (pair[1], spread(pair[1])),
                                   (start, spread(start)))  # fmt: skip
    flat = labels.reshape(batch, -1)
    sizes = jax.vmap(lambda row: jnp.bincount(row, length=outside + 1))(flat)
    largest = jnp.argmax(sizes[:, :outside], axis=1)
    return mask & (labels == largest[:, None, None])
