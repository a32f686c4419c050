"""What all losses share, by hand: widths of floats, norms at zero, masked means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import compilation
from fgjax.losses import common


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.bool_, jnp.float32])
def test_everything_narrow_becomes_float32(dtype):
    found = common.as_float(np.ones(2, dtype))
    assert found.dtype == jnp.float32 and found.tolist() == [1, 1]
    assert common.as_float(0.5).dtype == jnp.float32


def test_float64_stays_wide():
    jax.config.update("jax_enable_x64", True)
    try:
        found = common.as_float(np.array([1 + 2**-40]))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert found.dtype == np.float64 and np.asarray(found)[0] != 1


def test_norms_are_safe_at_zero():
    value, gradient = jax.vmap(jax.value_and_grad(common.safe_sqrt))(jnp.array([0.0, 0.25, 4.0]))
    assert value.tolist() == [0, 0.5, 2] and gradient.tolist() == [0, 1, 0.25]
    one, other = jnp.array([[1.0, 2.0], [3.0, 1.0]]), jnp.array([1.0, 2.0])
    np.testing.assert_allclose(common.euclidean(one, other), [0, np.sqrt(5)], rtol=1e-6)
    assert common.euclidean(np.float16([[3]]), np.float16([[-1]])).dtype == jnp.float32
    gradient = jax.grad(lambda x: jnp.sum(common.euclidean(x, other)))(one)
    np.testing.assert_allclose(gradient, [[0, 0], np.array([2, -1]) / np.sqrt(5)], rtol=1e-6)


def test_unit_vectors_by_hand():
    rows = jnp.array([[3.0, 4.0], [0.003, -0.004], [0.0, 0.0]])
    np.testing.assert_allclose(common.normalize(rows), [[0.6, 0.8], [0.6, -0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(common.normalize(rows, epsilon=0.01)[1], [0.3, -0.4], rtol=1e-6)


def test_a_zero_vector_has_no_direction_and_no_gradient():
    rows = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    for compiled in (lambda f: f, compilation.jit):
        value, gradient = compiled(
            jax.value_and_grad(lambda x: jnp.sum(common.normalize(x) * jnp.array([1.0, 2.0])))
        )(rows)
        np.testing.assert_allclose(value, 2.2, rtol=1e-6)
        # (c − (c · u) u) / ‖x‖ of c = (1, 2), u = (0.6, 0.8) and ‖x‖ = 5.
        np.testing.assert_allclose(gradient, [[0, 0], [-0.064, 0.048]], rtol=1e-5)


def test_masked_means_by_hand():
    values = jnp.array([[1, 2, 6], [jnp.inf, 4, 5]])
    where = jnp.array([[1, 0, 1], [0, 0, 1]])
    assert float(common.masked_mean(values, where)) == 4
    assert common.masked_mean(values, where, axis=0).tolist() == [1, 0, 5.5]
    assert common.masked_mean(values, where, axis=1).tolist() == [3.5, 5]
    assert float(common.masked_mean(values, where, axis=(0, 1))) == 4
    assert (
        float(common.masked_mean(np.arange(6).reshape(2, 3), np.array([[True, False, False]])))
        == 1.5
    )
    empty = jax.value_and_grad(lambda x: common.masked_mean(x, jnp.zeros(3)))(jnp.ones(3))
    assert (float(empty[0]), empty[1].tolist()) == (0, [0, 0, 0])
    assert common.masked_mean(values.astype(jnp.bfloat16), where).dtype == jnp.float32


def test_checks_take_what_fits():
    common.check_embeddings("f", a=np.ones((2, 3)), b=np.zeros((2, 3)))
    common.check_rank("f", 0, a=1.0)
    common.check_rank("f", 2, a=np.ones((2, 3)), b=np.ones((1, 1)))
    common.check_batch("f", a=np.ones((2, 3)), b=np.ones(2))
    for dtype in (np.int32, np.uint8):
        labels = common.check_labels("f", np.array([2, 0], dtype))
        assert isinstance(labels, jax.Array) and labels.tolist() == [2, 0]
    common.check_not_negative("f", margin=0, weight=0.0, traced=jnp.float32(-1))  # cannot be known
