"""P × K batches: their shape, their independence of workers, their refusals."""

import numpy as np
import pytest

from fgjax.config import Data
from fgjax.data import loading
from fgjax.data.mixing import Donors
from fgjax.data.sampling import AnchorBatches, ClassBatches, class_stream
from fgjax.errors import UserError

LABELS = np.repeat(np.arange(7), [1, 4, 5, 6, 9, 9, 9])


def rows(seed=0, batch=0, size=12, per_class=3):
    chosen = ClassBatches(LABELS, np.arange(len(LABELS)), size, per_class, seed)
    return np.array([chosen.row(batch * size + slot) for slot in range(size)])


@pytest.mark.parametrize("batch", range(20))
def test_a_batch_has_p_classes_of_k_different_images(batch):
    labels = LABELS[rows(batch=batch)].reshape(4, 3)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0].tolist())) == 4
    for group, label in zip(rows(batch=batch).reshape(4, 3), labels[:, 0]):
        assert len(set(group.tolist())) == min(3, (label == LABELS).sum())


def test_batches_differ_and_repeat_by_seed():
    assert not np.array_equal(rows(batch=0), rows(batch=1))
    np.testing.assert_array_equal(rows(seed=5), rows(seed=5))
    assert not np.array_equal(rows(seed=5), rows(seed=6))
    seen = {int(r) for batch in range(40) for r in rows(batch=batch)}
    assert seen == set(range(len(LABELS)))


def test_held_out_rows_are_never_drawn():
    allowed = np.arange(0, len(LABELS), 2)
    chosen = ClassBatches(LABELS, allowed, 6, 2, 0)
    assert {chosen.row(k) for k in range(300)} <= set(allowed.tolist())


def test_workers_and_resuming_change_nothing():
    chosen = ClassBatches(LABELS, np.arange(len(LABELS)), 8, 2, 3)
    stream = class_stream(chosen, lambda position, row: {"row": np.int32(row)})
    whole = [b["row"] for b in loading.batches(stream, batch_size=8, stop=6)]
    later = [b["row"] for b in loading.batches(stream, batch_size=8, start=3, stop=6)]
    data = Data(workers=0, prefetch=3)
    again = [b["row"] for b in loading.batches(stream, batch_size=8, stop=6, data=data)]
    np.testing.assert_array_equal(whole[3:], later)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(whole[0], [chosen.row(k) for k in range(8)])


def test_a_transform_is_told_the_position_and_the_row():
    chosen = ClassBatches(LABELS, np.arange(len(LABELS)), 4, 2, 3)
    stream = class_stream(chosen, lambda position, row: (position, row))
    assert [stream[k] for k in (0, 5, 1000)] == [(k, chosen.row(k)) for k in (0, 5, 1000)]
    assert all(type(value) is int for value in stream[5])


def test_rows_are_those_of_the_papers_runs():
    """Drawn by (seed, batch), then by (seed, batch, class): a part of every result."""
    chosen = ClassBatches(LABELS, np.arange(len(LABELS)), 6, 3, 7)
    classes = np.random.default_rng([7, 4]).permutation(7)[:2]
    wanted = []
    for label in classes.tolist():
        members = np.flatnonzero(label == LABELS)
        order = np.random.default_rng([7, 4, label]).permutation(members)
        wanted += np.resize(order, 3).tolist()
    assert [chosen.row(24 + slot) for slot in range(6)] == wanted


@pytest.mark.parametrize(("size", "per_class", "classes"), [(10, 3, "3.33333"), (24, 3, "8")])
def test_impossible_batches_are_refused(size, per_class, classes):
    with pytest.raises(UserError) as refused:
        rows(size=size, per_class=per_class)
    assert str(refused.value) == (
        f"batches of {size} with 3 images of each class need {classes} classes, but 7 train: "
        "choose a batch size that is a multiple of 3 and at most 21."
    )
    assert len(rows(size=21)) == 21  # as many as there are


# Anchors and their donors: one law for both


ZIPF = np.repeat(np.arange(46), np.maximum(2, (400 / np.arange(1, 47)).astype(int)))


def test_every_image_is_an_anchor_as_often_as_any_other():
    chosen = AnchorBatches(LABELS, np.arange(len(LABELS)), 12, 3, 0)
    count = len(LABELS)
    rows = np.array([chosen.row(k) for k in range(3 * count * 4)]).reshape(-1, 3)
    # 43 anchors, the others of its class, and no image twice beside itself but where it is alone
    np.testing.assert_array_equal(np.bincount(rows[:, 0], minlength=count), 4)
    assert (LABELS[rows] == LABELS[rows[:, :1]]).all()
    for anchor, *others in rows.tolist():
        members = (LABELS[anchor] == LABELS).sum()
        assert members == 1 or anchor not in others
        assert len(set(others)) == min(2, max(members - 1, 1))
    again = AnchorBatches(LABELS, np.arange(len(LABELS)), 12, 3, 0)
    assert [again.row(k) for k in (400, 5, 300)] == rows.ravel()[[400, 5, 300]].tolist()
    assert [AnchorBatches(LABELS, np.arange(43), 12, 3, 1).row(k) for k in range(0, 30, 3)] != (
        rows[:10, 0].tolist()
    )


def test_a_batch_of_anchors_has_two_classes():
    labels = np.array([0] * 60 + [1])
    chosen = AnchorBatches(labels, np.arange(61), 4, 2, 0)
    for batch in range(70):
        assert len({int(labels[chosen.row(4 * batch + slot)]) for slot in range(4)}) == 2
    with pytest.raises(UserError, match="do not hold two classes: choose a multiple of 3 from 6"):
        AnchorBatches(labels, np.arange(61), 3, 3, 0)


def test_donors_have_the_law_of_anchors():
    """On Zipf classes: what a part's class tells about whether it was replaced is nothing."""
    donors = Donors(ZIPF, np.arange(len(ZIPF)))
    rng = np.random.default_rng(0)
    anchors = rng.permutation(np.tile(np.arange(len(ZIPF)), 20))
    drawn = np.array([donors.different(int(anchor), 2, rng) for anchor in anchors])
    shares = np.bincount(ZIPF) / len(ZIPF)
    for place in range(2):
        found = np.bincount(ZIPF[drawn[:, place]], minlength=46) / len(drawn)
        spread = np.sqrt(shares * (1 - shares) / len(drawn))
        assert (np.abs(found - shares) < 5 * spread).all()
    classes = np.stack([ZIPF[anchors], *ZIPF[drawn].T])
    assert (classes[0] != classes[1]).all() and (classes[0] != classes[2]).all()
    assert (classes[1] != classes[2]).all()
    # A classifier of the class alone, the best there is, is right in half of the cases.
    replaced = np.bincount(ZIPF[drawn.ravel()], minlength=46) / drawn.size
    best = np.maximum(replaced, np.bincount(ZIPF[anchors], minlength=46) / len(anchors)).sum() / 2
    assert best < 0.515
    every = np.bincount(drawn[:, 0], minlength=len(ZIPF))  # and every image of a class
    assert every.min() > 0 and every.max() < 60


def test_where_a_class_is_most_of_all_donors_are_what_is_left():
    labels = np.array([0] * 50 + [1] * 4 + [2] * 6)
    donors = Donors(labels, np.arange(60))
    rng = np.random.default_rng(0)
    for anchor in (0, 51, 59):
        found = np.array([labels[donors.different(anchor, 2, rng)] for _ in range(50)])
        assert (found != labels[anchor]).all() and (found[:, 0] != found[:, 1]).all()
    with pytest.raises(UserError, match="only one trains"):
        Donors(np.zeros(5, int), np.arange(5)).different(0, 1, rng)
