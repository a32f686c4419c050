"""Depthwise convolution: each channel with a kernel of its own."""

import jax

Pair = tuple[int, int]


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
    return _plain(x, kernel, stride)


def _plain(x, kernel, stride: int):
    padding = [same(n, k, stride) for n, k in zip(x.shape[1:3], kernel.shape)]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )  # fmt: skip
