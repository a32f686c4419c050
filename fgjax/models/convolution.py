"""Convolution and pooling whose gradients XLA runs fast; values are the plain ones up to rounding.

What XLA does badly on a CPU, found by profiling training steps, and what is done here instead:

- the gradients of a 1×1 convolution: here products of matrices, of maps as they lie in memory;
- a convolution whose kernel is larger than its map or its gradient's (3×3 on maps of 2×2 took 20 to
  60 times as long as a product): here a product with the columns of all windows;
- a 3×3 convolution of stride 1 with many channels, forwards and its gradients: here by Winograd's
  tiles (`winograd`), in less than half of the multiplications;
- the input's gradient of a strided convolution, computed as one over an input that is mostly zeros:
  here one small dense convolution for each of the stride² phases of the input;
- the gradient of max pooling: here the window's winner is remembered, and each phase of the input
  gathers from the few windows that it lies in.

On GPUs a 1×1 convolution is a product too, which XLA compiles faster, but with JAX's own gradient,
and a strided one is the plain operation: the products of its gradient end XLA there (jaxlib 0.11.2:
a failed check while it fuses them). Other convolutions are the plain operation. The third is one
kernel, not many.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

from fgjax.models import sums, winograd

Pair = tuple[int, int]
Sizes = tuple[int, ...]  # of both axes


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Pair) -> jax.Array:
    """2-D convolution of NHWC maps with an HWIO kernel and symmetric zero padding.

    Args:
      x: [B, H, W, I].
      kernel: [h, w, I, O], of x's dtype.
      stride: of both axes.
      padding: rows above and below, columns left and right.

    Returns:
      [B, (H + 2p − h) // stride + 1, …, O].
    """
    pointwise = kernel.shape[:2] == (1, 1) and padding == (0, 0)
    if not sums.by_hand():
        if pointwise and stride == 1 and sums.on_gpu():
            return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0])
        return _plain(x, kernel, stride, padding)
    if pointwise:
        if stride > 1:
            x = x[:, ::stride, ::stride]
        return _product(x, kernel[0, 0])
    if _reaches_beyond(x.shape[1:3], kernel.shape[:2], stride, padding):
        return _by_columns(x, kernel, stride, padding)
    return _convolve(x, kernel, stride, padding)


@jax.custom_vjp
def _product(x: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("bhwi,io->bhwo", x, weights)


def _product_forward(x, weights):
    return _product(x, weights), (x, weights)


def _product_backward(kept, gradient):
    x, weights = kept
    rows, outer = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return (outer @ weights.T).reshape(x.shape), rows.T @ outer


_product.defvjp(_product_forward, _product_backward)


def _reaches_beyond(sizes: Sizes, kernels: Sizes, stride: int, padding: Pair) -> bool:
    """Whether the kernel, or a phase of it, is larger than the map, or than its gradient's."""
    ends = [(n + 2 * p - k) // stride + 1 for n, p, k in zip(sizes, padding, kernels)]
    if min(ends) < 1:  # no window fits: an empty map
        return False
    return any(k > n or -(-k // stride) > end for k, n, end in zip(kernels, sizes, ends))


def _by_columns(x, kernel, stride: int, padding: Pair):
    """The same convolution as one product: a row for each window, with all its entries."""
    x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    columns = jnp.concatenate(windows(x, kernel.shape[:2], stride), axis=-1)
    return _product(columns, kernel.reshape(-1, kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride: int, padding: Pair):
    if winograd.suits(x, kernel, stride, padding):
        return winograd.convolve(x, kernel)
    return _plain(x, kernel, stride, padding)


def _plain(x, kernel, stride: int, padding: Pair):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolve_forward(x, kernel, stride: int, padding: Pair):
    return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride: int, padding: Pair, kept, gradient):
    x, kernel = kept
    tiled = winograd.suits(x, kernel, stride, padding)
    if tiled:
        to_x = winograd.input_gradient(kernel, gradient)
    else:
        form = _plain if stride == 1 else _phased
        (to_x,) = jax.vjp(lambda x: form(x, kernel, stride, padding), x)[1](gradient)
    if tiled and winograd.suits_gradient(x, kernel):
        return to_x, winograd.kernel_gradient(x, gradient)
    _, to_kernel = jax.vjp(lambda k: _plain(x, k, stride, padding), kernel)
    return to_x, *to_kernel(gradient)


def _phased(x, kernel, stride: int, padding: Pair):
    """The same convolution as a sum over the stride² phases of input and kernel, each dense."""
    height, width = (
        (n + 2 * p - k) // stride + 1 for n, p, k in zip(x.shape[1:3], padding, kernel.shape[:2])
    )
    total = None
    for i, j in itertools.product(range(stride), repeat=2):
        part = kernel[i::stride, j::stride]
        if not part.size:
            continue
        # Rows i, i + s, … of the padded input, as far as the windows reach.
        lengths = (height + part.shape[0] - 1, width + part.shape[1] - 1)
        starts = (i - padding[0], j - padding[1])
        term = _plain(_strided(x, starts, lengths, stride), part, 1, (0, 0))
        total = term if total is None else total + term
    return total


def _strided(x, starts: Pair, lengths: Pair, stride: int):
    """Rows and columns start, start + stride, … of x; zeros where they lie outside."""
    low, high = [], []
    for start, length, size in zip(starts, lengths, x.shape[1:3]):
        low.append(max(-start, 0))
        high.append(max(start + (length - 1) * stride + 1 - size, 0))
    x = jnp.pad(x, [(0, 0), (low[0], high[0]), (low[1], high[1]), (0, 0)])
    (y, x0), (rows, columns) = [max(s, 0) for s in starts], lengths
    ends = (y + (rows - 1) * stride + 1, x0 + (columns - 1) * stride + 1)
    return x[:, y : ends[0] : stride, x0 : ends[1] : stride]


_convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over size × size windows of NHWC; padding counts as −∞, as in PyTorch.

    The gradient goes to the first largest entry of a window, in raster order, as in PyTorch.
    """
    return functools.reduce(jnp.maximum, _taps(x, size, stride, padding))


def _taps(x: jax.Array, size: int, stride: int, padding: int) -> list[jax.Array]:
    edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    x = jnp.pad(x, edges, constant_values=-jnp.inf) if padding else x
    return windows(x, (size, size), stride)


def windows(x: jax.Array, sizes: Sizes, stride: int) -> list[jax.Array]:
    """Entry (i, j) of every window of h × w, for all h·w; windows that do not fit are left out."""
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], sizes))
    return [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i, j in itertools.product(*map(range, sizes))
    ]


def _max_pool_forward(x, size: int, stride: int, padding: int):
    # By comparing, not by looking for the maximum again: XLA may compute x anew with another
    # rounding, and then nothing equals it.
    largest, *others = _taps(x, size, stride, padding)
    winner = jnp.zeros(largest.shape, jnp.uint8)
    for number, tap in enumerate(others, 1):
        winner = jnp.where(tap > largest, jnp.uint8(number), winner)
        largest = jnp.maximum(largest, tap)
    return largest, (winner, jnp.zeros((0, *x.shape[1:]), x.dtype))


def _max_pool_backward(size: int, stride: int, padding: int, kept, gradient):
    winner, shape_of_x = kept
    height, width = shape_of_x.shape[1:3]
    rows, columns = (-(-(n + padding) // stride) for n in (height, width))
    reach = (size - 1) // stride  # how many windows back an entry can lie in, on each axis
    ends = [(reach, max(n - m, 0)) for n, m in zip((rows, columns), winner.shape[1:3])]
    edges = [(0, 0), *ends, (0, 0)]
    winner = jnp.pad(winner, edges, constant_values=255)
    gradient = jnp.pad(gradient, edges)

    def phase(i: int, j: int) -> jax.Array:
        """Gradient of the entries (stride·y + i, stride·x + j) of the padded input."""
        total = jnp.zeros((len(gradient), rows, columns, gradient.shape[-1]), gradient.dtype)
        for back_y, back_x in itertools.product(range(reach + 1), repeat=2):
            tap_y, tap_x = i + stride * back_y, j + stride * back_x
            if tap_y < size and tap_x < size:
                y, x = reach - back_y, reach - back_x
                here = (slice(None), slice(y, y + rows), slice(x, x + columns))
                won = winner[here] == tap_y * size + tap_x
                total += jnp.where(won, gradient[here], jnp.zeros((), gradient.dtype))
        return total

    phases = [[phase(i, j) for j in range(stride)] for i in range(stride)]
    joined = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    joined = joined.reshape(len(gradient), rows * stride, columns * stride, gradient.shape[-1])
    return (joined[:, padding : padding + height, padding : padding + width],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@jax.custom_vjp
def global_max_pool(x: jax.Array) -> jax.Array:
    """Maximum over height and width: [B, H, W, C] to [B, C]; the gradient goes to the first one.

    JAX's own gradient divides by the number of entries that equal the maximum, which is 0 where XLA
    computes x anew with another rounding: NaN.
    """
    return jnp.max(x, axis=(1, 2))


def _global_max_forward(x):
    places = jnp.argmax(x.reshape(len(x), -1, x.shape[-1]), axis=1)
    return jnp.max(x, axis=(1, 2)), (places, jnp.zeros((0, *x.shape[1:]), x.dtype))


def _global_max_backward(kept, gradient):
    places, shape_of_x = kept
    height, width, channels = shape_of_x.shape[1:]
    here = jnp.arange(height * width, dtype=places.dtype)[None, :, None] == places[:, None]
    spread = jnp.where(here, gradient[:, None], jnp.zeros((), gradient.dtype))
    return (spread.reshape(len(places), height, width, channels),)


global_max_pool.defvjp(_global_max_forward, _global_max_backward)
