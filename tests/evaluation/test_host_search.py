"""The search on the host's cores: against sorting all scores, with ties, in tiles and blocks."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgjax.evaluation import host_search, retrieval


def sorted_out(queries, database, count, own):
    """All scores, sorted; of whole numbers, so that equals are equal."""
    scores = queries.astype(float) @ database.astype(float).T
    scores[own >= 0, own[own >= 0]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    values = np.take_along_axis(scores, order, axis=1)
    order = np.where(np.isneginf(values), -1, order)
    missing = [(0, 0), (0, count - order.shape[1])]
    return (np.pad(values, missing, constant_values=-np.inf),
            np.pad(order, missing, constant_values=-1))  # fmt: skip


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    seed=st.integers(0, 10**6), size=st.integers(1, 400), asking=st.integers(1, 40),
    count=st.integers(1, 12), tile=st.integers(8, 300), block=st.integers(1, 30),
    largest=st.sampled_from([0, 1, 2, 30]), itself=st.booleans(), mutual=st.booleans(),
)  # fmt: skip
def test_it_finds_what_sorting_finds(
    seed, size, asking, count, tile, block, largest, itself, mutual, monkeypatch
):
    monkeypatch.setattr(host_search, "_TILE", tile)
    monkeypatch.setattr(host_search, "_QUERIES", block)
    rng = np.random.default_rng(seed)
    database = rng.integers(-largest, largest + 1, (size, 3)).astype(np.float32)
    queries = rng.integers(-largest, largest + 1, (asking, 3)).astype(np.float32)
    own = rng.integers(-1, size, asking) if itself else np.full(asking, -1)
    if mutual:
        queries, own = database, np.arange(size) if itself else np.full(size, -1)
    found = [np.concatenate(x) for x in zip(*host_search.blocks(queries, database, count, own))]
    wanted = sorted_out(queries, database, count, own)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[0].dtype == np.float32 and found[1].dtype == np.int32


def test_few_scores_are_looked_at_twice():
    """Thresholds leave a small share, in the first tile, too; so nothing sorts whole rows."""
    scores = np.random.default_rng(0).normal(size=(64, 8192)).astype(np.float32)
    rows, _ = host_search._promising(scores, np.full(64, -np.inf, np.float32), 33, 0)
    assert 33 * 64 <= len(rows) < 2 * 33 * 64
    last = np.sort(scores)[:, -33]
    rows, _ = host_search._promising(scores, last, 33, 8192)
    assert len(rows) == 32 * 64  # what equals the last one stands behind it


def test_rows_that_search_each_other_need_half_of_the_products(monkeypatch):
    monkeypatch.setattr(host_search, "_QUERIES", 10)
    done, real = [], host_search._Rooms.put

    def counted(self, rows, tile, choose):
        done.append(len(rows) * len(tile))
        return real(self, rows, tile, choose)

    monkeypatch.setattr(host_search._Rooms, "put", counted)
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    own, numbers = np.full(100, -1), np.arange(100)
    for queries, mine, products in ((rows, numbers, 5500), (rows[:], own, 5500),
                                    (rows.copy(), numbers, 10_000),
                                    (rows, numbers[::-1], 10_000)):  # fmt: skip
        done.clear()
        list(host_search.blocks(queries, rows, 3, mine))
        assert sum(done) == products
    monkeypatch.setattr(host_search, "_ROOM", 2 * 3 * 100 - 1)  # lists of all rows are too many
    done.clear()
    list(host_search.blocks(rows, rows, 3, numbers))
    assert sum(done) == 10_000


def test_blocks_come_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(host_search, "_QUERIES", 4)
    begun, real = [], host_search._search

    def counted(block, *rest):
        begun.append(len(block))
        return real(block, *rest)

    monkeypatch.setattr(host_search, "_search", counted)
    rows, before = np.eye(40, dtype=np.float32), threading.active_count()
    first = next(found := host_search.blocks(rows.copy(), rows, 2, np.full(40, -1)))
    assert len(first[0]) == 4 and begun == [4]
    found.close()
    assert threading.active_count() == before


def test_memory_keeps_to_its_limit(monkeypatch):
    monkeypatch.setattr(host_search, "_ROOM", 10 * (100 + 2 * 3))
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    blocks = list(host_search.blocks(rows.copy(), rows, 3, np.full(100, -1)))
    assert [len(scores) for scores, _ in blocks] == [10] * 10


@pytest.mark.parametrize("mutual", [False, True])
def test_what_goes_wrong_in_a_thread_is_raised(mutual, monkeypatch):
    monkeypatch.setattr(host_search, "_merge", None)
    rows = np.eye(2, dtype=np.float32)
    queries = rows if mutual else rows.copy()
    with pytest.raises(TypeError, match="not callable"):
        list(host_search.blocks(queries, rows, 1, np.full(2, -1)))


def test_cpus_are_searched_by_it():
    assert retrieval._on_host()
