"""Part localization-aware CutMix on the host (LAPM section III.A), and CutMix beside it.

Every reference becomes a set of four images of fixed shape, so that sets shard evenly:

| slot | positive set (S = 1) | negative set (S = 0) |
|---|---|---|
| 0 | the reference A | the reference A |
| 1 | SCDI₁: one part of B, of A's class | DCDI₁: one part of B, of another class |
| 2 | SCDI₂: two parts, from B and from C, of A's class | DCDI₂: likewise, of two further classes |
| 3 | outside the set (weight 0) | DCDI_C: an image of another class |

B of slot 1 is the B of slot 2. The positive set has three images; its slot 3 holds an image of
another class so that batch statistics see natural images, and counts in L_cls where that is wished.
"""

import dataclasses
import functools

import cv2
import numpy as np

from fgjax.data.attention import Attention, Patch, Seen
from fgjax.data.loading import Example, Reader, generator
from fgjax.data.sampling import rows_by_class
from fgjax.errors import UserError
from fgjax.localization import boxes as boxlib

SLOTS = ("reference", "CDI_1", "CDI_2", "DCDI_C")


def paste(
    image: np.ndarray, box: np.ndarray, donor: np.ndarray, donor_box: np.ndarray
) -> tuple[int, int, int, int]:
    """Put the donor's box, bilinearly resized, over the image's box; in place.

    Returns:
      The pixels (y0, x0, y1, x1) that now belong to the donor.
    """
    y0, x0, y1, x1 = boxlib.to_pixels(box, *image.shape[:2])
    v0, u0, v1, u1 = boxlib.to_pixels(donor_box, *donor.shape[:2])
    image[y0:y1, x0:x1] = cv2.resize(
        donor[v0:v1, u0:u1], (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR
    )
    return y0, x0, y1, x1


def patch(image: np.ndarray, box: np.ndarray, donor: Seen, donor_box: np.ndarray) -> Patch:
    """`paste`, and where it came from."""
    target = paste(image, box, donor.image, donor_box)
    return Patch(target, donor, boxlib.to_pixels(donor_box, *donor.image.shape[:2]))


def label_weights(pasted: list[tuple[int, int, int, int]], size: int) -> np.ndarray:
    """Shares B_A, B_B, B_C of the final image, [3] float32, summing to 1 (LAPM Eq. 5, 6).

    `pasted` are the rectangles of B and then C, in the order of pasting; the later one owns the
    overlap (M_A = 1 − M_B − M_C with disjoint masks, LAPM Eq. 4).
    """
    areas = [(y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in pasted]
    if len(pasted) == 2:
        (y0, x0, y1, x1), (v0, u0, v1, u1) = pasted
        areas[0] -= max(0, min(y1, v1) - max(y0, v0)) * max(0, min(x1, u1) - max(x0, u0))
    areas += [0] * (2 - len(areas))
    return np.array([size * size - sum(areas), *areas], np.float32) / (size * size)


def shares(
    reference: Seen, patches: list[Patch], size: int, attention: Attention | None
) -> np.ndarray:
    """The label weights of a mixture, by attention where there is any, or else by area."""
    by_attention = attention.weights(reference, patches) if attention else None
    if by_attention is None:
        return label_weights([patch.target for patch in patches], size)
    return by_attention


def see(
    reader: Reader,
    row: int,
    rng: np.random.Generator,
    *,
    flip: bool | None = None,
    out: np.ndarray | None = None,
) -> Seen:
    """Read an image and keep how it is seen."""
    view = reader.view(row, rng, flip=flip)
    return Seen(int(row), reader.render(row, view, out=out), view)


def random_box(rng: np.random.Generator) -> np.ndarray:
    """CutMix's box: area share 1 − θ with θ uniform, centre uniform, clipped (LAPM Eq. 3)."""
    half = np.sqrt(1 - rng.uniform()) / 2
    center = rng.uniform(0, 1, 2)
    return np.clip(np.concatenate([center - half, center + half]), 0, 1).astype(np.float32)


def is_positive(position: int, positives: int, negatives: int) -> bool:
    """Indicator S of the reference at a stream position: `positives`:`negatives`, evenly spread."""
    total = positives + negatives
    return (position + 1) * positives // total > position * positives // total


@dataclasses.dataclass(frozen=True)
class Donors:
    """Draws donors from the whole training split.

    Attributes:
      labels: of every row of the split.
      indices: rows that may be drawn.
    """

    labels: np.ndarray
    indices: np.ndarray

    @functools.cached_property
    def _rows(self) -> dict[int, np.ndarray]:
        return rows_by_class(self.labels, self.indices)

    @functools.cached_property
    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes, and how many rows each has."""
        counts = np.array([len(rows) for rows in self._rows.values()])
        return np.array(list(self._rows)), counts

    def same(self, index: int, count: int, rng: np.random.Generator) -> list[int]:
        """Distinct rows of the same class, never `index`; fewer if the class is smaller."""
        rows = self._rows.get(int(self.labels[index]), np.zeros(0, int))
        rows = rng.permutation(rows[rows != index])[:count]
        return [int(row) for row in rows]

    def different(self, index: int, count: int, rng: np.random.Generator) -> list[int]:
        """Rows of `count` classes that differ from the reference's and from each other.

        Where references are uniform over the rows, each donor is, too: otherwise its class alone
        would tell that it is one. The classes lie in random order on a circle, as long as there are
        rows, and the donors at least the largest class apart from the reference and each other.
        Where a class is too large for that, donors are uniform over what is left, and with fewer
        classes than wanted, classes repeat (but never the reference's).

        Raises:
          UserError: there is no other class.
        """
        classes, counts = self._classes
        own, total, largest = int(self.labels[index]), int(counts.sum()), int(counts.max())
        slack = total - (count + 1) * largest
        if slack < 0 or own not in self._rows:
            return self._drawn(own, count, rng)
        order = rng.permutation(len(classes))
        ends = np.cumsum(counts[order])
        place = int(np.flatnonzero(classes[order] == own)[0])
        start = ends[place] - rng.integers(1, counts[order[place]] + 1)
        apart = np.sort(rng.integers(0, slack + 1, count)) + largest * np.arange(1, count + 1)
        found = (start + rng.permutation(apart)) % total
        which = np.searchsorted(ends, found, side="right")
        chosen = classes[order[which]]
        return [int(self._rows[int(k)][at]) for k, at in zip(chosen, found - ends[which])]

    def _drawn(self, own: int, count: int, rng: np.random.Generator) -> list[int]:
        """The same one after the other, each uniform over the classes that are left."""
        rows: list[int] = []
        left = {k: r for k, r in self._rows.items() if k != own}
        if not left:
            raise UserError("mixing with other classes needs two of them, but only one trains.")
        others = dict(left)
        for _ in range(count):
            allowed = np.concatenate(list(left.values()))
            rows.append(int(rng.choice(allowed)))
            left.pop(int(self.labels[rows[-1]]))
            left = left or dict(others)
        return rows


@dataclasses.dataclass(frozen=True)
class SetMixing:
    """Transform that makes the set of one reference; see the module's docstring.

    Attributes:
      kind: "parts" pastes parts onto the same parts (Eq. 4-6), "cutmix" random boxes (Eq. 1-3).
      ratio: positives and negatives, e.g. (1, 1).
      fresh: each of slots 0 to 2 shows the reference in a crop, flip and colours of its own.
      describe: adds `boxes` [4, 2, 4], what was pasted into each slot, for pictures.
      attention: shares labels by it, and not by area.
    """

    reader: Reader
    donors: Donors
    seed: int
    kind: str = "parts"
    ratio: tuple[int, int] = (1, 1)
    fresh: bool = False
    describe: bool = False
    attention: Attention | None = None

    def __call__(self, position: int, index: int) -> Example:
        """The set of reference `index` at a stream position, as fixed-shape arrays.

        Returns:
          image uint8 [4, S, S, 3]; labels int32 [4, 3] and weights float32 [4, 3], the classes of
          A, B and C and their shares; is_positive float32 (S); label and index of the reference.
        """
        rng = generator(self.seed, position)
        positive = is_positive(position, *self.ratio)
        labels, size = self.reader.split.labels, self.reader.size
        images = np.empty((4, size, size, 3), np.uint8)
        seen = [see(self.reader, index, rng, out=images[0])] * 3  # the reference, slot by slot
        for slot in (1, 2):
            if self.fresh:
                seen[slot] = see(self.reader, index, rng, out=images[slot])
            else:
                images[slot] = images[0]
        parts = len(seen[0].view.parts)
        donor_b, donor_c, last = self._donors(index, positive, rng)
        label_b, label_c, label_last = (int(labels[one.row]) for one in (donor_b, donor_c, last))

        images[3] = last.image
        weights = np.zeros((4, 3), np.float32)
        weights[[0, 3], 0] = 1
        pasted = np.zeros((4, 2, 4), np.int32)
        first, second = rng.permutation(parts)[:2] if self.kind == "parts" else (0, 0)
        single = int(rng.integers(parts)) if self.kind == "parts" else 0
        for slot, plan in (
            (1, [(donor_b, single)]),
            (2, [(donor_b, first), (donor_c, second)]),
        ):
            patches = []
            for donor, part in plan:
                if self.kind == "parts":
                    target, origin = seen[slot].view.parts[part], donor.view.parts[part]
                else:
                    target = origin = random_box(rng)
                patches.append(patch(images[slot], target, donor, origin))
            weights[slot] = shares(seen[slot], patches, size, self.attention)
            pasted[slot, : len(patches)] = [one.target for one in patches]
        own = int(labels[index])
        example = {
            "image": images,
            "labels": np.array(
                [[own] * 3, [own, label_b, label_c], [own, label_b, label_c], [label_last] * 3],
                np.int32,
            ),
            "weights": weights,
            "is_positive": np.float32(positive),
            "label": np.int32(own),
            "index": np.int32(index),
        }
        return {**example, "boxes": pasted} if self.describe else example

    def _donors(self, index: int, positive: bool, rng: np.random.Generator) -> list[Seen]:
        """B, C and the image of slot 3; where a class has too few images, the flipped reference."""
        if not positive:
            return [see(self.reader, row, rng) for row in self.donors.different(index, 3, rng)]
        same = [see(self.reader, row, rng) for row in self.donors.same(index, 2, rng)]
        while len(same) < 2:
            same.append(see(self.reader, index, rng, flip=True))
        return [*same, see(self.reader, self.donors.different(index, 1, rng)[0], rng)]


@dataclasses.dataclass(frozen=True)
class SingleMixing:
    """Transform that makes one image of a reference: plain, or CutMix with any other image.

    The classic augmentation, for comparisons: `kind` is "none" or "cutmix". Same keys as
    `SetMixing` with a single slot.
    """

    reader: Reader
    donors: Donors
    seed: int
    kind: str = "none"
    attention: Attention | None = None

    def __call__(self, position: int, index: int) -> Example:
        """The reference at a stream position: image uint8 [1, S, S, 3] and its label weights."""
        rng = generator(self.seed, position)
        seen, labels = see(self.reader, index, rng), self.reader.split.labels
        own = other = int(labels[index])
        weights = np.array([1, 0, 0], np.float32)
        if self.kind == "cutmix":
            row = int(rng.choice(self.donors.indices))
            donor = see(self.reader, row, rng)
            box, other = random_box(rng), int(labels[row])
            patches = [patch(seen.image, box, donor, box)]
            weights = shares(seen, patches, self.reader.size, self.attention)
        return {
            "image": seen.image[None],
            "labels": np.array([[own, other, own]], np.int32),
            "weights": weights[None],
            "is_positive": np.float32(0),
            "label": np.int32(own),
            "index": np.int32(index),
        }
