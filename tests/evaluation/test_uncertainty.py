"""Intervals: known values, and what resampling must give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import calibration, paired_bootstrap, wilson_interval


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [  # by Wilson's formula with z = 1.959964, computed by hand
        (50, 100, 0.40383, 0.59617),
        (0, 10, 0.0, 0.27754),
        (10, 10, 0.72246, 1.0),
        (1, 1, 0.20654, 1.0),
    ],
)
def test_wilson(hits, total, low, high):
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=2e-5)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.5, 0.99))
def test_wilson_holds_the_share_and_narrows(total, part, confidence):
    hits = round(part * total)
    low, high = wilson_interval(hits, total, confidence=confidence)
    assert 0 <= low <= hits / total + 1e-12 and hits / total - 1e-12 <= high <= 1
    nearer, farther = wilson_interval(4 * hits, 4 * total, confidence=confidence)
    assert farther - nearer < high - low


def test_nothing_to_count_is_refused():
    with pytest.raises(UserError, match="not 3 of 0"):
        wilson_interval(3, 0)
    with pytest.raises(UserError, match="not 3 of 2"):
        wilson_interval(3, 2)


def test_the_bootstrap_agrees_with_the_normal_distribution():
    rng = np.random.default_rng(1)
    one = rng.random(4000) < 0.8
    other = np.where(rng.random(4000) < 0.9, one, rng.random(4000) < 0.5)
    mean, low, high = paired_bootstrap(one, other)
    difference = one.astype(float) - other.astype(float)
    error = difference.std() / np.sqrt(4000)
    assert mean == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_bootstrap_turns_with_its_arguments(pairs):
    one, other = np.array(pairs).T
    mean, low, high = paired_bootstrap(one, other, draws=500)
    assert -1 <= low <= high <= 1
    turned = paired_bootstrap(other, one, draws=500)
    assert turned == pytest.approx((-mean, -high, -low))
    assert paired_bootstrap(one, one, draws=50) == (0, 0, 0)


def test_many_images_take_no_more_memory_at_a_time():
    one = np.zeros(1_500_000)
    assert paired_bootstrap(one, one, draws=3) == (0, 0, 0)


def test_runs_of_other_images_are_refused(unchecked_types):
    with pytest.raises(UserError, match="one has 3 images and the other 2"):
        paired_bootstrap(np.ones(3), np.ones(2))


def test_the_bins_of_a_reliability_diagram():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    found = calibration.reliability(probabilities, np.array([0, 1, 1, 1]), bins=4)
    np.testing.assert_array_equal(found["images"], [0, 0, 2, 2])
    np.testing.assert_allclose(found["confidence"], [np.nan, np.nan, 0.625, 0.85])
    np.testing.assert_allclose(found["accuracy"], [np.nan, np.nan, 1.0, 0.5])
    # 2/4 · |1 − 0.625| + 2/4 · |0.5 − 0.85|
    error = calibration.expected_calibration_error(probabilities, np.array([0, 1, 1, 1]), bins=4)
    assert error == pytest.approx(0.3625)
