"""What a checkpoint costs: how long the loop waits for it, and how long it takes to its digest.

    PYTHONPATH=. python benchmarks/saving.py

Parameters, running statistics and SGD's momentum of a network, saved a few times into a temporary
folder, as the loop does at the end of an epoch. The loop waits while the state is copied; writing
goes on beside the next steps, and the digest is taken before the next save.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import jax
import optax
from flax import nnx

from fgjax import models
from fgjax.training import checkpoints
from fgjax.training.step import initial_state


def measured(name, turns):
    """Megabytes, and medians of seconds: the loop's wait, until written, the digest, restoring."""
    model = models.build(name, num_classes=200, rngs=nnx.Rngs(0))
    init = optax.sgd(0.1, momentum=0.9).init
    state = jax.block_until_ready(initial_state(model, nnx.Param, init))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    times = []
    with tempfile.TemporaryDirectory() as folder:
        store = checkpoints.Checkpoints(pathlib.Path(folder))
        for step in range(1, turns + 1):
            begun = time.perf_counter()
            store.save(step, state)
            saved = time.perf_counter()
            store._manager.wait_until_finished()
            written = time.perf_counter()
            store.wait()
            sealed = time.perf_counter()
            times.append((saved - begun, written - begun, sealed - written))
        begun = time.perf_counter()
        store.restore(state)
        restored = time.perf_counter() - begun
        store.close()
    return size, *(statistics.median(column) for column in zip(*times)), restored


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    print("| network | MB | the loop waits, s | written after, s | digest, s | restored in, s |")
    print("|---|---|---|---|---|---|")
    for name in ("efficientnet_lite0", "resnet50", "vgg16"):
        size, *seconds = measured(name, turns)
        print(
            f"| {name} | {size:.0f} | " + " | ".join(f"{s:.2f}" for s in seconds) + " |", flush=True
        )


if __name__ == "__main__":
    _main()
