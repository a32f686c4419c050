"""ResNet-18, -34, -50, -101 (He et al. 2016) with torchvision's constants, and a small one.

Called on NHWC pixels in [0, 255], a network returns its feature maps by name, shallow to deep, the
pooled feature and the logits:
`{"stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"}`.
"""

import dataclasses

import jax
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_features: int, width: int, *, stride: int, dtype, rngs: nnx.Rngs):
        conv = lambda *a, **k: layers.Conv(*a, **k, dtype=dtype, rngs=rngs)  # noqa: E731
        self.conv1 = conv(in_features, width, 3, stride=stride)
        self.bn1 = layers.BatchNorm(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = layers.BatchNorm(width)
        self.downsample = nnx.List([])
        if stride != 1 or in_features != width:
            self.downsample.append(conv(in_features, width, 1, stride=stride))
            self.downsample.append(layers.BatchNorm(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = layers.sequential(self.downsample, x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        return jax.nn.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1×1, 3×3 (strided, as torchvision's v1.5), 1×1 with four times the width."""

    expansion = 4

    def __init__(self, in_features: int, width: int, *, stride: int, dtype, rngs: nnx.Rngs):
        conv = lambda *a, **k: layers.Conv(*a, **k, dtype=dtype, rngs=rngs)  # noqa: E731
        out = width * self.expansion
        self.conv1, self.bn1 = conv(in_features, width, 1), layers.BatchNorm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride=stride), layers.BatchNorm(width)
        self.conv3, self.bn3 = conv(width, out, 1), layers.BatchNorm(out)
        self.downsample = nnx.List([])
        if stride != 1 or in_features != out:
            self.downsample.append(conv(in_features, out, 1, stride=stride))
            self.downsample.append(layers.BatchNorm(out))

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = layers.sequential(self.downsample, x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        return jax.nn.relu(self.bn3(self.conv3(x)) + shortcut)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one ResNet from another."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    stem_width: int = 64
    stem_size: int = 7
    stem_pool: bool = True


ARCHITECTURES = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
    # For the demo: three stages and stride 8 in all, so that parts of a small image stay apart.
    "resnet_small": Architecture(
        BasicBlock, (1, 2, 2), (24, 48, 96), (2, 2, 1), stem_width=16, stem_size=3, stem_pool=False
    ),
}


class ResNet(Backbone):
    """A residual network as its `Architecture` says; see the module's docstring for the output."""

    def __init__(self, architecture: Architecture, options: Options, *, rngs: nnx.Rngs):
        block, stem = architecture.block, architecture.stem_width
        super().__init__(architecture.widths[-1] * block.expansion, options, rngs=rngs)
        dtype = options.dtype
        self.stem_pool = architecture.stem_pool
        self.conv1 = layers.Conv(3, stem, architecture.stem_size, stride=2, dtype=dtype, rngs=rngs)
        self.bn1 = layers.BatchNorm(stem)
        stages, features = [], stem
        last = min(architecture.strides[-1], options.last_stride)
        strides = (*architecture.strides[:-1], last)
        for depth, width, stride in zip(
            architecture.depths, architecture.widths, strides, strict=True
        ):
            blocks = []
            for position in range(depth):
                first = stride if position == 0 else 1
                blocks.append(block(features, width, stride=first, dtype=dtype, rngs=rngs))
                features = width * block.expansion
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The stem's convolution and norm; the blocks of each stage."""
        stages = {f"stage{index + 1}": (f"stages.{index}",) for index in range(len(self.stages))}
        return {"stem": ("conv1", "bn1"), **stages}

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x = jax.nn.relu(self.bn1(self.conv1(self.normalize(images))))
        if self.stem_pool:
            x = layers.max_pool(x, 3, stride=2, padding=1)
        outputs = {"stem": x}
        for index, blocks in enumerate(self.stages):
            x = layers.sequential(blocks, x, remat=self.remat)
            outputs[f"stage{index + 1}"] = x
        return self.classify(outputs, key)
