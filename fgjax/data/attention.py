"""Label shares by what a classifier looks at, beside shares by area (SnapMix, Huang et al. 2021).

Where one part decides the class, its area says little: a pasted head of 5 % of the pixels makes
another bird. A class activation map says where the class is seen.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fgjax.data.views import View
from fgjax.localization import cam

Pixels = tuple[int, int, int, int]  # y0, x0, y1, x1
Place = tuple[float, float, float, float]  # likewise, where pixels may be broken


class Seen(NamedTuple):
    """An image of a split as it was read: its row, its pixels, and by which view."""

    row: int
    image: np.ndarray
    view: View


class Patch(NamedTuple):
    """What was pasted: the pixels that it covers, the donor, and the pixels that it was there."""

    target: Pixels
    donor: Seen
    origin: Pixels


@dataclasses.dataclass(frozen=True)
class Attention:
    """Class activation maps of a split's images, each of the image's own class.

    Attributes:
      maps: float32 [N, h, w] of whole images.
    """

    maps: np.ndarray

    def inside(self, seen: Seen, rectangles: Sequence[Place]) -> np.ndarray:
        """Shares of the attention to what is seen of an image that lie in pixels of it, [R]."""
        size = seen.image.shape[0]
        windows = [seen.view.inside(np.array(one) / size).window for one in rectangles]
        found = cam.mass(cam.density(self.maps[seen.row]), np.stack([seen.view.window, *windows]))
        if found[0] < 1e-9:  # nothing of it is seen: by area
            return np.array([_area(one) / size**2 for one in rectangles])
        return found[1:] / found[0]

    def weights(self, reference: Seen, patches: Sequence[Patch]) -> np.ndarray | None:
        """Shares of A, B and C in a mixture, [3] float32, summing to 1 (LAPM Eq. 6).

        A has the attention to it that no patch covers, B and C that to what is seen of them in
        their patches, B's first. SnapMix does not bring them to a sum of 1.

        Args:
          reference: A.
          patches: of B and then C, in the order of pasting; the later one owns the overlap.

        Returns:
          None where nothing that is seen has any attention.
        """
        targets = [patch.target for patch in patches]
        shown = [self.inside(patch.donor, [patch.origin])[0] for patch in patches]
        hidden = self.inside(reference, targets).sum()
        if len(patches) == 2 and _area(common := _overlap(*targets)):
            hidden -= self.inside(reference, [common])[0]
            first = patches[0]
            shown[0] -= self.inside(first.donor, [_carried(common, first)])[0]
        found = np.maximum([1 - hidden, *shown, *[0] * (2 - len(shown))], 0)
        total = found.sum()
        return None if total < 1e-6 else (found / total).astype(np.float32)


def _area(box: Place) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _overlap(one: Place, other: Place) -> Place:
    (y0, x0, y1, x1), (v0, u0, v1, u1) = one, other
    return max(y0, v0), max(x0, u0), min(y1, v1), min(x1, u1)


def _carried(box: Place, patch: Patch) -> Place:
    """A rectangle within a patch's target as it lies in its origin."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = patch.target, patch.origin
    down, across = (v1 - v0) / (y1 - y0), (u1 - u0) / (x1 - x0)
    top, left, bottom, right = box
    return (v0 + (top - y0) * down, u0 + (left - x0) * across,
            v0 + (bottom - y0) * down, u0 + (right - x0) * across)  # fmt: skip
