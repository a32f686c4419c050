"""Scores of things that are known and of things that are not, by hand and by counting pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import unknown

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda x: np.array(x, float))


def test_the_own_class_is_taken_away():
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [7.0, 8.0, 9.0]])
    known, without = unknown.largest_logits(logits, np.array([0, 1, 0]))
    np.testing.assert_array_equal(known, [3, 5, 9])
    np.testing.assert_array_equal(without, [2, 4, 9])  # of a wrong answer nothing changes
    np.testing.assert_array_equal(logits[0], [3, 1, 2])  # what is given stays as it is


@settings(deadline=None)
@given(SCORES, SCORES)
def test_auroc_counts_pairs(known, strangers):
    pairs = known[:, None] - strangers[None]
    wanted = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert unknown.auroc(known, strangers) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(unknown.auroc(np.append(known, np.nan), strangers))


@settings(deadline=None)
@given(SCORES, SCORES, st.floats(0.01, 1))
def test_the_share_is_let_in_by_the_highest_threshold_that_lets_it_in(known, strangers, accepted):
    fitting = [t for t in known if np.mean(known >= t) >= accepted - 1e-12]
    wanted = np.mean(strangers >= max(fitting))
    assert unknown.false_accepts_at(known, strangers, accepted=accepted) == pytest.approx(wanted)


@given(SCORES, SCORES)
def test_a_score_lets_in_all_that_are_as_high(scores, strangers):
    found = unknown.false_accepts(scores, strangers)
    np.testing.assert_allclose(found, [np.mean(strangers >= one) for one in scores])


def test_fpr_at_95_by_hand():
    # 19 of 20 known ones have 3 or more, and two of the four strangers have, too.
    known = np.array([1.0] + [3.0] * 19)
    assert unknown.false_accepts_at(known, np.array([0.0, 2.0, 3.0, 9.0])) == 0.5


def test_nothing_to_compare_with_is_said():
    some, none = np.ones(2), np.zeros(0)
    for call in (
        lambda: unknown.auroc(none, some),
        lambda: unknown.auroc(some, none),
        lambda: unknown.false_accepts_at(none, some),
        lambda: unknown.false_accepts(some, none),
    ):
        with pytest.raises(UserError, match="there are none"):
            call()
    with pytest.raises(UserError, match="two classes or more"):
        unknown.largest_logits(np.zeros((2, 1)), np.zeros(2, int))
