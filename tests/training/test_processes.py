"""The loop in several processes: the same parameters as in one, to the rounding of its type."""

import os

import numpy as np
import pytest

from tests.test_hosts import end, start

_FIT = """
import pathlib, sys
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
dtype, steps, folder, devices = sys.argv[1:5]
steps, folder = int(steps), pathlib.Path(folder)
jax.config.update("jax_num_cpu_devices", int(devices))
jax.config.update("jax_enable_x64", dtype == "float64")
from fgjax import hosts
from fgjax.config import Data
from fgjax.data import loading
from fgjax.training import checkpoints, fit
if int(sys.argv[6]) > 1:
    hosts.join(sys.argv[5], int(sys.argv[6]), int(sys.argv[7]))

rows = np.random.default_rng(0).standard_normal((64, 5)).astype(dtype)

class Net(nnx.Module):
    def __init__(self, rngs):
        kinds = {"rngs": rngs, "param_dtype": dtype, "dtype": dtype}
        self.first, self.second = nnx.Linear(5, 16, **kinds), nnx.Linear(16, 3, **kinds)
        self.norm = nnx.BatchNorm(16, momentum=0.9, **kinds)

    def __call__(self, x):
        return self.second(jnp.tanh(self.norm(self.first(x))))

def transform(position, index):
    return {"x": rows[index], "label": np.int32(index % 4)}

def loss(model, batch, statistics, key):
    # Every example meets every other, whichever device it lies on.
    y = model(batch["x"])
    same = batch["label"][:, None] == batch["label"][None]
    distance = jnp.sum(jnp.square(y[:, None] - y[None]), axis=-1)
    noise = jax.random.normal(key, y.shape, y.dtype)
    value = jnp.mean(jnp.where(same, distance, jax.nn.relu(1 - distance))) + jnp.mean(y * noise)
    return value, {"mean": jnp.mean(y)}

model = Net(nnx.Rngs(3))
nnx.update(model, jax.tree.map(lambda x: x.astype(dtype), nnx.state(model)))  # statistics, too
stream = loading.stream(np.arange(64), transform, seed=1)
batches = fit.epoch_batches(stream, 64, 16, Data(workers=0))
fit.fit(
    model, loss, batches, optimizer=optax.sgd(0.1, momentum=0.9), epochs=steps // 4,
    key=jax.random.key(1), folder=folder, writing="",
)
if not hosts.index():
    leaves = jax.tree.leaves(checkpoints.model_state(model))
    np.savez(folder / "end.npz", *[np.asarray(leaf) for leaf in leaves])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"), [("float64", 20, 1e-9), ("float32", 4, 1e-4)]
)
def test_two_processes_compute_what_one_does(dtype, steps, tolerance, tmp_path):
    found = {}
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    environment = {k: v for k, v in environment.items() if not k.lower().endswith("_proxy")}
    for processes, devices in ((1, 1), (2, 2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        words = ("-c", _FIT, dtype, steps, folder, devices)
        logs = tmp_path / f"logs{processes}"
        end(start(words, processes, environment=environment, logs=logs), logs)
        with np.load(folder / "end.npz") as arrays:
            found[processes] = [arrays[name] for name in arrays.files]
    assert len(found[1]) == len(found[2]) == 8
    assert all(array.dtype == dtype for array in found[1])
    for one, two in zip(found[1], found[2], strict=True):
        np.testing.assert_allclose(two, one, rtol=tolerance, atol=tolerance)
