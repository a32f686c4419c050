"""How an image is seen in training: which window of it, flipped or not, in which colours."""

import dataclasses

import numpy as np

from fgjax.localization import boxes as boxlib


@dataclasses.dataclass(frozen=True)
class Color:
    """Permuted channels, a share of grey, a gain per channel and an offset."""

    channels: np.ndarray
    grey: float
    gain: np.ndarray
    offset: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Color":
        """Any of them."""
        channels, grey = rng.permutation(3), rng.uniform() ** 2
        return cls(channels, grey, rng.uniform(0.75, 1.25, 3), rng.uniform(-15, 15))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image in these colours."""
        permuted = image[..., self.channels].astype(np.float32)
        mixed = permuted * (1 - self.grey) + permuted.mean(axis=-1, keepdims=True) * self.grey
        shifted = mixed * self.gain.astype(np.float32) + np.float32(self.offset)
        return np.clip(shifted, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class View:
    """What an image is seen by.

    Attributes:
      window: box of the image.
      parts: part boxes [P, 4] in the view's coordinates, after the flip.
      flipped: left and right.
      square: None, or the window is one of the image's largest square, this share of the way along
        its longer side.
      color: None leaves the colours.
    """

    window: np.ndarray
    parts: np.ndarray
    flipped: bool = False
    color: Color | None = None
    square: float | None = None

    def inside(self, box: np.ndarray) -> "View":
        """The same of a box in the view's coordinates, without parts."""
        own = boxlib.flip(box) if self.flipped else box
        nothing = np.zeros((0, 4), np.float32)
        return dataclasses.replace(self, window=boxlib.from_window(own, self.window), parts=nothing)
