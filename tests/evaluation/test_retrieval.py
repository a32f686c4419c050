"""Retrieval: against brute force in float64, values worked out by hand, ties, blocks, devices."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import host_search, nearest, ranked_metrics, retrieval, retrieval_metrics
from fgjax.evaluation.retrieval import normalize_rows
from fgjax.training import sharding

KS = {"recall_ks": (1, 2, 4), "precision_ks": (1, 3), "map_ks": (1, 3)}


@pytest.fixture(params=["host", "devices"], autouse=True)
def where(request, monkeypatch):
    """Each test here is passed by both searches."""
    monkeypatch.setattr(retrieval, "_on_host", lambda: request.param == "host")
    return request.param


both = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def brute_force(queries, labels, database=None, database_labels=None, ks=KS):
    """Every query's full ranking, from the definitions, in float64."""
    alone = database is None
    database = queries if alone else database
    database_labels = labels if alone else database_labels
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    similarity = unit(queries.astype(float)) @ unit(database.astype(float)).T
    totals = {}
    for q, label in enumerate(labels):
        order = sorted(range(len(database)), key=lambda j: (-round(similarity[q, j], 9), j))
        relevant = [database_labels[j] == label for j in order if not (alone and j == q)]
        precision = [sum(relevant[: k + 1]) / (k + 1) for k in range(len(relevant))]
        total = sum(relevant)

        def average(k, relevant=relevant, precision=precision):
            return sum(p for p, r in zip(precision[:k], relevant[:k]) if r)

        row = {f"recall@{k}": float(any(relevant[:k])) for k in ks["recall_ks"]}
        row |= {f"precision@{k}": sum(relevant[:k]) / k for k in ks["precision_ks"]}
        row |= {f"map@{k}": average(k) / max(sum(relevant[:k]), 1) for k in ks["map_ks"]}
        row["map@r"] = average(total) / max(total, 1)
        row["r_precision"] = sum(relevant[:total]) / max(total, 1)
        for name, value in row.items():
            totals[name] = totals.get(name, 0) + value / len(labels)
    return totals


@both
@given(
    seed=st.integers(0, 10**6), size=st.integers(2, 40), classes=st.integers(1, 6),
    coarse=st.booleans(),
)  # fmt: skip
def test_leave_one_out_equals_brute_force(seed, size, classes, coarse):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3))
    if coarse:  # many exact ties: axis-aligned unit vectors
        x = np.eye(3)[rng.integers(0, 3, size)]
    labels = rng.integers(0, classes, size)
    found, wanted = retrieval_metrics(x, labels, **KS), brute_force(x, labels)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_database_of_its_own_equals_brute_force():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(17, 5)), rng.integers(0, 4, 17)
    d, e = rng.normal(size=(33, 5)), rng.integers(0, 5, 33)
    found = retrieval_metrics(x, y, database=d, database_labels=e, **KS)
    for name, value in brute_force(x, y, d, e).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_values_worked_out_by_hand():
    """A query's ranking is hit, miss, hit, miss: P = 1, 1/2, 2/3, 1/2 and R = 2."""
    angles = np.deg2rad([0, 10, 20, 30, 40])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = retrieval_metrics(
        points[:1], np.array([7]), database=points[1:], database_labels=np.array([7, 1, 7, 1]),
        recall_ks=(1, 2), precision_ks=(1, 2, 3, 4), map_ks=(1, 2, 3, 4),
    )  # fmt: skip
    wanted = {
        "recall@1": 1, "recall@2": 1,
        "precision@1": 1, "precision@2": Fraction(1, 2), "precision@3": Fraction(2, 3),
        "precision@4": Fraction(1, 2),
        "map@1": 1, "map@2": 1,  # one found, at rank 1
        "map@3": Fraction(5, 6), "map@4": Fraction(5, 6),  # (1 + 2/3) / 2
        "map@r": Fraction(1, 2),  # rank 1 alone lies in the first two: 1 / 2
        "r_precision": Fraction(1, 2),
        "queries": 1, "queries_without_relevant": 0,
    }  # fmt: skip
    assert found == {name: pytest.approx(float(value)) for name, value in wanted.items()}


def test_the_papers_identity_at_one():
    """HDCL Table 4: P@1 = R@1 = mAP@1."""
    rng = np.random.default_rng(3)
    found = retrieval_metrics(rng.normal(size=(50, 4)), rng.integers(0, 6, 50))
    assert found["recall@1"] == found["precision@1"] == pytest.approx(found["map@1"])
    assert 0 < found["recall@1"] < 1


def test_a_lone_query_is_counted_and_scores_nothing():
    x, y = np.eye(4), np.array([0, 0, 1, 2])
    found = retrieval_metrics(x, y, recall_ks=(1, 3), precision_ks=(1,), map_ks=(1,))
    assert found["queries"] == 4 and found["queries_without_relevant"] == 2
    assert found["recall@3"] == 0.5
    # All similarities are equal: the lowest index that is not the query itself comes first.
    assert found["recall@1"] == 0.5 and found["map@r"] == 0.5


def test_ties_go_to_the_lower_index_across_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "_DATABASE_BLOCK", 4)
    monkeypatch.setattr(host_search, "_TILE", 4)
    database = np.tile(np.eye(2, dtype=np.float32), (8, 1))
    scores, indices = nearest(database[:2], database, count=5, own=np.array([4, 3]))
    np.testing.assert_array_equal(indices, [[0, 2, 6, 8, 10], [1, 5, 7, 9, 11]])
    np.testing.assert_array_equal(scores, np.ones((2, 5)))


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    queries, database = rng.normal(size=(37, 6)), rng.normal(size=(91, 6))
    whole = nearest(queries, database, count=7)
    monkeypatch.setattr(retrieval, "_DATABASE_BLOCK", 16)
    monkeypatch.setattr(retrieval, "_QUERY_BLOCK", 8)
    monkeypatch.setattr(host_search, "_TILE", 16)
    monkeypatch.setattr(host_search, "_QUERIES", 8)
    for one, other in zip(whole, nearest(queries, database, count=7)):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_asking_for_more_than_there_is():
    scores, indices = nearest(np.eye(3), np.eye(3), count=5, own=np.arange(3))
    assert (indices[:, 2:] == -1).all() and np.isneginf(scores[:, 2:]).all()
    found = retrieval_metrics(np.eye(3), np.array([0, 0, 1]))
    assert found["recall@32"] == pytest.approx(2 / 3)


def test_no_device_gathers_the_scores():
    """Four devices, each with its own rows: nothing is exchanged at all."""
    assert jax.device_count() == 4
    batch = sharding.shard((np.zeros((8, 5), np.float32), np.zeros(8, np.int32)))
    tiles = sharding.replicate(np.zeros((3, 16, 5), np.float32))
    text = retrieval._step(6, 48, sharding.data_mesh()).lower(*batch, tiles).compile().as_text()
    assert "f32[2,16]" in text  # two rows of scores a device
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text


@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused_in_words():
    x = np.ones((6, 2))
    x[[2, 4], 1] = np.nan
    with pytest.raises(UserError, match="2 of 6 embeddings are not finite, the first at index 2"):
        retrieval_metrics(x, [0] * 6)
    with pytest.raises(UserError, match="different models"):
        nearest(np.ones((2, 3)), np.ones((2, 4)), count=1)
    with pytest.raises(UserError, match=r"labels have shape \(3,\)"):
        retrieval_metrics(np.ones((2, 3)), [0, 1, 2])
    with pytest.raises(UserError, match="must be positive"):
        retrieval_metrics(np.ones((2, 3)), [0, 1], recall_ks=(0,))
    with pytest.raises(UserError, match="not empty"):
        retrieval_metrics(np.ones((0, 3)), [])


def refusal(call):
    with pytest.raises(UserError) as found:
        call()
    return str(found.value)


@pytest.mark.usefixtures("unchecked_types")
def test_refusals_word_for_word():
    x, y = np.ones((2, 3)), np.zeros(2, int)
    broken = np.where(np.eye(3) > 0, np.inf, 1.0)[:2]
    assert refusal(lambda: retrieval.normalize_rows(np.ones(3))) == (
        "embeddings have shape (3,), but must be [N, D] and not empty."
    )
    assert refusal(lambda: retrieval.normalize_rows(np.ones((2, 0)), "rows")) == (
        "rows have shape (2, 0), but must be [N, D] and not empty."
    )
    assert refusal(lambda: retrieval_metrics(broken, y)) == (
        "2 of 2 embeddings are not finite, the first at index 0: the model that made them has "
        "diverged."
    )
    assert refusal(lambda: retrieval_metrics(x, y, database=broken, database_labels=y)) == (
        "2 of 2 database embeddings are not finite, the first at index 0: the model that made "
        "them has diverged."
    )
    assert refusal(lambda: nearest(x, np.ones((2, 4)), count=1)) == (
        "queries of depth 3 cannot be searched in a database of depth 4: they come from "
        "different models."
    )
    assert refusal(lambda: nearest(x, x, count=0)) == (
        "0 nearest neighbours were asked for, but at least 1 is needed."
    )
    assert refusal(lambda: retrieval_metrics(x, y[:1])) == (
        "labels have shape (1,), but must be [2]."
    )
    assert refusal(lambda: retrieval_metrics(x, y, database=x, database_labels=y[:1])) == (
        "database_labels have shape (1,), but must be [2]."
    )
    for name in ("recall_ks", "precision_ks", "map_ks"):
        assert refusal(lambda name=name: retrieval_metrics(x, y, **{name: (1, 0)})) == (
            "recall_ks, precision_ks and map_ks must be positive."
        )


def test_unit_rows_by_hand():
    found = retrieval.normalize_rows(np.array([[3.0, 4.0], [0.0, 0.0], [3e-7, -4e-7]]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0.6, -0.8]], rtol=1e-6)
    assert found.dtype == np.float32


def test_the_measures_that_are_asked_for():
    x, y = np.eye(3)[[0, 0, 1, 1, 2, 2]], np.array([0, 0, 1, 1, 2, 0])
    counts = {"queries", "queries_without_relevant", "map@r", "r_precision"}
    assert set(retrieval_metrics(x, y)) == counts | {
        *(f"recall@{k}" for k in (1, 2, 4, 8, 16, 32)),
        *(f"{name}@{k}" for name in ("precision", "map") for k in (1, 5, 10)),
    }  # fmt: skip
    nothing = retrieval_metrics(x, y, recall_ks=(), precision_ks=(), map_ks=())
    assert set(nothing) == counts
    assert (nothing["queries"], nothing["queries_without_relevant"]) == (6, 1)
    # R = 2, 2, 1, 1, 0, 2: found among the first R are 1 of 2, 1 of 2, 1, 1, none, and 1 of 2.
    assert nothing["r_precision"] == pytest.approx((0.5 + 0.5 + 1 + 1 + 0 + 0.5) / 6)
    assert nothing["map@r"] == pytest.approx((0.5 + 0.5 + 1 + 1 + 0 + 0.25) / 6)


def test_a_database_without_anything_relevant():
    x = np.eye(2)
    found = retrieval_metrics(
        x, np.array([0, 1]), database=x, database_labels=np.array([5, 6]),
        recall_ks=(1,), precision_ks=(1,), map_ks=(1,),
    )  # fmt: skip
    assert found == {"recall@1": 0, "precision@1": 0, "map@1": 0, "map@r": 0, "r_precision": 0,
                     "queries": 2, "queries_without_relevant": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("queries", "block", "scores", "rows"),
    [
        (9, 100, 10**6, 12),  # all at once, in whole rows of four devices
        (20, 8, 10**6, 8),
        (40, 100, 16 * 12, 16),  # 12 entries for each query: 6 of scores, 2 · 3 of the lists
        (40, 100, 15 * 12, 16),  # 15, rounded up to the devices
        (40, 100, 1, 4),
    ],
)
def test_a_block_of_queries_keeps_to_its_limits(queries, block, scores, rows, monkeypatch):
    monkeypatch.setattr(retrieval, "_on_host", lambda: False)
    monkeypatch.setattr(retrieval, "_DATABASE_BLOCK", 6)
    monkeypatch.setattr(retrieval, "_QUERY_BLOCK", block)
    monkeypatch.setattr(retrieval, "_SCORES", scores)
    seen = []

    def step(count, size, mesh):
        assert (count, size, mesh.size) == (3, 10, 4)

        def search(given, own, tiles):
            assert tiles.shape == (2, 6, 2) and tiles.dtype == given.dtype == np.float32
            assert (np.asarray(tiles)[1, 4:] == 0).all() and own.dtype == np.int32
            seen.append((len(given), np.asarray(own).tolist()))
            return np.zeros((len(given), 3), np.float32), np.zeros((len(given), 3), np.int32)

        return search

    monkeypatch.setattr(retrieval, "_step", step)
    rng = np.random.default_rng(0)
    found, _ = nearest(rng.normal(size=(queries, 2)), rng.normal(size=(10, 2)), count=3)
    assert found.shape == (queries, 3)
    assert {size for size, _ in seen} == {rows} and len(seen) == -(-queries // rows)
    padding = rows * len(seen) - queries
    assert [x for _, own in seen for x in own] == [-1] * queries + [0] * padding


def test_lists_are_measured_as_the_search_that_made_them():
    rng = np.random.default_rng(3)
    labels = np.array([0] * 7 + [1] * 5 + [2] * 20 + [3])  # the last has nobody to find
    embeddings = rng.normal(size=(len(labels), 4))
    ks = {"recall_ks": (1, 4), "precision_ks": (1, 5), "map_ks": (1, 10)}
    unit_rows = normalize_rows(embeddings)
    _, ranked = nearest(unit_rows, unit_rows, count=19, own=np.arange(len(labels)))
    assert ranked_metrics(ranked, labels, **ks) == retrieval_metrics(embeddings, labels, **ks)
    with pytest.raises(UserError, match=r"must be \[33, 19 or more\]"):
        ranked_metrics(ranked[:, :18], labels, **ks)
