"""Depthwise convolution: each channel with a kernel of its own; values of the plain operation.

What XLA does badly on a CPU, and what is done here instead (benchmarks/RESULTS.md has the times):

- a grouped convolution, computed number by number: here k² shifted products, vectors of channels;
- padding inside the loop of every tap, with a branch for each number: here in memory, once;
- strides, which skip through memory once for each tap: here the stride² phases lie in memory;
- the input's gradient: shifted products, too, phase by phase, over no zeros between;
- the kernel's gradient as k² reductions: here sums by additions (`sums.dot`), and on maps of up to
  `SMALL` entries one product of matrices over the batch for each channel, of which the pairs that
  meet under a tap are added.

On GPUs the same form, without the copies in memory: a sum of shifted products is one kernel there,
and programs with the library's convolution took XLA minutes to compile. On TPUs, where nobody
measured, it is the library's.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from fgjax.models import sums

Pair = tuple[int, int]
SMALL = 64  # entries of a map up to which all their products are taken


def same(size: int, kernel: int, stride: int) -> Pair:
    """TensorFlow's "same" padding of one axis, before and after: the odd one out goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def depthwise(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """2-D depthwise convolution of NHWC maps with TensorFlow's "same" padding.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, 1, C], of x's dtype.
      stride: of both axes.

    Returns:
      [B, ⌈H / stride⌉, ⌈W / stride⌉, C].
    """
    return (_shifted if sums.by_hand() or sums.on_gpu() else _plain)(x, kernel, stride)


def _plain(x, kernel, stride: int):
    padding = [same(n, k, stride) for n, k in zip(x.shape[1:3], kernel.shape)]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x, kernel, stride: int):
    return _forward(x, kernel, stride)[0]


def _forward(x, kernel, stride: int):
    phases = _phases(x, len(kernel), stride)
    shape = tuple(-(-n // stride) for n in x.shape[1:3])
    terms = [window * kernel[tap] for tap, window in _windows(phases, len(kernel), stride, shape)]
    return functools.reduce(operator.add, terms), (x, phases, kernel)


def _phases(x, size: int, stride: int) -> dict[Pair, jax.Array]:
    """Rows i, i + s, … and columns j, j + s, … of the padded input, each in memory."""
    edges = []
    for length in x.shape[1:3]:
        before = same(length, size, stride)[0]
        reached = (-(-length // stride) + (size - 1) // stride) * stride
        edges.append((before, reached - before - length, 0))  # less than 0 where nothing reaches
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    phases = {(i, j): x[:, i::stride, j::stride] for i, j in _pairs(stride)}
    return _in_memory(phases)


def _in_memory(arrays):
    """A copy that XLA does not fold into the loops that read it."""
    return jax.lax.optimization_barrier(arrays) if sums.by_hand() else arrays


def _windows(phases, size: int, stride: int, shape: Pair):
    """Entry (i, j) of every window, for all of them."""
    for i, j in _pairs(size):
        y, x = i // stride, j // stride
        phase = phases[i % stride, j % stride]
        yield (i, j), phase[:, y : y + shape[0], x : x + shape[1]]


def _pairs(count: int):
    return itertools.product(range(count), repeat=2)


def _backward(stride: int, kept, gradient):
    x, phases, kernel = kept
    size, shape = len(kernel), gradient.shape[1:3]
    rows_of, columns_of = (
        _Met(n, m, size, stride) for n, m in zip(x.shape[1:3], shape, strict=True)
    )
    edges = [(0, 0), rows_of.edges, columns_of.edges, (0, 0)]
    padded = _in_memory(jnp.pad(gradient, edges))
    if x.shape[1] * x.shape[2] <= SMALL:
        to_kernel = _by_products(x, gradient, size, stride)
    else:
        top, left = rows_of.edges[0], columns_of.edges[0]
        inner = padded[:, top : top + shape[0], left : left + shape[1]]
        taps = _windows(phases, size, stride, shape)
        to_kernel = jnp.stack([sums.dot(window, inner) for _, window in taps])
    to_x = _to_input(padded, kernel, stride, rows_of, columns_of)
    to_x = to_x[:, : x.shape[1], : x.shape[2]]
    return to_x, to_kernel.reshape(kernel.shape).astype(kernel.dtype)


class _Met:
    """On one axis: where entries offset, offset + s, … of the input meet a tap.

    Attributes:
      starts: (offset, tap) to the first entry of the padded gradient; the next ones follow.
      edges: zeros before and after the gradient, as far as the taps reach.
      length: entries of each phase of the input.
    """

    def __init__(self, size: int, out: int, kernel: int, stride: int):
        before = same(size, kernel, stride)[0]
        self.length = -(-size // stride)
        away = {(i, tap): i + before - tap for i in range(stride) for tap in range(kernel)}
        first = {key: n // stride for key, n in away.items() if n % stride == 0}
        low = max(0, -min(first.values()))
        self.edges = (low, max(0, max(first.values()) + self.length - out))
        self.starts = {key: low + n for key, n in first.items()}


def _to_input(padded, kernel, stride: int, rows: _Met, columns: _Met):
    """The input's gradient, phase by phase."""
    wide = (len(padded), rows.length, columns.length, padded.shape[-1])

    def phase(i: int, j: int):
        total = jnp.zeros((), padded.dtype)
        for tap in _pairs(len(kernel)):
            y, x = rows.starts.get((i, tap[0])), columns.starts.get((j, tap[1]))
            if y is not None and x is not None:
                here = padded[:, y : y + rows.length, x : x + columns.length]
                total = total + here * kernel[tap]
        return jnp.broadcast_to(total, wide)

    if stride == 1:
        return phase(0, 0)
    parts = [[phase(i, j) for j in range(stride)] for i in range(stride)]
    joined = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=2)
    return joined.reshape(len(padded), rows.length * stride, columns.length * stride, wide[-1])


def _by_products(x, gradient, size: int, stride: int):
    """The kernel's gradient from every entry's product with every other, summed over the batch."""
    flat = [a.reshape(len(a), -1, a.shape[-1]) for a in (x, gradient)]
    products = jnp.einsum("bpc,bqc->cpq", *flat)
    meets = _meets(x.shape[1:3], gradient.shape[1:3], size, stride).astype(x.dtype)
    return (products.reshape(len(products), -1) @ meets).T


def _meets(shape: Pair, out: Pair, size: int, stride: int) -> np.ndarray:
    """[H·W·h·w, k²]: 1 where an input's entry meets an output's under a tap."""
    one = []
    for length, short in zip(shape, out):
        before = same(length, size, stride)[0]
        n, m, tap = np.ogrid[:length, :short, :size]
        one.append(n + before - stride * m == tap)
    return np.einsum("nyi,mxj->nmyxij", *one).reshape(-1, size * size)


_shifted.defvjp(_forward, _backward)
