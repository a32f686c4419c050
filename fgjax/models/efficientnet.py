"""EfficientNet-B0 (Tan & Le 2019), and Lite0, 1 and 2 (TensorFlow's TPU models), their constants.

Called on NHWC pixels in [0, 255], a network returns
`{"stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"}`: the maps of stride 2, 4, 8,
16 and 32, the last one after the head's convolution to 1280 channels. Both are rows of mobile
inverted bottlenecks (the paper's Table 1). B0's have squeeze-and-excitation and swish; Lite has
neither, ReLU6 instead, and stem and head of one width in all sizes. Submodules have the names of
Lite's published PyTorch weights: `_blocks.3._bn1` is `blocks[3].bn1`.

Padding and batch norm's constants are TensorFlow's, as in the authors' weights, which timm has as
`tf_efficientnet_b0`. Its `efficientnet_b0` was trained with PyTorch's: another network.

The sizes that the weights were trained at are 224 px, for Lite1 and 2 240 and 260 px. Drop-connect
belonged to that training and is left out: a training step drops nothing but what `dropout` says.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

STEM, HEAD = 32, 1280
EPSILON, MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99 is PyTorch's 0.01
SQUEEZED = 0.25  # hidden units of an excitation, as a share of its block's input


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
ARCHITECTURES = {"efficientnet_b0": (1.0, 1.0)}
LITE_ARCHITECTURES = {
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


class Excitation(nnx.Module):
    """x · sigmoid(W₂ swish(W₁ mean(x))): a factor for each channel (Hu et al. 2018).

    The factors are computed in float32 at least.
    """

    def __init__(self, features: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        wide = dtype if dtype == jnp.float64 else jnp.float32
        shared = {"dtype": wide, "initializer": layers.kaiming_fan_in, "rngs": rngs}
        self.reduce = layers.Dense(features, hidden, **shared)
        self.expand = layers.Dense(hidden, features, **shared)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = layers.global_average_pool(x)
        factors = jax.nn.sigmoid(self.expand(jax.nn.silu(self.reduce(mean))))
        return x * factors[:, None, None].astype(x.dtype)


class Block(nnx.Module):
    """1×1 to more channels, depthwise, 1×1 to few, each with batch norm; a shortcut if it fits.

    With swish, channels are weighted before the last 1×1.
    """

    def __init__(
        self, in_features: int, group: Group, *, stride: int, activation: str, dtype, rngs: nnx.Rngs
    ):
        inner = in_features * group.expansion
        self.expands = group.expansion > 1
        self.excites = activation == "swish"
        self.shortcut = stride == 1 and in_features == group.width
        options = {"dtype": dtype, "rngs": rngs}
        if self.expands:
            self.expand_conv = layers.Conv(in_features, inner, 1, **options)
            self.bn0 = _norm(inner, activation=activation)
        self.depthwise_conv = layers.DepthwiseConv(inner, group.kernel, stride=stride, **options)
        self.bn1 = _norm(inner, activation=activation)
        if self.excites:
            self.excitation = Excitation(inner, int(in_features * SQUEEZED), **options)
        self.project_conv = layers.Conv(inner, group.width, 1, **options)
        self.bn2 = _norm(group.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.bn0(self.expand_conv(x)) if self.expands else x
        inner = self.bn1(self.depthwise_conv(inner))
        if self.excites:
            inner = self.excitation(inner)
        found = self.bn2(self.project_conv(inner))
        return found + x if self.shortcut else found


class EfficientNet(Backbone):
    """A network as its factors say; see the module's docstring for the output."""

    activation: ClassVar[str] = "swish"

    def __init__(
        self, width_factor: float, depth_factor: float, options: Options, *, rngs: nnx.Rngs
    ):
        super().__init__(HEAD, options, rngs=rngs)
        shared = {"dtype": options.dtype, "rngs": rngs}
        self.conv_stem = layers.Conv(3, STEM, 3, stride=2, same=True, **shared)
        self.bn0 = _norm(STEM, activation=self.activation)
        blocks, ends, features = [], {}, STEM
        for position, group in enumerate(scaled(width_factor, depth_factor)):
            strided = options.last_stride if position == LAST_STRIDED else group.stride
            for repeat in range(group.repeats):
                stride = strided if repeat == 0 else 1
                block = Block(features, group, stride=stride, activation=self.activation, **shared)
                blocks.append(block)
                features = group.width
            if group.stage:
                ends[len(blocks) - 1] = group.stage
        self.blocks, self.stage_ends = nnx.List(blocks), tuple(ends.items())
        self.conv_head = layers.Conv(features, HEAD, 1, **shared)
        self.bn1 = _norm(HEAD, activation=self.activation)

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
            x = layers.sequential([block], x, remat=self.remat)
            if position in ends:
                outputs[ends[position]] = x
        outputs["stage4"] = self.bn1(self.conv_head(x))
        return self.classify(outputs, key)


class EfficientNetLite(EfficientNet):
    """A Lite network: ReLU6, no excitation, and pixels from −1 to 1."""

    activation = "relu6"
    pixels = ((127.0,) * 3, (128.0,) * 3)
