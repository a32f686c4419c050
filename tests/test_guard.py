"""What the guard of speed calls a loss. How fast anything is, is not tested."""

import pytest

from benchmarks import guard


@pytest.mark.parametrize(
    ("measured", "recorded", "found", "fails"),
    [
        ([0.9], 1.0, [0.9], False),
        ([0.86], 1.0, [0.86], False),
        ([0.84, 0.9], 1.0, [0.84, 0.9], False),  # once is chance
        ([0.84, 0.84], 1.0, [0.84, 0.84], True),
        ([0.1], None, [0.1], False),  # nothing to compare with
        ([3.0], 1.0, [3.0], False),
    ],
)
def test_who_loses_twice_in_a_row_fails(measured, recorded, found, fails):
    turns = iter(measured)
    assert guard.judged(lambda: next(turns), recorded) == (found, fails)


def test_a_ratio_is_the_yardsticks_time_by_ours(monkeypatch):
    now = iter([0, 9, 9, 10] + [0, 2, 2, 3] * 2 + [0, 4, 4, 5])  # the first turn does not count
    monkeypatch.setattr(guard.time, "perf_counter", lambda: next(now))
    assert guard.ratio((lambda: None, lambda: None), turns=3) == 2


def test_the_pieces_can_be_built(tmp_path):
    for name, build in guard.pieces(str(tmp_path)).items():
        if not name.startswith("step"):
            for work in build():
                work()
