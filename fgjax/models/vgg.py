"""VGG-16 and -19 (Simonyan and Zisserman 2015), plain and with batch norm, torchvision's constants.

Called on NHWC pixels in [0, 255], a network returns `{"stage1" … "stage5", "pooled", "logits"}`; a
stage ends with its 2×2 pooling. With `last_stride=1` the last pooling is left out and `stage5` is
relu5_3 or relu5_4, which MA-CNN and CAM take their maps from.
"""

import jax
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options, pool

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
HIDDEN, GRID = 4096, 7  # of the original classifier


class Block(nnx.Module):
    """3×3 convolution, batch norm if any, ReLU."""

    def __init__(self, in_features: int, width: int, *, batch_norm: bool, dtype, rngs: nnx.Rngs):
        self.conv = layers.Conv(in_features, width, 3, use_bias=True, dtype=dtype, rngs=rngs)
        self.bn = nnx.data(layers.BatchNorm(width) if batch_norm else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return jax.nn.relu(x if self.bn is None else self.bn(x))


class VGG(Backbone):
    """A VGG network; see the module's docstring for the output."""

    heads = ("hidden", "fc")

    def __init__(
        self, depths: tuple[int, ...], options: Options, *, batch_norm: bool, rngs: nnx.Rngs
    ):
        super().__init__(WIDTHS[-1], options, rngs=rngs)
        self.depths, self.batch_norm, self.original = depths, batch_norm, options.head == "original"
        self.pool_last = options.last_stride == 2
        self.smallest = 16 * options.last_stride  # each pooling halves, and rounds down
        stages, features = [], 3
        for depth, width in zip(depths, WIDTHS, strict=True):
            blocks = []
            for _ in range(depth):
                block = Block(
                    features, width, batch_norm=batch_norm, dtype=options.dtype, rngs=rngs
                )
                blocks.append(block)
                features = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.hidden = nnx.List([])
        if self.original:
            inner = WIDTHS[-1] * GRID**2
            self.hidden.append(layers.Linear(inner, HIDDEN, rngs=rngs))
            self.hidden.append(layers.Linear(HIDDEN, HIDDEN, rngs=rngs))
            self.fc = layers.Linear(HIDDEN, options.num_classes, rngs=rngs)

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The blocks of each stage."""
        return {f"stage{index + 1}": (f"stages.{index}",) for index in range(len(self.stages))}

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x, outputs = self.normalize(images), {}
        for number, blocks in enumerate(self.stages, 1):
            x = layers.sequential(blocks, x, remat=self.remat)
            if number < len(self.stages) or self.pool_last:
                x = layers.max_pool(x, 2, stride=2)
            outputs[f"stage{number}"] = x
        return self._original(outputs, key) if self.original else self.classify(outputs, key)

    def _original(self, outputs: dict[str, jax.Array], key: jax.Array | None) -> dict:
        """fc6, fc7 and fc8 on the last map, averaged to 7 × 7."""
        last = layers.widened(outputs["stage5"])
        x = layers.adaptive_average_pool(last, GRID).reshape(last.shape[0], -1)
        keys = [None, None] if key is None else jax.random.split(key)
        for hidden, own in zip(self.hidden, keys, strict=True):
            x = self.dropout(jax.nn.relu(hidden(x)), own)
        return {**outputs, "pooled": pool(last, self.pooling), "logits": self.fc(x)}
