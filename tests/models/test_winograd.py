"""Convolutions by Winograd's tiles against a loop over taps, in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from fgjax.models import convolution, winograd

MANY = winograd.CHANNELS


@pytest.fixture
def one_device(monkeypatch):
    """The tests have four."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def by_taps(x, kernel):
    """A 3×3 convolution of padding 1, as its sum says."""
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )


def gradients_by_taps(x, kernel, gradient):
    to_x = by_taps(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    to_kernel = np.empty(kernel.shape)
    for i, j in np.ndindex(3, 3):
        seen = padded[:, i : i + height, j : j + width]
        to_kernel[i, j] = np.einsum("bhwi,bhwo->io", seen, gradient)
    return to_x, to_kernel


def all_three(x, kernel, gradient):
    """Outputs and both gradients by the tiles."""
    return (winograd.convolve(x, kernel), winograd.input_gradient(kernel, gradient),
            winograd.kernel_gradient(x, gradient))  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(
    images=st.sampled_from([1, 2, 3, 6]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    tiles=st.sampled_from([1, 8, 256]),
)
def test_it_is_the_convolution_for_any_size_and_part(images, size, channels, tiles):
    x, kernel = numbers(0, images, *size, channels[0]), numbers(1, 3, 3, *channels)
    gradient = numbers(2, images, *size, channels[1])
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES", tiles)
        found = all_three(*map(jnp.asarray, (x, kernel, gradient)))
    wanted = by_taps(x, kernel), *gradients_by_taps(x, kernel, gradient)
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_float32_rounds_up_to_twice_as_much_as_the_plain_operation():
    x, kernel = numbers(0, 2, 28, 28, 256), numbers(1, 3, 3, 256, 256) / 48
    gradient = numbers(2, 2, 28, 28, 256)
    wanted = by_taps(x, kernel), *gradients_by_taps(x, kernel, gradient)
    narrow = [jnp.asarray(a, jnp.float32) for a in (x, kernel, gradient)]
    plain, back = jax.vjp(lambda x, k: convolution._plain(x, k, 1, (1, 1)), narrow[0], narrow[1])
    for found, usual, exact in zip(all_three(*narrow), (plain, *back(narrow[2])), wanted):
        error, before = (np.sqrt(np.mean((np.asarray(a) - exact) ** 2)) for a in (found, usual))
        assert error < 2 * before
        assert error < 2e-6 * np.std(exact)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dtype", "tiled"),
    [
        ((8, 14, 14, MANY), (3, 3, MANY, MANY), 1, (1, 1), "float32", True),
        ((8, 14, 14, MANY), (3, 3, MANY, MANY), 2, (1, 1), "float32", False),
        ((8, 14, 14, MANY), (3, 3, MANY, MANY), 1, (0, 0), "float32", False),
        ((8, 14, 14, MANY), (5, 5, MANY, MANY), 1, (1, 1), "float32", False),
        ((8, 14, 14, MANY), (3, 3, MANY, MANY), 1, (1, 1), "bfloat16", False),
        ((8, 14, 14, MANY), (3, 3, MANY, MANY - 1), 1, (1, 1), "float32", False),
        ((8, 3, 3, MANY), (3, 3, MANY, MANY), 1, (1, 1), "float32", False),
    ],
)
@pytest.mark.usefixtures("one_device")
def test_what_is_done_by_tiles(shape, kernel, stride, padding, dtype, tiled):
    x, k = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(kernel, dtype)

    def call(x, k):
        return convolution.convolve(x, k, stride=stride, padding=padding)

    program = str(jax.make_jaxpr(call)(x, k))
    assert ("conv_general_dilated[" in program) != tiled


@pytest.mark.parametrize("channels", [MANY, winograd.CHANNELS_OF_GRADIENT])
@pytest.mark.usefixtures("one_device")
def test_the_gradients_of_a_convolution_by_tiles(channels):
    """By `convolve`'s own rule, whichever form the kernel's gradient has."""
    x, kernel = numbers(0, 8, 13, 14, channels), numbers(1, 3, 3, channels, channels) / 48
    gradient = numbers(2, *x.shape)
    narrow = [jnp.asarray(a, jnp.float32) for a in (x, kernel, gradient)]
    call = lambda x, k: convolution.convolve(x, k, stride=1, padding=(1, 1))  # noqa: E731
    program = str(jax.make_jaxpr(lambda x, k, g: jax.vjp(call, x, k)[1](g))(*narrow))
    plain = winograd.suits_gradient(narrow[0], narrow[1])
    assert ("conv_general_dilated[" in program) != plain
    found = jax.vjp(call, *narrow[:2])[1](narrow[2])
    for one, exact in zip(found, gradients_by_taps(x, kernel, gradient)):
        np.testing.assert_allclose(one, exact, atol=1e-5 * np.std(exact) * 5)


def test_several_devices_have_the_plain_operation():
    """Four of them see the batch as one does, and none is sent what another computes."""
    x = jnp.asarray(numbers(0, 4, 14, 14, MANY), jnp.float32)
    kernel = jnp.asarray(numbers(1, 3, 3, MANY, MANY), jnp.float32)
    assert jax.device_count() == 4
    call = lambda x, k: convolution.convolve(x, k, stride=1, padding=(1, 1))  # noqa: E731
    assert "conv_general_dilated[" in str(jax.make_jaxpr(call)(x, kernel))


@pytest.mark.usefixtures("one_device")
def test_an_exported_program_takes_any_number_of_images():
    """Which parts need to know; it has the plain operation."""
    kernel = jnp.asarray(numbers(1, 3, 3, MANY, MANY), jnp.float32)

    def call(x):
        return convolution.convolve(x, kernel, stride=1, padding=(1, 1))

    sizes = export.symbolic_shape(f"batch, 14, 14, {MANY}")
    program = export.export(jax.jit(call))(jax.ShapeDtypeStruct(sizes, jnp.float32))
    for count in (1, 3):
        x = numbers(0, count, 14, 14, MANY)
        found = program.call(jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, by_taps(x, np.asarray(kernel)), atol=2e-3)
