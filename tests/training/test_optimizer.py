"""Schedules by hand, SGD as PyTorch's."""

import dataclasses

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
