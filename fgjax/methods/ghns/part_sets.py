"""Sets of three part images, unshuffled or with parts of other classes' images (GHNS Eq. 5)."""

import dataclasses

import numpy as np

from fgjax.data.datasets import Split
from fgjax.data.loading import Example, Reader, crop_resize, generator, random_window
from fgjax.data.mixing import Donors
from fgjax.data.views import View
from fgjax.localization import boxes as boxlib


@dataclasses.dataclass(frozen=True)
class Views:
    """Part features of every training image in several views.

    Attributes:
      features: [V · N, P, D]; row v · N + i is view v of image i, view 0 without augmentation.
      labels: int [V · N].
      images: N.
    """

    features: np.ndarray
    labels: np.ndarray
    images: int

    @property
    def count(self) -> int:
        """V."""
        return len(self.features) // self.images

    def of(self, rows: np.ndarray) -> np.ndarray:
        """All views of some images, view after view."""
        return (np.arange(self.count)[:, None] * self.images + rows).ravel()

    def images_of(self, rows: np.ndarray) -> np.ndarray:
        """The images that views are of."""
        return rows % self.images

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """A view of an image; nothing is drawn where there is one."""
        return index if self.count == 1 else index + self.images * int(rng.integers(self.count))


@dataclasses.dataclass(frozen=True)
class AugmentedParts:
    """Transform that reads the parts of an image in view `number`, whatever the position."""

    reader: "PartReader"
    seed: int
    number: int

    def __call__(self, position: int, index: int) -> Example:
        """Image uint8 [P, S, S, 3], label, index."""
        del position
        image, _ = self.reader.read(index, generator(self.seed, self.number, index))
        label = np.int32(self.reader.split.labels[index])
        return {"image": image, "label": label, "index": np.int32(index)}


def replacement_masks(count: int) -> np.ndarray:
    """All ways to replace some but not all of `count` parts: bool [2^count − 2, count].

    Fewer replacements first; for three parts 1, 2, 3, 1+2, 1+3, 2+3 (GHNS section 3.2).
    """
    every = [[bool(n >> i & 1) for i in range(count)] for n in range(1, 2**count - 1)]
    return np.array(sorted(every, key=lambda mask: (sum(mask), [not m for m in mask])))


@dataclasses.dataclass(frozen=True)
class PartReader:
    """Reads the part images of image `i`: like a `Reader`, but [P, S, S, 3].

    Attributes:
      reader: of object crops with part boxes.
      size: S, the side of a part image in pixels.
      original: cut parts from the image's own pixels, and not from the resized crop.
      own_crops: a part is augmented by a random crop of its own box, and not by the object's crop,
        which cuts off what lies at its border and shows all else as it is.
    """

    reader: Reader
    size: int
    original: bool = True
    own_crops: bool = False

    @property
    def split(self) -> Split:
        """The reader's split."""
        return self.reader.split

    def read(
        self, index: int, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Parts uint8 [P, S, S, 3] and their boxes [P, 4]; augmented when an rng is given."""
        view = self.reader.view(index, rng)
        if self.own_crops and rng is not None:
            seen = [self._crop_of(box, view, rng) for box in self._boxes(index)]
            images = [self.reader.render(index, one, size=self.size) for one in seen]
            return np.stack(images), view.parts
        inside = np.clip(view.parts, 0, 1)  # a random crop may leave a part half outside
        if not self.original:
            image = self.reader.render(index, view)
            return np.stack([crop_resize(image, box, self.size) for box in inside]), view.parts
        images = [self.reader.render(index, view.inside(box), size=self.size) for box in inside]
        return np.stack(images), view.parts

    def _boxes(self, index: int) -> np.ndarray:
        """The part boxes [P, 4] in the image's coordinates."""
        reader = self.reader
        assert reader.parts is not None
        window = boxlib.WHOLE if reader.windows is None else reader.windows[index]
        return boxlib.from_window(reader.parts[index], window[None])

    def _crop_of(self, box: np.ndarray, view: View, rng: np.random.Generator) -> View:
        """A random crop of a box of the image, flipped and coloured as the view is."""
        inner = random_window(rng, self.reader.augmentation.crop_scale)
        nothing = np.zeros((0, 4), np.float32)
        return dataclasses.replace(view, window=boxlib.from_window(inner, box), parts=nothing)


@dataclasses.dataclass(frozen=True)
class PartSets:
    """Transform that makes a set of parts: half of them shuffled.

    A shuffled set has some, not all, of its parts from images of other classes; each part keeps
    the label of the image that it comes from.

    Attributes:
      reader: of part images.
      donors: draws the other images.
      seed: decides everything together with the position.
      several: the other parts of both kinds of sets are of several images of the class, as far as
        it has them, each in its own crop and colours. Of one image, they would share both, and
        parts that do not would be known as shuffled by their colours alone.
    """

    reader: PartReader
    donors: Donors
    seed: int
    several: bool = False

    def __call__(self, position: int, index: int) -> Example:
        """Image uint8 [P, S, S, 3], labels int32 [P], is_shuffled float32, label, index."""
        rng = generator(self.seed, position)
        split = self.reader.split
        images, _ = self.reader.read(index, rng)
        labels = np.full(len(images), split.labels[index], np.int32)
        if self.several:
            own = [index, *self.donors.same(index, len(images) - 1, rng)]
            for part, row in zip(rng.permutation(len(images))[1:], own[1:]):
                images[part] = self.reader.read(row, rng)[0][part]
        shuffled = bool(rng.integers(2))
        if shuffled:
            masks = replacement_masks(len(images))
            replaced = np.flatnonzero(masks[rng.integers(len(masks))])
            for part, row in zip(replaced, self.donors.different(index, len(replaced), rng)):
                images[part] = self.reader.read(row, rng)[0][part]
                labels[part] = split.labels[row]
        return {
            "image": images,
            "labels": labels,
            "is_shuffled": np.float32(shuffled),
            "label": np.int32(split.labels[index]),
            "index": np.int32(index),
        }
