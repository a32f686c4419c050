"""SIGTERM inside and outside of a loop, and that the loop goes on where it was saved."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax.training import preemption
from fgjax.training.logging import read_metrics
from fgjax.training.preemption import Preempted
from tests.training import test_fit as fits


@pytest.fixture(autouse=True)
def handled():
    before = signal.getsignal(signal.SIGTERM)
    preemption.install()
    yield
    signal.signal(signal.SIGTERM, before)
    preemption._state.asked = False


def test_outside_of_a_loop_it_ends_at_once():
    with pytest.raises(Preempted, match="stopped at once"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_loop_is_asked_and_the_second_time_told():
    with preemption.loop() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_nobody_catches_it_by_the_way():
    with pytest.raises(Preempted):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("caught")


def test_fit_saves_the_step_and_goes_on_there(tmp_path):
    ask = []

    def before_epoch(model, epoch, key):
        del model, key
        if ask and epoch == 1:
            os.kill(os.getpid(), ask.pop())
        return {"scale": jnp.float32(1 + epoch)}

    whole = fits.train(tmp_path / "whole", before_epoch=before_epoch)
    ask.append(signal.SIGTERM)
    with pytest.raises(Preempted, match="is saved at step 4 of 6; the same command goes on there"):
        fits.train(tmp_path / "cut", before_epoch=before_epoch)
    preemption._state.asked = False
    again = fits.train(tmp_path / "cut", before_epoch=before_epoch)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert len(read_metrics(tmp_path / "cut")) == 2  # an epoch is told of once
