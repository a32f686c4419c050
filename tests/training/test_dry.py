"""The step of a dry run: what it says of memory is what XLA and the backend say."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax import models
from fgjax.config import Optimizer
from fgjax.methods.shared.classifier import cross_entropy
from fgjax.models import layers
from fgjax.training import optimizer, sharding
from fgjax.training.dry import AbstractStep

ROOT = pathlib.Path(__file__).parents[2]


def test_parameters_are_updated_where_they_lie():
    """Of a large layer a step holds the weights, their momentum and gradient, and no more."""
    layer = layers.Linear(512, 2048, rngs=nnx.Rngs(0))
    size = 4 * (512 * 2048 + 2048)

    def loss(model, batch, statistics, key):
        return jnp.mean(jnp.square(model(batch["features"]))), {}

    step = AbstractStep(
        layer,
        loss,
        {"features": np.zeros((4, 512), np.float32)},
        optimizer=optax.sgd(0.1, momentum=0.9),
        statistics={},
    )
    memory, _ = step.analyse()
    assert memory.model == memory.optimizer == size
    # Without donation the old weights and momentum would stand beside the new ones: 6 × size.
    assert 2 * size < memory.peak < 5 * size


@pytest.mark.skipif(
    jax.devices()[0].memory_stats() is None,
    reason="this backend does not report its memory (CPUs do not)",
)
def test_memory_is_what_the_backend_reports():
    """In a process of its own, because a device's peak is that since its start."""
    code = "from tests.training.test_dry import measure; measure()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, measured = map(int, done.stdout.split()[-2:])
    assert said == pytest.approx(measured, rel=0.2)


def measure() -> None:
    """Print what a dry run says of a step of ResNet-18, and the device's peak after two steps."""
    size = 32 * jax.device_count()
    model = models.build("resnet18", num_classes=100, rngs=nnx.Rngs(0))
    update = optimizer.make(Optimizer("sgd", 1e-3), steps_per_epoch=1, epochs=1)
    batch = {
        "image": np.zeros((size, 224, 224, 3), np.uint8),
        "label": np.zeros(size, np.int32),
    }
    step = AbstractStep(model, cross_entropy, batch, optimizer=update, statistics={})
    memory, _ = step.analyse()
    assert memory
    _, compiled = step.compile()
    values = [jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
              for tree in step.given.values()]  # fmt: skip
    state = [sharding.replicate(tree) for tree in values[:3]]
    for number in range(2):
        *state, metrics = compiled(*state, {}, sharding.shard(batch), number)
        jax.block_until_ready(metrics)
    print(memory.peak, jax.local_devices()[0].memory_stats()["peak_bytes_in_use"])
