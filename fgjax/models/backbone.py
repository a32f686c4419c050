"""What all families share: the options of a network, its pooling and its classifier."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fgjax.errors import UserError
from fgjax.models import convolution, layers

# Channel mean and standard deviation of ImageNet's training images, in [0, 255].
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

POOLINGS = ("average", "max", "max_average")
HEADS = ("linear", "original")


@dataclasses.dataclass(frozen=True)
class Options:
    """How a network is varied; the same for every family.

    Attributes:
      num_classes: width of the logits.
      dtype: of the convolutions; parameters, statistics and logits stay float32.
      last_stride: 2 leaves a last map of 1/32 of the image, 1 one of 1/16; a vision transformer's
        maps are those of its patches either way.
      pooling: how the last map [B, H, W, C] becomes `pooled`: "average" or "max" [B, C], or
        "max_average" [B, 2C], the maximum first (HDCL).
      dropout: share of `pooled` that is dropped before the classifier in training.
      head: "linear" is one layer on `pooled`; "original" keeps VGG's hidden layers of 4096 and is
        the same as "linear" in the other families.
      remat: whether the backward pass computes each block a second time instead of keeping what is
        inside it.
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32
    last_stride: int = 2
    pooling: str = "average"
    dropout: float = 0.0
    head: str = "linear"
    remat: bool = False

    def __post_init__(self):
        for name, choices in (
            ("last_stride", (1, 2)),
            ("pooling", POOLINGS),
            ("head", HEADS),
        ):
            value = getattr(self, name)
            if value not in choices:
                listed = ", ".join(map(str, choices))
                raise UserError(f"a backbone's {name} is {value!r}, but must be one of {listed}.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"a backbone's dropout is {self.dropout}, but must be in [0, 1).")


class Backbone(nnx.Module):
    """Base of the families; subclasses begin with `normalize`, make the maps, end with `classify`.

    A network is called with pixels in [0, 255], uint8 or float: how they are scaled belongs to the
    weights, so nobody else needs to know.

    Attributes:
      pixels: mean and standard deviation by which `normalize` scales each channel.
      channels: C of the last map.
      features: D of `pooled`.
      fc: the classifier, [D, num_classes] but for VGG's original head.
      heads: names of the modules above the maps.
      patch: pixels that the sides of an image have to be a multiple of; 1: any.
      smallest: pixels of the smallest side whose last map is not empty.
    """

    pixels: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = IMAGENET
    heads: ClassVar[tuple[str, ...]] = ("fc",)
    patch: ClassVar[int] = 1
    smallest: int = 1

    def __init__(self, channels: int, options: Options, *, beside: int = 0, rngs: nnx.Rngs):
        """`beside` features of the network's own stand before the pooled map in `pooled`."""
        self.channels = channels
        self.features = beside + channels * (2 if options.pooling == "max_average" else 1)
        self.num_classes = options.num_classes
        self.pooling = options.pooling
        self.remat = options.remat
        self.dropout = layers.Dropout(options.dropout)
        self.fc = layers.Linear(self.features, options.num_classes, rngs=rngs)

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """Dotted paths of the modules that compute each map from the one before it.

        `config.freeze` takes maps by these names; a family that has none to say is frozen by
        patterns of module names alone.
        """
        return {}

    def normalize(self, images: jax.Array) -> jax.Array:
        """Pixels [B, H, W, 3] in [0, 255] as the network's weights want them, float32 or wider.

        Raises:
          UserError: patches do not divide the image, or it leaves an empty map.
        """
        for size in images.shape[1:3]:
            self.require_size("an image's side", size)
        wide = layers.widened(images)
        mean, deviation = (jnp.array(value, wide.dtype) for value in self.pixels)
        return (wide - mean) / deviation

    def require_size(self, field: str, size: int) -> None:
        """Refuse a size in pixels, which `field` says, that leaves no map or part of a patch.

        Raises:
          UserError: naming the least size, or the nearest ones that patches divide.
        """
        if size < self.smallest:
            raise UserError(
                f"{field} is {size} pixels, which leave nothing of the last map of this backbone: "
                f"choose {self.smallest} or more."
            )
        if size % self.patch:
            low = max(size // self.patch, 1) * self.patch
            raise UserError(
                f"{field} is {size} pixels, which patches of {self.patch} pixels do not divide: "
                f"choose {low} or {low + self.patch}."
            )

    def classify(
        self,
        outputs: dict[str, jax.Array],
        key: jax.Array | None,
        *,
        beside: jax.Array | None = None,
    ) -> dict:
        """The maps with `pooled` and `logits` of the last of them, and of [B, E] `beside` it."""
        pooled = pool(list(outputs.values())[-1], self.pooling)
        if beside is not None:
            pooled = jnp.concatenate([layers.widened(beside), pooled], axis=-1)
        return {**outputs, "pooled": pooled, "logits": self.fc(self.dropout(pooled, key))}


def pool(x: jax.Array, kind: str) -> jax.Array:
    """A map [B, H, W, C] as float32 features [B, C], or [B, 2C] for "max_average"."""
    wide = layers.widened(x)
    found = {
        "max": lambda: convolution.global_max_pool(wide),
        "average": lambda: layers.global_average_pool(wide),
    }
    return jnp.concatenate([found[part]() for part in kind.split("_")], axis=-1)
