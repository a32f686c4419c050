"""Batch normalisation in training with its closed-form gradient.

Autodiff keeps more and passes over the maps more often: here the gradient needs the input alone,
two sums over it, and one pass. The activation is part of both, so that its output is never kept.
"""

import functools

import jax
import jax.numpy as jnp

from fgjax.models import sums

ACTIVATIONS = ("none", "relu6", "swish")


def activate(x: jax.Array, activation: str) -> jax.Array:
    """One of `ACTIVATIONS`: the same again, the smaller of ReLU and 6, or swish, x · sigmoid(x)."""
    if activation == "swish":
        return jax.nn.silu(x)
    return jnp.minimum(jax.nn.relu(x), 6) if activation == "relu6" else x


def affine(x: jax.Array, mean, var, scale, bias, epsilon: float, activation: str) -> jax.Array:
    """Normalised by given statistics, scaled, shifted, activated; statistics in float32."""
    factor = scale * jax.lax.rsqrt(var + epsilon)
    shift = bias - mean * factor
    return activate(x * factor.astype(x.dtype) + shift.astype(x.dtype), activation)


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, activation: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalised by the batch's own statistics.

    y = activation(γ (x − μ) / √(σ² + ε) + β), with μ and the biased σ² over all axes but the last.
    No gradient goes through the statistics that are returned.

    Args:
      x: [B, H, W, C].
      scale: γ [C].
      bias: β [C].
      epsilon: ε.
      activation: one of `ACTIVATIONS`.

    Returns:
      y, of x's shape and dtype; μ and σ², [C], at least float32.
    """
    return _batch_norm(x, scale, bias, epsilon, activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(x, scale, bias, epsilon: float, activation: str):
    return _forward(x, scale, bias, epsilon, activation)[0]


def _forward(x, scale, bias, epsilon: float, activation: str):
    count = x.size // x.shape[-1]
    # From any entry on: where the mean is large beside the deviation, squares would cancel.
    origin = jax.lax.stop_gradient(sums.widened(x[:1, :1, :1]))
    offset = sums.total(lambda x: sums.widened(x) - origin, x) / count
    square = sums.total(lambda x: jnp.square(sums.widened(x) - origin), x) / count
    mean = origin[0, 0, 0] + offset
    var = jnp.maximum(square - offset**2, 0)
    y = affine(x, mean, var, scale, bias, epsilon, activation)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(epsilon: float, activation: str, kept, gradients):
    x, mean, var, scale, bias = kept
    gradient, _, _ = gradients
    count = x.size // x.shape[-1]
    deviation = jax.lax.rsqrt(var + epsilon)
    factor = scale * deviation
    shift = bias - mean * factor

    def inner(x, gradient):
        """The gradient before the activation."""
        wide = sums.widened(gradient)
        if activation == "none":
            return wide
        y = x * factor.astype(x.dtype) + shift.astype(x.dtype)
        if activation == "swish":
            share = jax.nn.sigmoid(sums.widened(y))
            return wide * share * (1 + sums.widened(y) * (1 - share))
        return jnp.where((y > 0) & (y < 6), wide, 0)  # none at the bends, as in PyTorch

    to_bias = sums.total(inner, x, gradient)
    to_scale = sums.total(
        lambda x, g: inner(x, g) * ((sums.widened(x) - mean) * deviation), x, gradient
    )
    spread = (sums.widened(x) - mean) * deviation * (to_scale / count)
    to_x = factor * (inner(x, gradient) - to_bias / count - spread)
    return to_x.astype(x.dtype), to_scale, to_bias


_batch_norm.defvjp(_forward, _backward)
