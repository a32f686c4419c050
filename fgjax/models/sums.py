"""Sums over batch, height and width, in a form that XLA runs fast on a CPU.

XLA's reductions there are loops over single numbers, unless its library of kernels takes them over,
which computes wrong numbers in some programs. Here a few rows are added by plain additions, which
become vector instructions, and what is left is a product with ones. On GPUs a sum is a sum.
"""

import contextlib
import contextvars
import functools
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp

UNROLLED = 8
_written_for: contextvars.ContextVar[str] = contextvars.ContextVar("platform", default="")


def by_hand() -> bool:
    """Whether the forms for CPUs are used."""
    return _platform() == "cpu"


def on_gpu() -> bool:
    """Whether programs are for a GPU."""
    return _platform() in ("gpu", "cuda", "rocm")


def _platform() -> str:
    return _written_for.get() or jax.default_backend()


@contextlib.contextmanager
def written_for(platform: str) -> Iterator[None]:
    """Programs are traced for that platform, and not for the one that is here."""
    token = _written_for.set(platform)
    try:
        yield
    finally:
        _written_for.reset(token)


def _blocks(*arrays):
    """Rows in as many blocks as are added at once: lists of slices, and what does not divide."""
    length = arrays[0].shape[1]
    count = min(UNROLLED, length)
    size = length // count
    yield [[a[:, i * size : (i + 1) * size] for a in arrays] for i in range(count)]
    if length > size * count:
        yield [[a[:, i : i + 1] for a in arrays] for i in range(size * count, length)]


def total(form, *arrays: jax.Array) -> jax.Array:
    """Sum over all axes but the last of `form(*arrays)`, entries [B, H, W, C] to one; [C]."""
    if not by_hand():
        return jnp.sum(form(*arrays), axis=tuple(range(arrays[0].ndim - 1)))
    found = []
    for blocks in _blocks(*arrays):
        few = functools.reduce(operator.add, [form(*block) for block in blocks])
        few = few.reshape(-1, few.shape[-1])
        found.append(jnp.ones((1, len(few)), few.dtype) @ few)
    return functools.reduce(operator.add, found)[0]


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Sum of x · y, [B, H, W, C] each, over all axes but the last: [C]."""
    return total(lambda x, y: widened(x) * widened(y), x, y)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Sum of a map [B, H, W, C] and a bias [C] of its dtype, whose gradient is a `total`."""
    return x + bias


def _add_bias_backward(_, gradient):
    return gradient, total(widened, gradient).astype(gradient.dtype)


add_bias.defvjp(lambda x, bias: (x + bias, None), _add_bias_backward)


def widened(x: jax.Array) -> jax.Array:
    """At least float32: statistics and pooled features need it, whatever the convolutions take."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
