"""Vision transformers S/14 and B/14 of DINOv2 (Oquab et al. 2023), plain and with four registers.

The transformer is Dosovitskiy et al. 2021's, registers are Darcet et al. 2024's: tokens without a
place, which take what the network would otherwise write over patches of the background.

Called on NHWC pixels in [0, 255], a network returns
`{"stem", "stage1", "stage2", "stage3", "stage4", "pooled", "logits"}`. Maps are the patches'
tokens, [B, H / 14, W / 14, D]: `stem` as they are embedded, the stages after a quarter of the
blocks each, the last one after the final layer norm. All have the same size, so `last_stride`
changes nothing here: 1/14 of the image is finer than the 1/16 that 1 leaves in the other families.
A pyramid on the last map halves it, as anywhere.

`pooled` is the class token before the pooled last map, as in DINOv2's linear evaluation: [B, 2D]
with average pooling. The classifier's last D rows belong to the average, so a class activation map
is the patches' share of the logit.

Images may be of any size that 14 divides. The weights were trained at 518 px, 37 × 37 patches;
position embeddings of other sizes are interpolated as transformers does it (`resampling`).
Stochastic depth belonged to the weights' training and is left out.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

PATCH, GRID = 14, 37  # pixels of a patch; patches along a side of the images of the training
EXPANSION, MAPS = 4, 4
SCALE = 1e-5  # that a branch begins with


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one network from another."""

    width: int
    heads: int
    registers: int = 0
    depth: int = 12


# By the names of DINOv2's repository.
ARCHITECTURES = {
    "dinov2_vits14": Architecture(384, 6),
    "dinov2_vitb14": Architecture(768, 12),
    "dinov2_vits14_reg": Architecture(384, 6, registers=4),
    "dinov2_vitb14_reg": Architecture(768, 12, registers=4),
}


class Embeddings(nnx.Module):
    """Patches as tokens with a place, the class token, and registers if any."""

    def __init__(self, width: int, registers: int, *, dtype, rngs: nnx.Rngs):
        draw = lambda *shape: layers.truncated_normal(rngs.params(), shape)  # noqa: E731
        self.projection = layers.Patches(3, width, PATCH, dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(draw(1, 1, width))
        self.register_tokens = nnx.data(nnx.Param(draw(1, registers, width)) if registers else None)
        self.position_embeddings = nnx.Param(draw(1, 1 + GRID**2, width))  # the class token's first

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The other tokens [B, 1 + R, D] and the patches' [B, h, w, D] of scaled pixels."""
        patches = self.projection(images)
        own = self.cls_token[...] + self.position_embeddings[...][:, :1]
        if self.register_tokens is not None:
            own = jnp.concatenate([own, self.register_tokens[...]], axis=1)
        own = jnp.broadcast_to(own.astype(patches.dtype), (patches.shape[0], *own.shape[1:]))
        return own, patches + self.positions(*patches.shape[1:3]).astype(patches.dtype)

    def positions(self, rows: int, columns: int) -> jax.Array:
        """Position embeddings [rows, columns, D] of the patches of an image."""
        known = self.position_embeddings[...][0, 1:].reshape(GRID, GRID, -1)
        smooth = self.register_tokens is not None
        by_row, by_column = (
            jnp.asarray(resampling(GRID, size, smooth=smooth), known.dtype)
            for size in (rows, columns)
        )
        precise = jax.lax.Precision.HIGHEST
        return jnp.einsum("ir,jc,rcd->ijd", by_row, by_column, known, precision=precise)


@functools.cache
def resampling(size: int, wanted: int, *, smooth: bool) -> np.ndarray:
    """Weights [wanted, size] of a line's bicubic resampling, as PyTorch's `interpolate` has them.

    Sample i lies at c = (i + 1/2) size / wanted in the line [0, size], cell j around j + 1/2.

    Args:
      size: samples that there are.
      wanted: samples that are made.
      smooth: with PyTorch's `antialias`, as models with registers want it: Keys's kernel of
        a = −1/2, stretched where samples are lost, its weights divided by their sum. Otherwise
        a = −3/4 and never stretched, and places outside are the outermost sample's.
    """
    if size == wanted:
        return np.eye(size)
    ratio = size / wanted
    stretch = max(ratio, 1.0) if smooth else 1.0
    a = -0.5 if smooth else -0.75
    reach = int(np.ceil(2 * stretch)) + 1
    weights = np.zeros((wanted, size))
    for i in range(wanted):
        center = (i + 0.5) * ratio
        cells = np.arange(int(center) - reach, int(center) + reach + 1)
        shares = _keys((cells + 0.5 - center) / stretch, a)
        if smooth:
            inside = (cells >= 0) & (cells < size)
            cells, shares = cells[inside], shares[inside] / shares[inside].sum()
        np.add.at(weights[i], np.clip(cells, 0, size - 1), shares)
    return weights


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """Keys's cubic convolution kernel (1981), which ends at ±2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


class Attention(nnx.Module):
    """softmax(Q Kᵀ / √d) V in several heads of d = D / heads, and a linear layer."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        dense = lambda: layers.Dense(width, width, dtype=dtype, rngs=rngs)  # noqa: E731
        self.heads = heads
        self.query, self.key, self.value, self.out = dense(), dense(), dense(), dense()

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, N, D] to the same."""
        split = lambda y: y.reshape(*y.shape[:2], self.heads, -1)  # noqa: E731
        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = jnp.einsum("bnhd,bmhd->bhnm", query * query.shape[-1] ** -0.5, key)
        shares = jax.nn.softmax(layers.widened(scores), axis=-1).astype(value.dtype)
        return self.out(jnp.einsum("bhnm,bmhd->bnhd", shares, value).reshape(x.shape))


class MLP(nnx.Module):
    """To four times the width, GELU, and back."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = layers.Dense(width, EXPANSION * width, dtype=dtype, rngs=rngs)
        self.fc2 = layers.Dense(EXPANSION * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(layers.gelu(self.fc1(x)))


class Block(nnx.Module):
    """x + s₁ attention(LN x), and then x + s₂ MLP(LN x)."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.norm1, self.norm2 = layers.LayerNorm(width), layers.LayerNorm(width)
        self.attention = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.mlp = MLP(width, dtype=dtype, rngs=rngs)
        self.scale1 = layers.LayerScale(width, start=SCALE)
        self.scale2 = layers.LayerScale(width, start=SCALE)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to the same."""
        x = x + self.scale1(self.attention(self.norm1(x)))
        return x + self.scale2(self.mlp(self.norm2(x)))


class VisionTransformer(Backbone):
    """A transformer as its `Architecture` says; see the module's docstring for the output."""

    patch = PATCH

    def __init__(self, architecture: Architecture, options: Options, *, rngs: nnx.Rngs):
        width, heads = architecture.width, architecture.heads
        super().__init__(width, options, beside=width, rngs=rngs)
        shared = {"dtype": options.dtype, "rngs": rngs}
        self.embeddings = Embeddings(width, architecture.registers, **shared)
        self.blocks = nnx.List([Block(width, heads, **shared) for _ in range(architecture.depth)])
        self.norm = layers.LayerNorm(width)

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """The embeddings, a quarter of the blocks each, and the last norm at the end."""
        each = len(self.blocks) // MAPS
        maps: dict[str, tuple[str, ...]] = {"stem": ("embeddings",)}
        for number in range(MAPS):
            blocks = range(number * each, (number + 1) * each)
            maps[f"stage{number + 1}"] = tuple(f"blocks.{index}" for index in blocks)
        maps[f"stage{MAPS}"] += ("norm",)
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        own, patches = self.embeddings(self.normalize(images))
        outputs, shape, first = {"stem": patches}, patches.shape, own.shape[1]
        x = jnp.concatenate([own, patches.reshape(shape[0], -1, shape[-1])], axis=1)
        each = len(self.blocks) // MAPS
        for number in range(MAPS):
            blocks = self.blocks[number * each : (number + 1) * each]
            x = layers.sequential(blocks, x, remat=self.remat)
            if number == MAPS - 1:
                x = self.norm(x)
            outputs[f"stage{number + 1}"] = x[:, first:].reshape(shape)
        return self.classify(outputs, key, beside=x[:, 0])
