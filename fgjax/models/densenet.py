"""DenseNet-161 (Huang et al. 2017) with torchvision's constants.

Called on NHWC pixels in [0, 255], it returns `{"stem", "stage1" … "stage4", "pooled", "logits"}`:
the output of each dense block, the last one after the final norm and ReLU.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options

# growth rate, layers of each block, width of the stem
ARCHITECTURES = {"densenet161": (48, (6, 12, 36, 24), 96)}
BOTTLENECK = 4  # a layer's 1×1 convolution has this many times the growth rate


class DenseLayer(nnx.Module):
    """Norm, ReLU, 1×1, norm, ReLU, 3×3; its output is appended to its input."""

    def __init__(self, in_features: int, growth: int, *, dtype, rngs: nnx.Rngs):
        options = {"dtype": dtype, "initializer": layers.kaiming_fan_in, "rngs": rngs}
        inner = BOTTLENECK * growth
        self.norm1 = layers.BatchNorm(in_features)
        self.conv1 = layers.Conv(in_features, inner, 1, **options)
        self.norm2 = layers.BatchNorm(inner)
        self.conv2 = layers.Conv(inner, growth, 3, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        new = self.conv1(jax.nn.relu(self.norm1(x)))
        new = self.conv2(jax.nn.relu(self.norm2(new)))
        return jnp.concatenate([x.astype(new.dtype), new], axis=-1)


class Transition(nnx.Module):
    """Norm, ReLU, 1×1 to half the width, 2×2 averages (none with stride 1)."""

    def __init__(self, in_features: int, *, stride: int, dtype, rngs: nnx.Rngs):
        self.stride = stride
        self.norm = layers.BatchNorm(in_features)
        self.conv = layers.Conv(
            in_features, in_features // 2, 1, dtype=dtype, rngs=rngs,
            initializer=layers.kaiming_fan_in,
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(jax.nn.relu(self.norm(x)))
        return layers.average_pool(x, 2, stride=2) if self.stride == 2 else x


class DenseNet(Backbone):
    """A densely connected network; see the module's docstring for the output."""

    def __init__(
        self,
        growth: int,
        depths: tuple[int, ...],
        stem: int,
        options: Options,
        *,
        rngs: nnx.Rngs,
    ):
        features, widths = stem, []
        for depth in depths:
            widths.append((features, features + depth * growth))
            features = widths[-1][1] // 2
        super().__init__(widths[-1][1], options, rngs=rngs)
        self.smallest = 29 if options.last_stride == 2 else 13  # transitions round down
        dtype, initializer = options.dtype, layers.kaiming_fan_in
        self.conv0 = layers.Conv(
            3, stem, 7, stride=2, dtype=dtype, initializer=initializer, rngs=rngs
        )
        self.norm0 = layers.BatchNorm(stem)
        blocks, transitions = [], []
        for number, (first, last) in enumerate(widths, 1):
            inputs = range(first, last, growth)
            blocks.append(nnx.List([DenseLayer(n, growth, dtype=dtype, rngs=rngs) for n in inputs]))
            if number < len(depths):
                stride = options.last_stride if number == len(depths) - 1 else 2
                transitions.append(Transition(last, stride=stride, dtype=dtype, rngs=rngs))
        self.blocks, self.transitions = nnx.List(blocks), nnx.List(transitions)
        self.norm5 = layers.BatchNorm(widths[-1][1])
        self.fc.bias[...] = jnp.zeros_like(self.fc.bias[...])

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """A dense block and the transition before it; the final norm belongs to the last map."""
        maps = {"stem": ("conv0", "norm0"), "stage1": ("blocks.0",)}
        for index in range(1, len(self.blocks)):
            maps[f"stage{index + 1}"] = (f"transitions.{index - 1}", f"blocks.{index}")
        maps[f"stage{len(self.blocks)}"] += ("norm5",)
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        x = jax.nn.relu(self.norm0(self.conv0(self.normalize(images))))
        x = layers.max_pool(x, 3, stride=2, padding=1)
        outputs = {"stem": x}
        for number, block in enumerate(self.blocks, 1):
            x = layers.sequential(block, x, remat=self.remat)
            outputs[f"stage{number}"] = x
            if number <= len(self.transitions):
                x = self.transitions[number - 1](x)
        outputs[f"stage{len(self.blocks)}"] = jax.nn.relu(self.norm5(x))
        return self.classify(outputs, key)
