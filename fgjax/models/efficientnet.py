"""EfficientNet-Lite0, 1 and 2 (Tan & Le 2019; Lite: TensorFlow's TPU models) with their constants.

Called on NHWC pixels in [0, 255], a network returns
`{"stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"}`: the maps of stride 2, 4, 8,
16 and 32, the last one after the head's convolution to 1280 channels. Lite has no
squeeze-and-excitation, ReLU6 for swish, and stem and head of one width in all sizes. Submodules
have the names of the published PyTorch weights: `_blocks.3._bn1` is `blocks[3].bn1`.

The sizes that the weights were trained at are 224, 240 and 260 px. Drop-connect belonged to that
training and is left out: a training step drops nothing but what `dropout` says.
"""

import dataclasses
import math

import jax
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

STEM, HEAD = 32, 1280
EPSILON, MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99 is PyTorch's 0.01


@dataclasses.dataclass(frozen=True)
class Group:
    """Blocks of one width; the first of them takes the stride. `stage` names the map at its end."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int
    stage: str = ""


GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24, "stage1"),
    Group(2, 5, 2, 6, 40, "stage2"),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112, "stage3"),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
LAST_STRIDED = 5  # the group that `last_stride` is about
# factors of width and depth
ARCHITECTURES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


def scaled(width_factor: float, depth_factor: float) -> tuple[Group, ...]:
    """The groups of a larger network: widths to multiples of 8, repeats rounded up.

    The first and the last group are repeated as often in every size.
    """
    groups = []
    for position, group in enumerate(GROUPS):
        wanted = group.width * width_factor
        width = max(8, int(wanted + 4) // 8 * 8)
        if width < 0.9 * wanted:
            width += 8
        ends = position in (0, len(GROUPS) - 1)
        repeats = group.repeats if ends else math.ceil(group.repeats * depth_factor)
        groups.append(dataclasses.replace(group, width=width, repeats=repeats))
    return tuple(groups)


def _norm(features: int, *, activation: str = "none") -> layers.BatchNorm:
    return layers.BatchNorm(features, epsilon=EPSILON, momentum=MOMENTUM, activation=activation)


class Block(nnx.Module):
    """1×1 to more channels, depthwise, 1×1 to few, each with batch norm; a shortcut if it fits."""

    def __init__(self, in_features: int, group: Group, *, stride: int, dtype, rngs: nnx.Rngs):
        inner = in_features * group.expansion
        self.expands = group.expansion > 1
        self.shortcut = stride == 1 and in_features == group.width
        options = {"dtype": dtype, "rngs": rngs}
        if self.expands:
            self.expand_conv = layers.Conv(in_features, inner, 1, **options)
            self.bn0 = _norm(inner, activation="relu6")
        self.depthwise_conv = layers.DepthwiseConv(inner, group.kernel, stride=stride, **options)
        self.bn1 = _norm(inner, activation="relu6")
        self.project_conv = layers.Conv(inner, group.width, 1, **options)
        self.bn2 = _norm(group.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.bn0(self.expand_conv(x)) if self.expands else x
        inner = self.bn1(self.depthwise_conv(inner))
        found = self.bn2(self.project_conv(inner))
        return found + x if self.shortcut else found


class EfficientNetLite(Backbone):
    """A Lite network as its factors say; see the module's docstring for the output."""

    pixels = ((127.0,) * 3, (128.0,) * 3)

    def __init__(
        self, width_factor: float, depth_factor: float, options: Options, *, rngs: nnx.Rngs
    ):
        super().__init__(HEAD, options, rngs=rngs)
        shared = {"dtype": options.dtype, "rngs": rngs}
        self.conv_stem = layers.Conv(3, STEM, 3, stride=2, same=True, **shared)
        self.bn0 = _norm(STEM, activation="relu6")
        blocks, ends, features = [], {}, STEM
        for position, group in enumerate(scaled(width_factor, depth_factor)):
            strided = options.last_stride if position == LAST_STRIDED else group.stride
            for repeat in range(group.repeats):
                stride = strided if repeat == 0 else 1
                blocks.append(Block(features, group, stride=stride, **shared))
                features = group.width
            if group.stage:
                ends[len(blocks) - 1] = group.stage
        self.blocks, self.stage_ends = nnx.List(blocks), tuple(ends.items())
        self.conv_head = layers.Conv(features, HEAD, 1, **shared)
        self.bn1 = _norm(HEAD, activation="relu6")

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The blocks up to the end of each stage, and the head's convolution for the last map."""
        maps: dict[str, tuple[str, ...]] = {"stem": ("conv_stem", "bn0")}
        begin = 0
        for end, name in (*self.stage_ends, (len(self.blocks) - 1, "stage4")):
            maps[name] = tuple(f"blocks.{number}" for number in range(begin, end + 1))
            begin = end + 1
        maps["stage4"] += ("conv_head", "bn1")
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x = self.bn0(self.conv_stem(self.normalize(images)))
        outputs, ends = {"stem": x}, dict(self.stage_ends)
        for position, block in enumerate(self.blocks):
            x = block(x)
            if position in ends:
                outputs[ends[position]] = x
        outputs["stage4"] = self.bn1(self.conv_head(x))
        return self.classify(outputs, key)
