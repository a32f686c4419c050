"""Layers with torchvision's constants; `convolution` has the form in which XLA runs them fast."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fgjax.models import convolution, depthwise, normalization, sums
from fgjax.models.convolution import convolve
from fgjax.models.sums import widened

# He initialisation over fan-out, as torchvision's ResNet and VGG, and over fan-in, as its DenseNet.
kaiming_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
# Of ConvNeXt and vision transformers: normal with a deviation of 0.02, cut off.
truncated_normal = nnx.initializers.truncated_normal(0.02)


class Conv(nnx.Module):
    """2-D convolution on NHWC with torchvision's symmetric padding, or `same` as TensorFlow's.

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
        same: bool = False,
        use_bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        initializer: nnx.Initializer = kaiming_fan_out,
        rngs: nnx.Rngs,
    ):
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if padding is None:
            padding = (0, 0) if same else (size[0] // 2, size[1] // 2)
        self.padding = (padding, padding) if isinstance(padding, int) else padding
        self.same = same
        self.stride = stride
        self.dtype = dtype
        self.kernel = nnx.Param(initializer(rngs.params(), (*size, in_features, out_features)))
        self.bias = nnx.data(nnx.Param(jnp.zeros(out_features)) if use_bias else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        x = x.astype(self.dtype)
        if self.same:
            edges = [depthwise.same(n, k, self.stride) for n, k in zip(x.shape[1:3], kernel.shape)]
            x = jnp.pad(x, [(0, 0), *edges, (0, 0)])
        x = convolve(x, kernel, stride=self.stride, padding=self.padding)
        if self.bias is not None:
            x = sums.add_bias(x, self.bias[...].astype(self.dtype))
        return x


class DepthwiseConv(nnx.Module):
    """2-D depthwise convolution on NHWC with TensorFlow's "same" padding.

    Kernel [k, k, 1, features]; parameters stay float32, the product runs in `dtype`.
    """

    def __init__(
        self,
        features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        # One input for each output: He's fan-in is k², and so is TensorFlow's fan-out.
        initializer: nnx.Initializer = kaiming_fan_in,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.dtype = dtype
        shape = (kernel_size, kernel_size, 1, features)
        self.kernel = nnx.Param(initializer(rngs.params(), shape))
        self.bias = nnx.data(nnx.Param(jnp.zeros(features)) if use_bias else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        x = depthwise.depthwise(x.astype(self.dtype), kernel, stride=self.stride)
        if self.bias is not None:
            x = sums.add_bias(x, self.bias[...].astype(self.dtype))
        return x


class Dense(nnx.Module):
    """Linear layer of the last axis, [..., in] to [..., out], in `dtype`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        initializer: nnx.Initializer = truncated_normal,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(initializer(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        # As rows: their gradients are products of matrices as they lie in memory.
        rows = x.astype(self.dtype).reshape(1, -1, x.shape[-1])
        found = sums.add_bias((rows[0] @ kernel)[None], bias)
        return found.reshape(*x.shape[:-1], found.shape[-1])


class Patches(nnx.Module):
    """Convolution whose stride is its size, on NHWC: each patch by itself, as one product.

    Kernel [k, k, in, out] and a bias; rows and columns that fill no patch are left out. Parameters
    stay float32, the product runs in `dtype`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        *,
        dtype: DTypeLike = jnp.float32,
        initializer: nnx.Initializer = truncated_normal,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(initializer(rngs.params(), (size, size, in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        size, _, depth, out = kernel.shape
        rows, columns = (length // size for length in x.shape[1:3])
        x = x[:, : rows * size, : columns * size].astype(self.dtype)
        x = x.reshape(-1, rows, size, columns, size, depth).transpose(0, 1, 3, 2, 4, 5)
        found = x.reshape(-1, size * size * depth) @ kernel.reshape(-1, out)
        return sums.add_bias(
            found.reshape(-1, rows, columns, out), self.bias[...].astype(self.dtype)
        )


class LayerNorm(nnx.Module):
    """γ (x − μ) / √(σ² + ε) + β over the last axis, with the biased σ²; statistics in float32."""

    def __init__(self, features: int, *, epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array, *, of: jax.Array | None = None) -> jax.Array:
        """Normalised by the statistics of its own last axis, or of that of `of`."""
        wide = widened(x)
        given = wide if of is None else widened(of)
        mean = jnp.mean(given, axis=-1, keepdims=True)
        var = jnp.mean(jnp.square(given - mean), axis=-1, keepdims=True)
        unit = (wide - mean) * jax.lax.rsqrt(var + self.epsilon)
        return (unit * self.scale[...] + self.bias[...]).astype(x.dtype)


class LayerScale(nnx.Module):
    """A factor for each channel of a branch, near nothing at first (Touvron et al. 2021)."""

    def __init__(self, features: int, *, start: float):
        self.gamma = nnx.Param(jnp.full(features, start))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over (batch, height, width) with PyTorch's running statistics.

    Momentum 0.1 (new = 0.9 old + 0.1 batch); the running variance takes the unbiased estimate,
    n / (n − 1), as PyTorch does, while the batch itself is normalised by the biased one.
    Statistics are float32 whatever the input. `use_running_average` is what `model.eval()` sets.
    `activation` follows: "none", "relu6", the minimum of ReLU and 6, or "swish".
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        activation: str = "none",
    ):
        self.epsilon = epsilon
        self.momentum = momentum
        self.activation = activation
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        form = (self.epsilon, self.activation)
        if self.use_running_average:
            parameters = (self.mean[...], self.var[...], self.scale[...], self.bias[...])
            return normalization.affine(x, *parameters, *form)
        y, mean, var = normalization.batch_norm(x, self.scale[...], self.bias[...], *form)
        count = x.size // x.shape[-1]
        unbiased = jax.lax.stop_gradient(var) * (count / max(count - 1, 1))
        mean = jax.lax.stop_gradient(mean)
        # `self.mean[...] = …` makes NNX ask a traced value for its sharding; outside of a gradient
        # JAX then searches the whole program for an error message that is thrown away, most of the
        # time in which CCFR and GHNS are passed through by shapes.
        self.mean.set_value(self.mean[...] + self.momentum * (mean - self.mean[...]))
        self.var.set_value(self.var[...] + self.momentum * (unbiased - self.var[...]))
        return y


class Linear(nnx.Module):
    """Fully connected layer, float32 output; PyTorch's initialisation U(±1/√in)."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        bound = in_features**-0.5
        uniform = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.kernel = nnx.Param(uniform(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(uniform(rngs.params(), (out_features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return widened(x) @ self.kernel[...] + self.bias[...]


class Dropout(nnx.Module):
    """Zeroes a share of the entries in training and scales the rest; needs a key then.

    `deterministic` is what `model.eval()` sets.
    """

    def __init__(self, rate: float):
        self.rate = rate
        self.deterministic = False

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        if not self.rate or self.deterministic:
            return x
        if key is None:
            raise ValueError("a network with dropout needs a key in training: model(x, key=key)")
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def max_pool(x: jax.Array, size: int, *, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over size × size windows of NHWC; padding counts as −∞, as in PyTorch."""
    return convolution.max_pool(x, size, stride, padding)


def average_pool(x: jax.Array, size: int, *, stride: int, padding: int = 0) -> jax.Array:
    """Mean over size × size windows of NHWC; padding counts as zeros, as in PyTorch."""
    if padding:
        x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    return functools.reduce(jnp.add, convolution.windows(x, (size, size), stride)) / size**2


def adaptive_average_pool(x: jax.Array, grid: int) -> jax.Array:
    """Means over a grid × grid partition of NHWC, with PyTorch's (overlapping) boundaries."""

    def means(length: int) -> np.ndarray:
        weights = np.zeros((grid, length), np.float32)
        for i in range(grid):
            low, high = i * length // grid, -(-(i + 1) * length // grid)
            weights[i, low:high] = 1 / (high - low)
        return weights

    rows, columns = (jnp.asarray(means(n), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width in float32: [B, H, W, C] to [B, C]."""
    return jnp.mean(widened(x), axis=(1, 2))


def gelu(x: jax.Array) -> jax.Array:
    """The activation x Φ(x), with the normal distribution itself and not tanh in its place."""
    return jax.nn.gelu(x, approximate=False)


def sequential(layers: Sequence[nnx.Module], x: jax.Array, *, remat: bool = False) -> jax.Array:
    """Apply layers one after another; with `remat` nothing inside a layer is kept.

    The backward pass then computes each layer a second time, from its input.
    """
    call = _again if remat else _call
    return functools.reduce(lambda value, layer: call(layer, value), layers, x)


def _call(layer: Any, x: jax.Array) -> jax.Array:
    return layer(x)


def _again(layer: Any, x: jax.Array) -> jax.Array:
    graph, state = nnx.split(layer)
    y, changed = _twice(graph, state, x)
    nnx.update(layer, changed)  # running statistics
    return y


def _once(graph: nnx.GraphDef, state: nnx.State, x: jax.Array):
    layer = nnx.merge(graph, state)
    return layer(x), nnx.state(layer)


_twice = jax.custom_vjp(_once, nondiff_argnums=(0,))


def _twice_forward(graph, state, x):
    return _twice(graph, state, x), (state, x)


def _twice_backward(graph, kept, gradients):
    state, x = kept
    # 0, but known only after the gradient: otherwise a CPU would begin all second passes at once,
    # and no memory would be saved; XLA's own barriers are gone when its schedule is made.
    known = jnp.ravel(gradients[0])[0].astype(jnp.float32)
    nothing = (known > jnp.finfo(jnp.float32).max).astype(x.dtype)
    _, back = jax.vjp(functools.partial(_once, graph), state, x + nothing)
    return back(gradients)


_twice.defvjp(_twice_forward, _twice_backward)
