"""ConvNeXt-T, -S and -B (Liu et al. 2022, "A ConvNet for the 2020s") with the paper's constants.

Called on NHWC pixels in [0, 255], a network returns
`{"stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"}`: maps of stride 4, 4, 8, 16
and 32.

The paper's classifier takes LN(m), m the mean of the last map x over its places. LN is linear once
its statistics are given, so `stage4` is x normalised by those of m,

  stage4 = γ (x − μ) / √(σ² + ε) + β   with μ and σ² over the channels of m:

its mean is the paper's feature, and a class activation map adds up to the logit. Stochastic depth
belonged to the weights' training and is left out.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

PATCH, KERNEL, EXPANSION = 4, 7, 4
SCALE = 1e-6  # that a branch begins with


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one ConvNeXt from another."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]


ARCHITECTURES = {
    "convnext_tiny": Architecture((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": Architecture((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": Architecture((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class Block(nnx.Module):
    """Depthwise 7×7, layer norm, 1×1 to four times the width, GELU, 1×1 back (Fig. 4)."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        shared = {"dtype": dtype, "rngs": rngs, "initializer": layers.truncated_normal}
        self.depthwise = layers.DepthwiseConv(width, KERNEL, use_bias=True, **shared)
        self.norm = layers.LayerNorm(width)
        self.expand = layers.Dense(width, EXPANSION * width, **shared)
        self.project = layers.Dense(EXPANSION * width, width, **shared)
        self.scale = layers.LayerScale(width, start=SCALE)

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = layers.gelu(self.expand(self.norm(self.depthwise(x))))
        return x + self.scale(self.project(inner))


class Downsampling(nnx.Module):
    """Layer norm, and a 2×2 convolution between two stages (section 2.6)."""

    def __init__(self, in_features: int, width: int, *, stride: int, dtype, rngs: nnx.Rngs):
        shared = {"dtype": dtype, "rngs": rngs, "initializer": layers.truncated_normal}
        self.norm = layers.LayerNorm(in_features)
        self.conv = (
            layers.Patches(in_features, width, 2, **shared)
            if stride == 2
            else layers.Conv(in_features, width, 2, same=True, use_bias=True, **shared)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(self.norm(x))


class ConvNeXt(Backbone):
    """A ConvNeXt as its `Architecture` says; see the module's docstring for the output."""

    def __init__(self, architecture: Architecture, options: Options, *, rngs: nnx.Rngs):
        depths, widths = architecture.depths, architecture.widths
        super().__init__(widths[-1], options, rngs=rngs)
        self.smallest = 16 * options.last_stride  # patches round down
        shared = {"dtype": options.dtype, "rngs": rngs}
        self.stem = layers.Patches(3, widths[0], PATCH, **shared)
        self.stem_norm = layers.LayerNorm(widths[0])
        strides = (2,) * (len(depths) - 2) + (options.last_stride,)
        self.downsamplings = nnx.List(
            [Downsampling(before, width, stride=stride, **shared)
             for before, width, stride in zip(widths, widths[1:], strides, strict=False)]
        )  # fmt: skip
        self.stages = nnx.List(
            [nnx.List([Block(width, **shared) for _ in range(depth)])
             for depth, width in zip(depths, widths, strict=True)]
        )  # fmt: skip
        self.norm = layers.LayerNorm(widths[-1])

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The blocks of a stage and what halves the map before them; the last norm at the end."""
        maps = {"stem": ("stem", "stem_norm"), "stage1": ("stages.0",)}
        for index in range(1, len(self.stages)):
            maps[f"stage{index + 1}"] = (f"downsamplings.{index - 1}", f"stages.{index}")
        maps[f"stage{len(self.stages)}"] += ("norm",)
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x = self.stem_norm(self.stem(self.normalize(images)))
        outputs = {"stem": x}
        for index, blocks in enumerate(self.stages):
            if index:
                x = self.downsamplings[index - 1](x)
            x = layers.sequential(blocks, x, remat=self.remat)
            outputs[f"stage{index + 1}"] = x
        mean = jnp.mean(layers.widened(x), axis=(1, 2), keepdims=True)
        outputs[f"stage{len(self.stages)}"] = self.norm(x, of=mean)
        return self.classify(outputs, key)
