"""From encoded images to batches: a pure function of (seed, step).

Element k of a stream is decided by the seed and k alone, so batches are the same for any number of
workers, processes and prefetched elements, and resuming means starting at a step.
"""

import dataclasses
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import cv2
import grain.python as grain
import numpy as np
from absl import flags

from fgjax import hosts
from fgjax.config import Augmentation, Data
from fgjax.data import watching
from fgjax.data.datasets import Split
from fgjax.data.images import Encoded, decode, frame_of
from fgjax.data.views import Color, View
from fgjax.localization import boxes as boxlib

Example = dict[str, Any]
Transform = Callable[[int, int], Example]  # of a position and an index

cv2.setNumThreads(0)  # parallelism comes from reading several images at once


_memory = threading.local()
BUFFER = 3 * 4096 * 4096  # bytes that a thread keeps for pixels; untouched ones cost nothing


def crop_resize(
    image: np.ndarray, window: np.ndarray, size: int, out: np.ndarray | None = None
) -> np.ndarray:
    """The window (a normalised box) of an image, resized to size × size without aliasing.

    Bilinear to the whole multiple of `size` that takes less than two pixels into one, then means
    of whole blocks: an exact area average costs several times as much.
    """
    y0, x0, y1, x1 = boxlib.to_pixels(window, *image.shape[:2])
    patch = image[y0:y1, x0:x1]
    down, across = max(1, (y1 - y0) // size), max(1, (x1 - x0) // size)
    if down == across == 1:
        return cv2.resize(patch, (size, size), dst=out, interpolation=cv2.INTER_LINEAR)
    fitting = cv2.resize(patch, (across * size, down * size), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(fitting, (size, size), dst=out, interpolation=cv2.INTER_AREA)


def reduction(height: int, width: int, window: np.ndarray, size: int) -> int:
    """By how much a JPEG is reduced while it is decoded: 8, 4, 2, or 1 for not at all.

    The largest factor that leaves 2 · `size` pixels on the shorter side of the window (a normalised
    box of the image): with fewer, the pixels are farther from an area average than without it.
    """
    if min(height, width) < 4 * size or max(height, width) >= 2**15:  # OpenCV's warp ends there
        return 1
    y0, x0, y1, x1 = boxlib.to_pixels(window, height, width)
    room = min(y1 - y0, x1 - x0) // (2 * size)
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(room, 1))


def read_window(
    image: Encoded,
    window: np.ndarray,
    size: int,
    out: np.ndarray | None = None,
    *,
    banner: int = 0,
    square: float | None = None,
) -> np.ndarray:
    """The window of a file at size × size: training, evaluation and prediction read by this.

    Args:
      image: any kind of file; large JPEGs are decoded at a reduced size.
      window: normalised box of the image without its banner.
      size: in pixels.
      out: where to write.
      banner: rows at the bottom that are no part of the image, in pixels of the full one.
      square: the window is one of the image's largest square at this place; see `boxes.square_of`.

    Raises:
      UserError: the image cannot be decoded; names it.
    """
    frame = frame_of(image.data)
    height, width = (frame.height - banner, frame.width) if frame else (0, 0)
    if frame is not None and square is not None:
        window = boxlib.from_window(window, boxlib.square_of(height, width, square))
    factor = reduction(height, width, window, size)
    pixels = _decoded(image, factor)
    if frame is None or factor == 1:
        whole = pixels[:-banner] if banner else pixels
        if frame is None and square is not None:
            height, width = whole.shape[:2]
            window = boxlib.from_window(window, boxlib.square_of(height, width, square))
        return crop_resize(whole, window, size, out)
    # A last block of less than `factor` pixels stands at the border where the file ends.
    top = pixels.shape[0] - frame.height / factor if frame.from_bottom else 0
    left = pixels.shape[1] - frame.width / factor if frame.from_right else 0
    scale = np.array([height, width] * 2) / factor
    corners = np.clip(np.asarray(window, np.float64), 0, 1) * scale + [top, left] * 2
    return _crop_between_pixels(
        pixels[: int(top + height / factor)] if banner else pixels, corners, size, out
    )


def _decoded(image: Encoded, factor: int) -> np.ndarray:
    """The pixels, in this thread's memory until it decodes another: of one image several views."""
    if not hasattr(_memory, "buffer"):
        _memory.buffer, _memory.last = np.empty(BUFFER, np.uint8), None
    last = _memory.last
    if last is not None and last[1] == factor and last[0] == image.data:
        return last[2]
    _memory.last = None
    pixels = decode(*image, buffer=_memory.buffer, factor=factor)
    if pixels.nbytes <= BUFFER:
        _memory.last = image.data, factor, pixels
    return pixels


def _crop_between_pixels(
    image: np.ndarray, corners: np.ndarray, size: int, out: np.ndarray | None
) -> np.ndarray:
    """`crop_resize` of a box in pixels that may begin and end inside one.

    A pixel of a reduced image is large: rounded to whole ones, the window moved by up to a quarter
    of a pixel of the result, and that was most of the difference to a full decode.
    """
    y0, x0, y1, x1 = corners.tolist()
    down, across = max(1, int((y1 - y0) / size)), max(1, int((x1 - x0) / size))
    dy, dx = (y1 - y0) / (down * size), (x1 - x0) / (across * size)
    places = np.array([[dx, 0, x0 + dx / 2 - 0.5], [0, dy, y0 + dy / 2 - 0.5]])  # of the samples
    whole = down == across == 1
    fitting = cv2.warpAffine(
        image, places, (across * size, down * size), dst=out if whole else None,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    if whole:
        return fitting
    return cv2.resize(fitting, (size, size), dst=out, interpolation=cv2.INTER_AREA)


def crop(
    image: np.ndarray | Encoded, window: np.ndarray, size: int, *, square: float | None = None
) -> np.ndarray:
    """`read_window` of a file, `crop_resize` of pixels."""
    if isinstance(image, Encoded):
        return read_window(image, window, size, square=square)
    if square is not None:
        height, width = image.shape[:2]
        window = boxlib.from_window(window, boxlib.square_of(height, width, square))
    return crop_resize(image, window, size)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads image `i` of a split: its window (the whole image or an object box), resized.

    Attributes:
      windows: float32 [N, 4] in image coordinates, or None for whole images.
      parts: float32 [N, P, 4] in the windows' coordinates, or None.
      square: of whole images without parts: read the largest square, the middle one, or any where
        an image is augmented, and do not squash the image.
    """

    split: Split
    size: int
    augmentation: Augmentation
    windows: np.ndarray | None = None
    parts: np.ndarray | None = None
    square: bool = False

    def read(
        self,
        index: int,
        rng: np.random.Generator | None = None,
        *,
        flip: bool | None = None,
        out: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [S, S, 3], in `out` if given, and its part boxes [P, 4].

        Augmented when an rng is given; with `flip` the drawn flip is turned round.
        """
        view = self.view(index, rng, flip=flip)
        return self.render(index, view, out=out), view.parts

    def view(
        self, index: int, rng: np.random.Generator | None = None, *, flip: bool | None = None
    ) -> View:
        """How image `index` is seen, as `read` says."""
        window = boxlib.WHOLE if self.windows is None else self.windows[index]
        parts = np.zeros((0, 4), np.float32) if self.parts is None else self.parts[index]
        if rng is None:
            return View(window, parts, square=0.5 if self.square else None)
        inner = random_window(rng, self.augmentation.crop_scale)
        window, parts = boxlib.from_window(inner, window), boxlib.to_window(parts, inner)
        drawn = bool(rng.integers(2)) and self.augmentation.flip
        flipped = drawn != bool(flip)
        color = Color.draw(rng) if self.augmentation.color else None
        square = float(rng.uniform()) if self.square else None
        return View(window, boxlib.flip(parts) if flipped else parts, flipped, color, square)

    def render(
        self, index: int, view: View, *, size: int = 0, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Image `index` as it is seen, uint8 [S, S, 3]; `size` in place of the reader's."""
        file = Encoded(self.split.source[int(index)]["image"], self.split.filenames[index])
        banner = self.split.crop_bottom
        image = read_window(
            file, view.window, size or self.size, out, banner=banner, square=view.square
        )
        if view.flipped:
            image = cv2.flip(image, 1, dst=image)
        if view.color is not None:
            image[:] = view.color(image)
        return image


@runtime_checkable
class ImageReader(Protocol):
    """What reads the images of a split by their rows: a `Reader`, or one that has its methods."""

    @property
    def split(self) -> Split:
        """The split that is read."""
        ...

    def read(
        self, index: int, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image and part boxes of a row, augmented when an rng is given."""
        ...


def random_window(rng: np.random.Generator, smallest: float) -> np.ndarray:
    """A square window [4] of a whole: its side uniform from `smallest` to 1, anywhere inside."""
    side = rng.uniform(smallest, 1)
    low = rng.uniform(0, 1 - side, 2)
    return np.concatenate([low, low + side]).astype(np.float32)


def generator(seed: int, *path: int) -> np.random.Generator:
    """Random numbers that depend on (seed, path) alone."""
    return np.random.default_rng([seed, *path])


def stream(indices: np.ndarray, transform: Transform, *, seed: int) -> grain.MapDataset:
    """An endless, shuffled stream of examples: element k is transform(k, index).

    Each pass over the indices has an order of its own.
    """
    dataset = (
        grain.MapDataset.source(cast(Sequence[int], np.asarray(indices)))
        .seed(seed)
        .shuffle()
        .repeat()
    )
    return dataset.map_with_index(functools.partial(_apply, transform))


def _apply(transform, position, index):
    return transform(int(position), int(index))


def training_stream(reader: Reader, indices: np.ndarray, *, seed: int) -> grain.MapDataset:
    """Augmented single images: `image` [S, S, 3], `label`, `index` (row of the split).

    And `parts` [P, 4], where the reader has them.
    """
    return stream(indices, SingleImage(reader, seed), seed=seed)


@dataclasses.dataclass(frozen=True)
class SingleImage:
    """Transform of `training_stream`."""

    reader: Reader
    seed: int

    def __call__(self, position: int, index: int) -> Example:
        return _example(self.reader, index, generator(self.seed, position))


def _example(reader: ImageReader, index: int, rng: np.random.Generator | None) -> Example:
    image, parts = reader.read(index) if rng is None else reader.read(index, rng)
    example = {
        "image": image,
        "label": np.int32(reader.split.labels[index]),
        "index": np.int32(index),
    }
    if parts is None or not len(parts):
        return example
    return {**example, "parts": np.asarray(parts, np.float32)}


def batches(
    dataset: grain.MapDataset,
    *,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    data: Data | None = None,
) -> Iterator[Example]:
    """Batches start … stop of a stream; each process gets its own rows of every batch.

    Args:
      dataset: a stream of examples.
      batch_size: over all processes.
      start: first step.
      stop: the step after the last; None for no end.
      data: workers, prefetch and patience; None, or workers that are still to be measured, read
        with threads of this process.

    Raises:
      UserError: as of `watching.watched`, when a batch is asked for.
    """
    processes, process = hosts.count(), hosts.index()
    local = dataset.batch(batch_size // processes)[process::processes]
    local = local[start : sys.maxsize if stop is None else stop]
    workers = max(data.workers, 0) if data else 0
    prefetch = data.prefetch if data else 2
    threads = 1 if workers else 4
    iterator = local.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, 1) * threads)
    )
    if workers:
        if not flags.FLAGS.is_parsed():  # outside absl (tests, notebooks) grain's flags are unread
            flags.FLAGS.mark_as_parsed()
        iterator = iterator.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        )
    patience = data.patience if data else Data().patience
    return watching.watched(iter(iterator), patience=patience, workers=workers)


def evaluation_batches(
    source: ImageReader | Transform, indices: np.ndarray, *, batch_size: int
) -> Iterator[tuple[Example, np.ndarray]]:
    """Every index once, in order; the last batch is padded.

    Args:
      source: a reader, for images without augmentation, or a transform of (position, index).
      indices: rows of the split.
      batch_size: over all processes.

    Yields:
      This process' rows of a batch, and the indices of all its real rows.
    """
    indices = np.asarray(indices)
    padded = -(-len(indices) // batch_size) * batch_size
    filled = np.concatenate([indices, np.full(padded - len(indices), indices[:1])]).astype(int)
    transform, share = transform_of(source), batch_size // hosts.count()
    places = np.arange(padded).reshape(-1, hosts.count(), share)[:, hosts.index()].ravel()
    dataset = grain.MapDataset.source(cast(Sequence[int], places)).map(
        lambda place: transform(int(place), int(filled[place]))
    )
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=share)
    for number, batch in enumerate(dataset.batch(share).to_iter_dataset(options)):
        yield batch, indices[number * batch_size : (number + 1) * batch_size]


@dataclasses.dataclass(frozen=True)
class PlainImage:
    """Transform that reads an image without augmentation, for evaluation."""

    reader: ImageReader

    def __call__(self, position: int, index: int) -> Example:
        """Image, label and index, whatever the position."""
        del position
        return _example(self.reader, index, None)


def transform_of(source: ImageReader | Transform) -> Transform:
    """A transform as it is; of a reader, that of images without augmentation."""
    if hasattr(source, "read"):
        return PlainImage(cast(ImageReader, source))
    return cast(Transform, source)
