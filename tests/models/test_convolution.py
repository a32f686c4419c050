"""The rewritten convolution and pooling against XLA's plain operations, gradients included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.models import convolution, sums


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(p, p) for p in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def backwards(call, x, k):
    return str(jax.make_jaxpr(lambda x, k: jax.vjp(call, x, k)[1](call(x, k)))(x, k))


@pytest.mark.parametrize("size, stride", [(1, 2), (3, 2), (3, 1)])
def test_on_gpus_it_is_the_plain_operation(size, stride):
    """XLA ends the process there over the products of a strided 1×1 convolution's gradient."""
    x, k = numbers(0, 2, 8, 8, 3), numbers(1, size, size, 3, 4)
    call = lambda x, k: convolution.convolve(x, k, stride=stride, padding=(0, 0))  # noqa: E731
    with sums.written_for("cuda"):
        program = backwards(call, x, k)
        np.testing.assert_allclose(call(x, k), plain(x, k, stride, (0, 0)), rtol=1e-6)
    assert "dot_general" not in program and "custom_vjp" not in program
    assert program.count("conv_general_dilated[") == 4  # twice forward, once for each argument


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_1x1_convolution_is_a_product_on_gpus(platform):
    x, k = numbers(0, 2, 8, 8, 3), numbers(1, 1, 1, 3, 4)
    call = lambda x, k: convolution.convolve(x, k, stride=1, padding=(0, 0))  # noqa: E731
    with sums.written_for(platform):
        program = backwards(call, x, k)
        np.testing.assert_allclose(call(x, k), plain(x, k, 1, (0, 0)), rtol=1e-5, atol=1e-6)
    assert ("dot_general" in program) == (platform == "cuda")
    assert ("conv_general_dilated[" in program) == (platform == "tpu")


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    kernel=st.sampled_from([(1, 1), (3, 3), (7, 7), (1, 7), (7, 1), (2, 3)]),
    stride=st.integers(1, 3),
    padded=st.booleans(),
)
def test_convolution(size, kernel, stride, padded):
    padding = tuple(k // 2 for k in kernel) if padded else (0, 0)
    if any(n + 2 * p < k for n, p, k in zip(size, padding, kernel)):
        return
    x, k = numbers(0, 2, *size, 3), numbers(1, *kernel, 3, 4)
    found, back = jax.vjp(
        lambda x, k: convolution.convolve(x, k, stride=stride, padding=padding), x, k
    )
    wanted, plain_back = jax.vjp(lambda x, k: plain(x, k, stride, padding), x, k)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    gradient = numbers(2, *wanted.shape)
    for one, other in zip(back(gradient), plain_back(gradient)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "by_product"),
    [(2, 3, 1, 1, True), (1, 3, 1, 1, True), (2, 3, 2, 1, True), (3, 3, 1, 0, True),
     (3, 3, 1, 1, False), (4, 3, 2, 1, False), (6, 7, 2, 3, True), (7, 7, 2, 3, False)],
)  # fmt: skip
def test_a_kernel_larger_than_its_map_is_a_product(size, kernel, stride, padding, by_product):
    """XLA takes 20 to 60 times as long for them."""
    x, k = numbers(0, 2, size, size, 3), numbers(1, kernel, kernel, 3, 4)
    call = lambda x, k: convolution.convolve(  # noqa: E731
        x, k, stride=stride, padding=(padding, padding)
    )
    assert ("conv_general_dilated[" not in backwards(call, x, k)) == by_product
    np.testing.assert_allclose(
        call(x, k), plain(x, k, stride, (padding, padding)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("size", "kernel", "stride"), [(2, 3, 2), (3, 5, 2), (4, 7, 3), (2, 3, 1)])
def test_where_no_window_fits_the_map_is_empty(size, kernel, stride):
    x, k = numbers(0, 2, size, size, 3), numbers(1, kernel, kernel, 3, 4)
    assert convolution.convolve(x, k, stride=stride, padding=(0, 0)).shape == (2, 0, 0, 4)


def winner_takes_all(x, size, stride, padding, gradient):
    """Max pooling and its gradient by loops: to the first largest entry, as in PyTorch."""
    padded = np.pad(x, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)], constant_values=-np.inf)
    values, back = np.zeros(gradient.shape), np.zeros(padded.shape)
    for b, y, z, c in np.ndindex(*gradient.shape):
        window = padded[b, y * stride : y * stride + size, z * stride : z * stride + size, c]
        i, j = np.unravel_index(np.argmax(window), window.shape)
        values[b, y, z, c] = window[i, j]
        back[b, y * stride + i, z * stride + j, c] += gradient[b, y, z, c]
    end = lambda n: n - padding  # noqa: E731
    inner = back[:, padding : end(back.shape[1]), padding : end(back.shape[2])]
    return values, inner


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [((9, 10), 3, 2, 1), ((8, 8), 3, 2, 1), ((8, 9), 2, 2, 0), ((11, 12), 3, 2, 0),
     ((5, 6), 3, 1, 1), ((7, 7), 2, 2, 0), ((7, 8), 2, 3, 0)],
)  # fmt: skip
def test_max_pooling_with_ties(shape, size, stride, padding):
    x = np.random.default_rng(0).integers(0, 4, (2, *shape, 3)).astype(np.float32)
    found, back = jax.vjp(lambda x: convolution.max_pool(x, size, stride, padding), x)
    gradient = numbers(1, *found.shape)
    wanted, wanted_back = winner_takes_all(x, size, stride, padding, np.asarray(gradient))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(back(gradient)[0], wanted_back, rtol=1e-6, atol=1e-6)


def test_the_global_maximum_has_a_gradient_however_it_is_compiled():
    """Without LLVM's optimizations XLA rounds a recomputed map differently from its maximum."""
    x = numbers(0, 4, 6, 6, 8)

    def value(x, scale):
        y = jax.nn.relu(x * scale[0] + scale[1])
        return jnp.sum(jnp.sin(convolution.global_max_pool(y)))

    scale = numbers(1, 2, 8)
    for level in (0, 3):
        options = {"xla_backend_optimization_level": level}
        found = jax.jit(jax.grad(value), compiler_options=options)(x, scale)
        y = np.maximum(np.asarray(x) * np.asarray(scale[0]) + np.asarray(scale[1]), 0)
        flat = y.reshape(4, 36, 8)
        wanted = np.zeros_like(flat)
        b, c = np.indices((4, 8))
        best = flat.argmax(axis=1)
        wanted[b, best, c] = (
            np.cos(flat.max(axis=1)) * np.asarray(scale[0]) * (flat.max(axis=1) > 0)
        )
        np.testing.assert_allclose(found.reshape(4, 36, 8), wanted, rtol=1e-3, atol=1e-5)


def test_half_precision_stays_half():
    x, k = numbers(0, 2, 8, 8, 3).astype(jnp.bfloat16), numbers(1, 3, 3, 3, 4).astype(jnp.bfloat16)

    def value(x, k):
        y = convolution.max_pool(convolution.convolve(x, k, stride=2, padding=(1, 1)), 3, 2, 1)
        return jnp.sum(y.astype(jnp.float32))

    chex.assert_type(list(jax.grad(value, (0, 1))(x, k)), jnp.bfloat16)
