"""Eq. 10 by reference as a running average, against plain loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import main
from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.methods import lapm
from fgjax.methods.lapm.running_margins import RunningMargins
from fgjax.training import checkpoints


class Oracle:
    """The same, one set at a time; `decay` of a reference and of everything."""

    def __init__(self, rows, pairs, decay, decay_of_all):
        self.mean, self.count = np.zeros((rows, pairs)), np.zeros(rows, int)
        self.overall, self.spread = np.zeros(pairs), np.zeros(pairs)
        self.steps, self.decay, self.decay_of_all = [0, 0], decay, decay_of_all

    def update(self, index, distances, negative):
        before, known = self.mean[index].copy(), self.count[index] > 0
        for b in np.flatnonzero(negative):
            self.count[index[b]] += 1
        for b in np.flatnonzero(negative):
            n = self.count[index[b]]
            share = max(1 / n, 1 - self.decay)
            self.mean[index[b]] += share * (distances[b] - before[b])
        for which, (name, values, rows) in enumerate((
            ("overall", distances, negative),
            ("spread", (distances - before) ** 2, negative & known),
        )):  # fmt: skip
            if rows.any():
                self.steps[which] += 1
                share = max(1 / self.steps[which], 1 - self.decay_of_all)
                old = getattr(self, name)
                setattr(self, name, old + share * (values[rows].mean(axis=0) - old))


def test_averages_are_those_of_loops():
    rng = np.random.default_rng(0)
    found = RunningMargins(7, 2, decay=0.75, decay_of_all=0.9)
    wanted = Oracle(7, 2, 0.75, 0.9)
    for step in range(40):
        index = rng.permutation(7)[:4]
        distances = rng.uniform(1, 3, (4, 2)) + index[:, None]
        negative = rng.integers(0, 2, 4).astype(bool) if step else np.zeros(4, bool)
        found.update(jnp.asarray(index), jnp.asarray(distances, jnp.float32),
                     jnp.asarray(negative, jnp.float32))  # fmt: skip
        wanted.update(index, distances, negative)
    np.testing.assert_allclose(found.mean[...], wanted.mean, rtol=1e-5)
    np.testing.assert_array_equal(found.count[...], wanted.count)
    np.testing.assert_allclose(found.overall[...], wanted.overall, rtol=1e-5)
    np.testing.assert_allclose(found.spread[...], wanted.spread, rtol=1e-5)
    # A reference keeps its own level, which one mean over all would lose.
    assert np.ptp(np.asarray(found.mean[...])[:, 0]) > 4
    nothing = jnp.zeros((3, 2))
    given = found.statistics(jnp.array([2, 5, 2]), nothing, jnp.ones(3))
    np.testing.assert_allclose(given[1].m1, wanted.mean[[2, 5, 2], 1], rtol=1e-5)
    np.testing.assert_allclose(given[1].sigma, np.sqrt(wanted.spread[1]) * np.ones(3), rtol=1e-5)


def test_before_anything_is_known_a_batch_stands_for_itself():
    margins = RunningMargins(5, 1)
    distances = jnp.array([[1.0], [3.0], [100.0]])
    (first,) = margins.statistics(jnp.arange(3), distances, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(first.m1, [2, 2, 2])
    np.testing.assert_allclose(first.sigma, [1, 1, 1])
    margins.update(jnp.arange(3), distances, jnp.array([1.0, 1.0, 0.0]))
    (then,) = margins.statistics(jnp.array([0, 1, 2, 4]), jnp.zeros((4, 1)), jnp.ones(4))
    np.testing.assert_allclose(then.m1, [1, 3, 2, 2])  # those that were never met: the mean


class Features(nnx.Module):
    """Features straight from the pixels, with running margins beside them."""

    def __init__(self, rows):
        self.margins = RunningMargins(rows, len(lapm.PAIRS))

    def __call__(self, images, *, key=None):
        flat = images.reshape(len(images), -1).astype(jnp.float32) / 64 - 2
        return {"pooled": flat[:, :4], "logits": flat[:, 4:9]}


def test_the_loss_takes_the_margins_before_and_leaves_those_after():
    rng = np.random.default_rng(0)
    given = {
        "image": jnp.asarray(rng.integers(0, 255, (3, 4, 2, 2, 3)).astype(np.uint8)),
        "labels": jnp.asarray(rng.integers(0, 5, (3, 4, 3)).astype(np.int32)),
        "weights": jnp.asarray(rng.dirichlet(np.ones(3), (3, 4)).astype(np.float32)),
        "is_positive": jnp.array([1.0, 0.0, 0.0]),
        "label": jnp.zeros(3, jnp.int32),
        "index": jnp.array([0, 4, 2], jnp.int32),
    }
    model = Features(6)
    running = lapm.MarginLoss(0.8, 1.0, True, "running", True)
    fixed = lapm.MarginLoss(0.8, 1.0, True, "reference", True)
    running(model, given, {}, None)
    assert np.asarray(model.margins.count[...]).tolist() == [0, 0, 1, 0, 1, 0]
    stored = np.array(model.margins.mean[...])
    sigma = np.sqrt(np.asarray(model.margins.spread[...]))
    table = {
        pair: {"m1": jnp.asarray(stored[:, p]), "sigma": jnp.full(6, 0.25)}
        for p, pair in enumerate(lapm.PAIRS)
    }
    model.margins.spread[...] = jnp.full(4, 0.0625)
    model.margins.steps[...] = jnp.array([1, 1])
    other = {**given, "image": 255 - given["image"], "is_positive": jnp.zeros(3),
             "index": jnp.array([2, 4, 2])}  # fmt: skip
    value, _ = running(model, other, {}, None)
    wanted, _ = fixed(model, other, table, None)
    assert float(value) == pytest.approx(float(wanted), rel=1e-5) and not sigma.any()
    assert np.asarray(model.margins.count[...]).tolist() == [0, 0, 3, 0, 2, 0]
    assert not np.allclose(model.margins.mean[...][2], stored[2])


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_a_run_keeps_the_margins_in_its_checkpoints(tiny_config, tmp_path):
    """Stopped in the middle and resumed, it ends as if it had not been."""
    config = override(tiny_config, {
        "method.scope": "running", "method.margin.epochs": 2, "method.parts": "grid",
        "checkpoints.every_steps": 1,
    })  # fmt: skip
    whole = main.run(config, tmp_path / "whole", figures=False)

    class Stopped(Exception):
        pass

    saved, count = checkpoints.Checkpoints.save, []

    def save(self, step, state, **options):
        saved(self, step, state, **options)
        if "margins" in state["rest"]:
            count.append(step)
            if len(count) == 3:
                raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save)
        with pytest.raises(Stopped):
            main.run(config, tmp_path / "halves", figures=False)
    assert len(count) == 3
    halves = main.run(config, tmp_path / "halves", figures=False)
    assert halves["metrics"] == whole["metrics"]


def test_a_running_margin_is_never_fixed(tiny_config):
    with pytest.raises(UserError, match="a running margin adapts"):
        check(override(tiny_config, {"method.scope": "running", "method.adaptive_margin": False}),
              devices=4)  # fmt: skip


def test_it_runs_under_jit_with_a_batch_on_four_devices():
    margins = RunningMargins(8, 2)
    graph, state = nnx.split(margins)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shard = jax.NamedSharding(mesh, jax.P("data"))
    index = jax.device_put(jnp.arange(8), shard)
    distances = jax.device_put(jnp.arange(16.0).reshape(8, 2), shard)

    @jax.jit
    def step(state):
        merged = nnx.merge(graph, state)
        merged.update(index, distances, jnp.ones(8))
        return nnx.state(merged)

    found = step(state)
    np.testing.assert_allclose(found["mean"][...], np.arange(16.0).reshape(8, 2))
    np.testing.assert_allclose(found["overall"][...], [7, 8])
