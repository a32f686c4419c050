"""Inception-v3 (Szegedy et al. 2016) with torchvision's constants, without the auxiliary head.

Called on NHWC pixels in [0, 255] of at least 75 px, it returns
`{"stem", "stage1", "stage2", "stage3", "pooled", "logits"}`: the maps of stride 8 (Mixed_5d), 16
(Mixed_6e) and 32 (Mixed_7c). Its own size is 299 px. Submodules have torchvision's names.

The published weights were trained on images scaled to [−1, 1] (torchvision's `transform_input`),
not by ImageNet's statistics as those of the other families.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

_truncated = nnx.initializers.truncated_normal(0.1, lower=-20, upper=20)  # ±2, as torchvision's


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with batch norm (ε 0.001) and ReLU; `reduces` takes the block's stride."""

    name: str
    width: int
    size: int | tuple[int, int]
    reduces: bool = False


@dataclasses.dataclass(frozen=True)
class Pool:
    """3×3 averages of stride 1, or maxima with the block's stride."""

    kind: str


@dataclasses.dataclass(frozen=True)
class Fork:
    """Convolutions side by side, their outputs concatenated."""

    convs: tuple[Conv, ...]


# A block is a tuple of branches, a branch a tuple of steps; the branches are concatenated.
_ROW, _COLUMN = (1, 7), (7, 1)


def _grid35(pool: int):
    return (
        (Conv("branch1x1", 64, 1),),
        (Conv("branch5x5_1", 48, 1), Conv("branch5x5_2", 64, 5)),
        (Conv("branch3x3dbl_1", 64, 1), Conv("branch3x3dbl_2", 96, 3),
         Conv("branch3x3dbl_3", 96, 3)),
        (Pool("average"), Conv("branch_pool", pool, 1)),
    )  # fmt: skip


def _grid17(width: int):
    return (
        (Conv("branch1x1", 192, 1),),
        (Conv("branch7x7_1", width, 1), Conv("branch7x7_2", width, _ROW),
         Conv("branch7x7_3", 192, _COLUMN)),
        (Conv("branch7x7dbl_1", width, 1), Conv("branch7x7dbl_2", width, _COLUMN),
         Conv("branch7x7dbl_3", width, _ROW), Conv("branch7x7dbl_4", width, _COLUMN),
         Conv("branch7x7dbl_5", 192, _ROW)),
        (Pool("average"), Conv("branch_pool", 192, 1)),
    )  # fmt: skip


def _split(name: str, suffixes: tuple[str, str]) -> Fork:
    return Fork((Conv(name + suffixes[0], 384, (1, 3)), Conv(name + suffixes[1], 384, (3, 1))))


_GRID8 = (
    (Conv("branch1x1", 320, 1),),
    (Conv("branch3x3_1", 384, 1), _split("branch3x3_2", ("a", "b"))),
    (Conv("branch3x3dbl_1", 448, 1), Conv("branch3x3dbl_2", 384, 3),
     _split("branch3x3dbl_3", ("a", "b"))),
    (Pool("average"), Conv("branch_pool", 192, 1)),
)  # fmt: skip
_TO_GRID17 = (
    (Conv("branch3x3", 384, 3, reduces=True),),
    (Conv("branch3x3dbl_1", 64, 1), Conv("branch3x3dbl_2", 96, 3),
     Conv("branch3x3dbl_3", 96, 3, reduces=True)),
    (Pool("max"),),
)  # fmt: skip
_TO_GRID8 = (
    (Conv("branch3x3_1", 192, 1), Conv("branch3x3_2", 320, 3, reduces=True)),
    (Conv("branch7x7x3_1", 192, 1), Conv("branch7x7x3_2", 192, _ROW),
     Conv("branch7x7x3_3", 192, _COLUMN), Conv("branch7x7x3_4", 192, 3, reduces=True)),
    (Pool("max"),),
)  # fmt: skip
_BLOCKS = {
    "Mixed_5b": _grid35(32), "Mixed_5c": _grid35(64), "Mixed_5d": _grid35(64),
    "Mixed_6a": _TO_GRID17, "Mixed_6b": _grid17(128), "Mixed_6c": _grid17(160),
    "Mixed_6d": _grid17(160), "Mixed_6e": _grid17(192),
    "Mixed_7a": _TO_GRID8, "Mixed_7b": _GRID8, "Mixed_7c": _GRID8,
}  # fmt: skip
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_STAGE_ENDS = {"Mixed_5d": "stage1", "Mixed_6e": "stage2", "Mixed_7c": "stage3"}


class BasicConv(nnx.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_features: int, width: int, size, **options):
        self.conv = layers.Conv(in_features, width, size, initializer=_truncated, **options)
        self.bn = layers.BatchNorm(width, epsilon=1e-3)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.bn(self.conv(x)))


class Mixed(nnx.Module):
    """A block as its branches say. With stride 2 nothing is padded, as in the paper."""

    def __init__(self, in_features: int, branches, *, stride: int, dtype, rngs: nnx.Rngs):
        self.branches, self.stride = branches, stride

        def add(conv: Conv, features: int) -> int:
            reducing = {"stride": stride, "padding": 0 if stride == 2 else 1}
            options = reducing if conv.reduces else {}
            module = BasicConv(features, conv.width, conv.size, dtype=dtype, rngs=rngs, **options)
            setattr(self, conv.name, module)
            return conv.width

        self.out_features = 0
        for branch in branches:
            features = in_features
            for step in branch:
                if isinstance(step, Conv):
                    features = add(step, features)
                elif isinstance(step, Fork):
                    features = sum([add(conv, features) for conv in step.convs])
            self.out_features += features

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self._branch(x, branch) for branch in self.branches], axis=-1)

    def _branch(self, x: jax.Array, branch) -> jax.Array:
        for step in branch:
            if isinstance(step, Conv):
                x = getattr(self, step.name)(x)
            elif isinstance(step, Fork):
                x = jnp.concatenate([getattr(self, c.name)(x) for c in step.convs], axis=-1)
            elif step.kind == "average":
                x = layers.average_pool(x, 3, stride=1, padding=1)
            else:
                padding = 0 if self.stride == 2 else 1
                x = layers.max_pool(x, 3, stride=self.stride, padding=padding)
        return x


class Inception(Backbone):
    """Inception-v3; see the module's docstring for the output."""

    pixels = ((127.5,) * 3, (127.5,) * 3)

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        super().__init__(2048, options, rngs=rngs)
        self.smallest = 75 if options.last_stride == 2 else 43  # its strides leave out the borders
        shared = {"dtype": options.dtype, "rngs": rngs}
        self.Conv2d_1a_3x3 = BasicConv(3, 32, 3, stride=2, padding=0, **shared)
        self.Conv2d_2a_3x3 = BasicConv(32, 32, 3, padding=0, **shared)
        self.Conv2d_2b_3x3 = BasicConv(32, 64, 3, **shared)
        self.Conv2d_3b_1x1 = BasicConv(64, 80, 1, **shared)
        self.Conv2d_4a_3x3 = BasicConv(80, 192, 3, padding=0, **shared)
        features = 192
        for name, branches in _BLOCKS.items():
            stride = options.last_stride if name == "Mixed_7a" else 2
            block = Mixed(features, branches, stride=stride, **shared)
            setattr(self, name, block)
            features = block.out_features

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The convolutions before the first block; the blocks up to the end of each stage."""
        maps: dict[str, tuple[str, ...]] = {"stem": _STEM}
        blocks: tuple[str, ...] = ()
        for name in _BLOCKS:
            blocks += (name,)
            if name in _STAGE_ENDS:
                maps[_STAGE_ENDS[name]], blocks = blocks, ()
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x = self.Conv2d_1a_3x3(self.normalize(images))
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(x))
        x = layers.max_pool(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        outputs = {"stem": layers.max_pool(x, 3, stride=2)}
        x = outputs["stem"]
        for name in _BLOCKS:
            x = layers.sequential([getattr(self, name)], x, remat=self.remat)
            if name in _STAGE_ENDS:
                outputs[_STAGE_ENDS[name]] = x
        return self.classify(outputs, key)
