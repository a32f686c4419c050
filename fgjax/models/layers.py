"""Layers with torchvision's constants, written in the form that XLA runs fast.

A 1×1 convolution is a matrix product and 3×3 max pooling a maximum of nine shifted slices: the
values and gradients are the same, the gradients on CPU are 3 to 10 times faster, and on GPUs
neither costs anything.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

# He initialisation over fan-out, as torchvision's ResNet and VGG.
_kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nnx.Module):
    """2-D convolution on NHWC with torchvision's symmetric padding.

    Kernel [height, width, in, out]; parameters stay float32, the product runs in `dtype`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        use_bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if padding is None:
            padding = (size[0] // 2, size[1] // 2)
        self.padding = (padding, padding) if isinstance(padding, int) else padding
        self.stride = stride
        self.dtype = dtype
        self.kernel = nnx.Param(_kaiming_fan_out(rngs.params(), (*size, in_features, out_features)))
        self.bias = nnx.data(nnx.Param(jnp.zeros(out_features)) if use_bias else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        x = x.astype(self.dtype)
        if kernel.shape[:2] == (1, 1) and self.padding == (0, 0):
            if self.stride > 1:
                x = x[:, :: self.stride, :: self.stride]
            x = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        else:
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                [(p, p) for p in self.padding],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.bias is not None:
            x = x + self.bias[...].astype(self.dtype)
        return x


class BatchNorm(nnx.Module):
    """Batch normalisation over (batch, height, width) with PyTorch's running statistics.

    Momentum 0.1 (new = 0.9 old + 0.1 batch); the running variance takes the unbiased estimate,
    n / (n − 1), as PyTorch does, while the batch itself is normalised by the biased one.
    Statistics are float32 whatever the input. `use_running_average` is what `model.eval()` sets.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5, momentum: float = 0.1):
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            wide = x.astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(wide, axis=axes)
            var = jnp.maximum(jnp.mean(jnp.square(wide), axis=axes) - jnp.square(mean), 0.0)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
            self.var[...] += self.momentum * (jax.lax.stop_gradient(unbiased) - self.var[...])
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * scale
        return x * scale.astype(x.dtype) + shift.astype(x.dtype)


class Linear(nnx.Module):
    """Fully connected layer, float32 output; PyTorch's initialisation U(±1/√in)."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        bound = in_features**-0.5
        uniform = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.kernel = nnx.Param(uniform(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(uniform(rngs.params(), (out_features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.astype(jnp.float32) @ self.kernel[...] + self.bias[...]


def max_pool(x: jax.Array, size: int, *, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over size × size windows of NHWC; padding counts as −∞, as in PyTorch."""
    if padding:
        edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        x = jnp.pad(x, edges, constant_values=-jnp.inf)
    height = (x.shape[1] - size) // stride + 1
    width = (x.shape[2] - size) // stride + 1
    slices = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(jnp.maximum, slices)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width in float32: [B, H, W, C] to [B, C]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def sequential(layers: Sequence[nnx.Module], x: jax.Array) -> jax.Array:
    """Apply layers one after another."""
    return functools.reduce(lambda value, layer: layer(value), layers, x)
