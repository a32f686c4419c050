"""Retrieval: against brute force in float64, values worked out by hand, ties, blocks, devices."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgjax.errors import UserError
from fgjax.evaluation import nearest, retrieval, retrieval_metrics
from fgjax.training import sharding

KS = {"recall_ks": (1, 2, 4), "precision_ks": (1, 3), "map_ks": (1, 3)}


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


@settings(max_examples=20, deadline=None)
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
    text = retrieval._step(6, 48).lower(*batch, tiles).compile().as_text()
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
