"""Depthwise convolution and batch norm in the form for CPUs against the plain operations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax.models import depthwise, normalization, sums
from tests.models import golden


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def with_gradients(function):
    """The value of a function of arrays, and its gradients by a random direction."""

    @functools.partial(jax.jit, compiler_options=golden.QUICK)
    def both(*arguments):
        value, back = jax.vjp(function, *arguments)
        return value, *back(numbers(9, *value.shape))

    return both


def tensorflow(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )  # fmt: skip


@pytest.mark.parametrize("size", [(9, 8), (17, 10), (4, 4), (1, 2), (3, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_convolution_is_tensorflows_at_even_and_odd_sizes(size, kernel, stride):
    x, k = numbers(0, 2, *size, 4), numbers(1, kernel, kernel, 1, 4)
    found = with_gradients(lambda x, k: depthwise.depthwise(x, k, stride=stride))(x, k)
    wanted = with_gradients(lambda x, k: tensorflow(x, k, stride))(x, k)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("platform", "shifted"), [("cuda", True), ("tpu", False)])
def test_on_gpus_it_is_shifted_products_that_one_kernel_can_hold(platform, shifted):
    with sums.written_for(platform):
        test_depthwise_convolution_is_tensorflows_at_even_and_odd_sizes((9, 8), 3, 2)
        test_depthwise_convolution_is_tensorflows_at_even_and_odd_sizes((17, 10), 5, 1)
        call = lambda x, k: depthwise.depthwise(x, k, stride=2)  # noqa: E731
        given = numbers(0, 2, 17, 10, 4), numbers(1, 3, 3, 1, 4)
        program = str(jax.make_jaxpr(lambda x, k: jax.vjp(call, x, k)[1](call(x, k)))(*given))
    assert ("conv_general_dilated[" in program) != shifted
    assert "optimization_barrier" not in program


@pytest.mark.parametrize("limit", [0, 1000])
def test_both_forms_of_the_kernels_gradient_are_the_same(limit, monkeypatch):
    monkeypatch.setattr(depthwise, "SMALL", limit)
    test_depthwise_convolution_is_tensorflows_at_even_and_odd_sizes((8, 11), 5, 2)
    test_depthwise_convolution_is_tensorflows_at_even_and_odd_sizes((11, 8), 3, 1)


def by_autodiff(x, scale, bias, activation):
    mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    y = (x - mean) / jnp.sqrt(var + 1e-3) * scale + bias
    return {"none": lambda y: y, "relu6": jax.nn.relu6, "swish": jax.nn.silu}[activation](y)


@pytest.mark.parametrize("activation", normalization.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3, 7, 5, 4), (2, 19, 1, 3)])
def test_the_closed_form_of_batch_norm_equals_autodiff(activation, shape):
    """Values, and gradients by input, scale and bias; some entries are below 0 and above 6."""
    x, scale, bias = numbers(0, *shape), 4 + numbers(1, shape[-1]), 3 + numbers(2, shape[-1])
    ours = with_gradients(
        lambda *a: normalization.batch_norm(*a, epsilon=1e-3, activation=activation)[0]
    )
    found = ours(x, scale, bias)
    wanted = with_gradients(lambda *a: by_autodiff(*a, activation))(x, scale, bias)
    if activation == "relu6":
        assert (found[0] == 6).any() and (found[0] == 0).any()
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_relu6_has_no_gradient_at_its_bends():
    """As in PyTorch: half of it, as a maximum has, would differ where a map is zero throughout."""
    x = jnp.zeros((1, 2, 2, 1))
    for bias in (0.0, 6.0):
        run = with_gradients(lambda s, b: normalization.batch_norm(x, s, b, 1e-3, "relu6")[0])
        _, to_scale, to_bias = run(jnp.ones(1), jnp.full(1, bias))
        assert to_scale == 0 and to_bias == 0


def test_a_bias_has_the_gradient_of_an_addition():
    x, bias = numbers(0, 2, 11, 3, 4), numbers(1, 4)
    found, wanted = with_gradients(sums.add_bias)(x, bias), with_gradients(jnp.add)(x, bias)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
