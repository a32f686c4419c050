"""Twenty kills at random moments of whole runs, and what compares their ends."""

import numpy as np
import pytest

from tests import killing


@pytest.mark.slow
@pytest.mark.parametrize("method", list(killing.METHODS))
def test_killed_at_random_moments_ends_with_the_same_bits(method, tmp_path):
    assert len(killing.trial(method, 4, 1, tmp_path)) == 4


def test_one_changed_bit_is_a_difference():
    one = {"a": np.array([1.0, np.nan]), "b": {"top1": 0.5}, "c": np.array([1, 2])}
    same = {"a": np.array([1.0, np.nan]), "b": {"top1": 0.5}, "c": np.array([1, 2])}
    assert killing.differences(one, same) == []
    assert killing.differences(one, {**same, "a": np.nextafter(same["a"], 2)}) == ["a"]
    assert killing.differences(one, {**same, "b": {"top1": 0.51}}) == ["b"]
    del same["c"]
    assert killing.differences(one, same) == ["c"]
