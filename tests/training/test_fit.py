"""The loop: devices, resuming, freezing, compiling, and stopping on NaN."""

import json
import logging
import os
import subprocess
import sys

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax.config import Checkpoints, Data
from fgjax.errors import UserError
from fgjax.models import layers
from fgjax.training import checkpoints, fit
from fgjax.training.logging import read_metrics


class Net(nnx.Module):
    """Two convolutions with batch norm and a head."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.body = nnx.List([layers.Conv(3, 4, 3, rngs=rngs), layers.BatchNorm(4)])
        self.head = layers.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(layers.global_average_pool(layers.sequential(self.body, x)))


def example(position, index):
    rng = np.random.default_rng([position, 1])
    label = index % 3
    image = rng.normal(size=(6, 6, 3)).astype(np.float32)
    image[..., label] += 1
    return {"image": image, "label": np.int32(label)}


def batches(steps=3, batch_size=8):
    dataset = grain.MapDataset.source(np.arange(24)).seed(0).shuffle().repeat()
    dataset = dataset.map_with_index(lambda p, i: example(int(p), int(i)))
    return fit.Batches(dataset, batch_size, steps, Data(workers=0))


def loss(model, batch, statistics, key):
    logits = model(batch["image"])
    noise = jax.random.normal(key, logits.shape) * 0.01
    scale = statistics.get("scale", jnp.float32(1)) if statistics else jnp.float32(1)
    entropy = optax.softmax_cross_entropy_with_integer_labels(
        logits * scale + noise, batch["label"]
    )
    return jnp.mean(entropy), {}


def train(folder, model=None, epochs=2, **options):
    model = model or Net()
    given = batches(options.pop("steps", 3))
    fit.fit(
        model, options.pop("loss", loss), given,
        optimizer=options.pop("optimizer", optax.sgd(0.1, momentum=0.9)), epochs=epochs,
        key=jax.random.key(1), folder=folder, **options,
    )  # fmt: skip
    return checkpoints.model_state(model)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_it_learns(tmp_path):
    model = Net()
    before = np.asarray(model.body[1].mean[...])
    after = train(tmp_path, model, epochs=12)
    assert np.abs(after["body"][1]["mean"] - before).max() > 1e-3  # batch norm was training
    assert model.body[1].use_running_average  # and is handed back in evaluation mode
    lines = read_metrics(tmp_path)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["images_per_second"] > 0


class Interrupted(Exception):
    pass


def interrupting(at):
    """A `before_epoch` that stops the run before an epoch."""
    stopped = []

    def before_epoch(model, epoch, key):
        if epoch == at and not stopped:
            stopped.append(epoch)
            raise Interrupted
        return {"scale": 1 + jax.random.uniform(key) + jnp.mean(model.head.kernel[...])}

    return before_epoch


@pytest.mark.parametrize("at", [1, 2])
def test_resuming_at_an_epoch_ends_with_the_same_parameters(tmp_path, at):
    whole = train(tmp_path / "a", epochs=3, before_epoch=interrupting(-1))
    with pytest.raises(Interrupted):
        train(tmp_path / "b", epochs=3, before_epoch=interrupting(at))
    assert_same(whole, train(tmp_path / "b", epochs=3, before_epoch=interrupting(-1)))
    assert [line["step"] for line in read_metrics(tmp_path / "b")] == [3, 6, 9]


def test_resuming_in_mid_epoch_keeps_its_statistics(tmp_path):
    """A crash at step 5 of 6, saved every 2: statistics of epoch 2 cannot be recomputed then."""
    whole = train(tmp_path / "a", before_epoch=interrupting(-1))
    calls = []

    def crash(model, batch, statistics, key):
        return loss(model, batch, statistics, key)

    original = fit.loading.batches

    def breaking(dataset, *, start, **options):
        for number, batch in enumerate(original(dataset, start=start, **options)):
            calls.append(start + number)
            if start == 0 and number == 5:
                raise Interrupted
            yield batch

    fit.loading.batches, saved = breaking, original
    try:
        with pytest.raises(Interrupted):
            train(tmp_path / "b", before_epoch=interrupting(-1), loss=crash,
                  saving=Checkpoints(every_steps=2))  # fmt: skip
        found = train(tmp_path / "b", before_epoch=interrupting(-1), loss=crash,
                      saving=Checkpoints(every_steps=2))  # fmt: skip
    finally:
        fit.loading.batches = saved
    assert calls[-2:] == [4, 5]  # it went on where it had stopped
    assert_same(whole, found)
    means = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in "ab"]
    assert means[0] == means[1]  # of the cut epoch, too, of all its steps


def test_a_finished_stage_is_left_as_it_is(tmp_path):
    whole = train(tmp_path)
    assert_same(whole, train(tmp_path))


def test_a_nan_stops_the_run_and_leaves_the_checkpoint(tmp_path):
    def bad(model, batch, statistics, key):
        value, metrics = loss(model, batch, statistics, key)
        return jnp.where(statistics["epoch"] > 0, jnp.nan, 1.0) * value, metrics

    epochs = lambda model, epoch, key: {"epoch": jnp.int32(epoch)}  # noqa: E731
    with pytest.raises(UserError, match="loss is nan at step 4"):
        train(tmp_path, loss=bad, before_epoch=epochs)
    store = checkpoints.Checkpoints(tmp_path)
    assert store.latest() == 3
    store.close()
    good = train(tmp_path, before_epoch=epochs)  # the same folder goes on
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good))


def test_frozen_modules_keep_weights_and_statistics(tmp_path):
    model = Net()
    before = checkpoints.model_state(model)
    head = nnx.All(nnx.Param, nnx.PathContains("head"))
    after = train(tmp_path, model, trainable=head)
    assert_same(before["body"], after["body"])
    assert not np.array_equal(before["head"]["kernel"], after["head"]["kernel"])


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "ema": 0.9}])
def test_the_step_compiles_once(tmp_path, caplog, options):
    caplog.set_level(logging.DEBUG, "fgjax.training.fit")
    statistics = lambda model, epoch, key: {"scale": jnp.float32(epoch + 1)}  # noqa: E731
    train(tmp_path, epochs=4, before_epoch=statistics, **options)
    assert "the step was compiled 1 times" in caplog.text


_ONE_DEVICE = """
import sys, json, pathlib
sys.path.insert(0, {root!r})
from tests.training import test_fit as t
import jax
assert jax.device_count() == {devices}
t.train(pathlib.Path({folder!r}), epochs=3)
"""


@pytest.mark.slow
def test_one_device_and_four_give_the_same_losses(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    curves = {}
    for devices in (1, 4):
        folder = str(tmp_path / str(devices))
        flags = f"--xla_force_host_platform_device_count={devices}"
        code = _ONE_DEVICE.format(root=root, devices=devices, folder=folder)
        subprocess.run(
            [sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": flags}
        )
        lines = (tmp_path / str(devices) / "metrics.jsonl").read_text().splitlines()
        curves[devices] = [json.loads(line)["loss"] for line in lines]
    np.testing.assert_allclose(curves[1], curves[4], rtol=1e-4)


def test_every_step_has_a_key_of_its_own(tmp_path):
    """Folded from the stage's key and the step: what a resumed run draws, too."""

    def drawing(model, batch, statistics, key):
        value, _ = loss(model, batch, statistics, key)
        return value, {"drawn": jax.random.uniform(key)}

    train(tmp_path, epochs=4, steps=1, loss=drawing)  # one step an epoch: metrics are its own
    found = [line["drawn"] for line in read_metrics(tmp_path)]
    keys = [jax.random.fold_in(jax.random.key(1), step) for step in range(4)]
    np.testing.assert_allclose(found, [float(jax.random.uniform(key)) for key in keys], rtol=1e-6)
    assert len(set(found)) == 4
