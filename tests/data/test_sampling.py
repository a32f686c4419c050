"""P × K batches: their shape, their independence of workers, their refusals."""

import numpy as np
import pytest

from fgjax.config import Data
from fgjax.data import loading
from fgjax.data.sampling import ClassBatches, class_stream
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


@pytest.mark.parametrize(("size", "per_class"), [(10, 3), (24, 3)])
def test_impossible_batches_are_refused(size, per_class):
    with pytest.raises(UserError, match="choose a batch size"):
        rows(size=size, per_class=per_class)
