"""Temperatures and calibration errors, by hand and against grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import calibration


def drawn(temperature, seed=0, count=4000, classes=5):
    """Labels that follow softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * 3
    scaled = np.exp(logits / temperature)
    chances = scaled / scaled.sum(axis=1, keepdims=True)
    labels = (rng.uniform(size=(count, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_temperature_is_found_again(temperature):
    logits, labels = drawn(temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_it_is_the_best_of_a_grid():
    logits, labels = drawn(1.7, count=60)
    best = calibration.fit_temperature(logits, labels)
    of = lambda t: calibration.negative_log_likelihood(logits, labels, temperature=t)  # noqa: E731
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4001))
    assert of(best) <= min(of(t) for t in grid) + 1e-7
    assert of(best) < of(1.0)


def test_a_likelihood_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    wanted = -(np.log(0.5) + np.log(0.6)) / 2
    found = calibration.negative_log_likelihood(logits, np.array([0, 2]))
    assert found == pytest.approx(wanted)
    squared = np.array([[0.5, 0.25, 0.25]]) ** 2  # temperature ½
    half = calibration.negative_log_likelihood(logits[:1], np.array([1]), temperature=0.5)
    assert half == pytest.approx(-np.log(squared[0, 1] / squared.sum()))


def test_the_error_by_hand():
    """Ten bins: two images at 0.75 of which one is right, one at 0.95 and right, one at 0.6."""
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [0.95, 0.05], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1])
    wanted = (2 * abs(0.5 - 0.75) + abs(1 - 0.95) + abs(0 - 0.6)) / 4
    found = calibration.expected_calibration_error(probabilities, labels, bins=10)
    assert found == pytest.approx(wanted)
    assert calibration.expected_calibration_error(np.eye(2), np.array([0, 1])) == 0
    assert calibration.expected_calibration_error(np.eye(2), np.array([1, 0])) == 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 20))
def test_errors_are_fractions_and_equal_those_of_loops(seed, count, bins):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), count)
    labels = rng.integers(0, 3, count)
    total = 0.0
    for b in range(bins):
        rows = [
            i for i in range(count) if b / bins < probabilities[i].max() <= (b + 1) / bins
        ]  # fmt: skip
        if rows:
            right = np.mean([probabilities[i].argmax() == labels[i] for i in rows])
            total += (
                len(rows) / count * abs(right - np.mean([probabilities[i].max() for i in rows]))
            )
    found = calibration.expected_calibration_error(probabilities, labels, bins=bins)
    assert found == pytest.approx(total, abs=1e-12) and 0 <= found <= 1


def test_fitting_makes_the_error_smaller():
    logits, labels = drawn(3.0)
    other, truth = drawn(3.0, seed=1)
    found = calibration.fit_temperature(logits, labels)

    def error(temperature):
        scaled = np.exp(other / temperature)
        return calibration.expected_calibration_error(
            scaled / scaled.sum(axis=1, keepdims=True), truth
        )

    assert error(found) < 0.03 and error(1.0) > 0.1


def test_no_held_out_images_are_an_error():
    with pytest.raises(UserError, match="none are held out"):
        calibration.fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
