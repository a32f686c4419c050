"""Schedules by hand, SGD as PyTorch's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fgjax.config import Optimizer
from fgjax.training import optimizer


def test_schedules():
    sgd = Optimizer("sgd", 0.001, schedule="step", decay_rate=0.09, decay_epochs=50)
    rate = optimizer.learning_rate(sgd, steps_per_epoch=10, epochs=200)
    found = [float(rate(epoch * 10)) for epoch in (0, 49, 50, 99, 100, 150)]
    wanted = [1e-3, 1e-3, 9e-5, 9e-5, 8.1e-6, 7.29e-7]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    cosine = dataclasses.replace(sgd, schedule="cosine", warmup_epochs=2)
    rate = optimizer.learning_rate(cosine, steps_per_epoch=10, epochs=12)
    np.testing.assert_allclose([rate(0), rate(10), rate(20), rate(120)], [0, 5e-4, 1e-3, 0],
                               atol=1e-9)  # fmt: skip


def test_steps_under_a_warm_up_count_from_the_first_one():
    """Decay every 3 epochs, 2 of warm-up: boundaries stay at epochs 3 and 6 of all 8."""
    config = Optimizer("sgd", 1.0, schedule="step", decay_rate=0.5, decay_epochs=3, warmup_epochs=2)
    rate = optimizer.learning_rate(config, steps_per_epoch=4, epochs=8)
    found = [float(rate(step)) for step in range(32)]
    wanted = [step / 8 for step in range(8)] + [1.0] * 4 + [0.5] * 12 + [0.25] * 8
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("warmup", "rates"), [(4, [1, 1, 0.5]), (4.5, [8 / 9, 1, 0.5])])
def test_decays_inside_the_warm_up_are_left_out(warmup, rates):
    """Decay every 2 epochs: epochs 2 and 4 lie in the warm-up, 6 does not."""
    config = Optimizer("sgd", 1.0, schedule="step", decay_rate=0.5, decay_epochs=2,
                       warmup_epochs=warmup)  # fmt: skip
    rate = optimizer.learning_rate(config, steps_per_epoch=2, epochs=7)
    np.testing.assert_allclose([rate(8), rate(11), rate(12)], rates, rtol=1e-6)


def test_sgd_is_pytorchs():
    """g ← g + λ w; v ← μ v + g; w ← w − η v."""
    config = Optimizer("sgd", 0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    update = optimizer.make(config, steps_per_epoch=1, epochs=1)
    w, state, velocity, wanted = jnp.float32(2.0), None, 0.0, 2.0
    state = update.init(w)
    for gradient in (1.0, -0.5, 0.3):
        change, state = update.update(jnp.float32(gradient), state, w)
        w = optax.apply_updates(w, change)
        velocity = 0.9 * velocity + gradient + 0.01 * wanted
        wanted -= 0.1 * velocity
    assert float(w) == pytest.approx(wanted, rel=1e-6)


def walk(update, w, gradients):
    """The parameters after each of the gradients."""
    state, path = update.init(w), []
    for gradient in gradients:
        with jax.numpy_dtype_promotion("standard"):  # optax's AdamW
            change, state = update.update(jnp.asarray(gradient, jnp.float32), state, w)
        w = optax.apply_updates(w, change)
        path.append(np.asarray(w))
    return path


def test_sgd_without_momentum_under_a_clip():
    """Gradients of norm 5 and 0.5 under a clip of 1, then the decay; η = 0.1, then 0.05."""
    config = Optimizer("sgd", 0.1, momentum=0.0, weight_decay=0.5, schedule="step",
                       decay_rate=0.5, decay_epochs=1, clip=1.0)  # fmt: skip
    update = optimizer.make(config, steps_per_epoch=1, epochs=2)
    found = walk(update, jnp.array([1.0, 2.0]), [[3.0, 4.0], [0.3, 0.4]])
    first = np.array([1.0, 2.0]) - 0.1 * (np.array([0.6, 0.8]) + 0.5 * np.array([1.0, 2.0]))
    second = first - 0.05 * (np.array([0.3, 0.4]) + 0.5 * first)
    np.testing.assert_allclose(found, [first, second], rtol=1e-5)
    free = optimizer.make(dataclasses.replace(config, clip=0.0), steps_per_epoch=1, epochs=2)
    (found,) = walk(free, jnp.array([1.0, 2.0]), [[3.0, 4.0]])
    np.testing.assert_allclose(found, [1 - 0.1 * 3.5, 2 - 0.1 * 5], rtol=1e-5)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_adamw_by_hand(clip):
    """Decoupled decay: w ← w − η (m̂ / (√v̂ + ε) + λ w), warmed up over two steps."""
    config = Optimizer("adamw", 0.2, weight_decay=0.25, schedule="constant", warmup_epochs=1,
                       clip=clip)  # fmt: skip
    found = walk(optimizer.make(config, steps_per_epoch=2, epochs=3), jnp.array(3.0), [4, -2, 0.5])
    w, m, v, wanted = 3.0, 0.0, 0.0, []
    for step, (gradient, rate) in enumerate(zip((4, -2, 0.5), (0.0, 0.1, 0.2)), start=1):
        gradient = np.sign(gradient) * min(abs(gradient), clip) if clip else gradient
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= rate * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + 0.25 * w)
        wanted.append(w)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_cosine_and_constant_by_hand():
    config = Optimizer("adamw", 2.0, schedule="cosine")
    rate = optimizer.learning_rate(config, steps_per_epoch=2, epochs=4)
    np.testing.assert_allclose([rate(0), rate(2), rate(4), rate(8), rate(9)],
                               [2, 1 + np.cos(np.pi / 4), 1, 0, 0], atol=1e-6)  # fmt: skip
    config = dataclasses.replace(config, warmup_epochs=5)  # more than there are: it never falls
    rate = optimizer.learning_rate(config, steps_per_epoch=2, epochs=4)
    np.testing.assert_allclose([rate(5), rate(10), rate(11)], [1, 2, 0], atol=1e-6)
    config = dataclasses.replace(config, schedule="constant", warmup_epochs=0.5)
    rate = optimizer.learning_rate(config, steps_per_epoch=4, epochs=4)
    np.testing.assert_allclose([rate(0), rate(1), rate(2), rate(16)], [0, 1, 2, 2])
