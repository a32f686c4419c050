"""What `--config.freeze` saves of a training step, and what micro-batches cost and save.

    PYTHONPATH=. python benchmarks/freeze.py [--network resnet18] [--size 96] [--turns 9]

The loop's own step (forward, backward, SGD with momentum, batch norm) on a batch that is on the
device; all variants in one process, in turns. Times are medians, shares are medians of the turns'
ratios to the whole network's step. Operations and memory are those of the compiled step; loops are
counted once in both, so operations of micro-batches are left out.
"""

import argparse
import sys
import time

import jax
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.config import Optimizer
from fgjax.methods.shared.classifier import cross_entropy
from fgjax.training import fit, freezing, optimizer, sharding
from fgjax.training.step import initial_state, make_step


def make(name, size, batch_size, *, freeze="", accumulate=1):
    """(`run()` that returns when a step is done, its operations, its peak in bytes)."""
    rng = np.random.default_rng(0)
    batch = sharding.shard({
        "image": rng.integers(0, 256, (batch_size, size, size, 3)).astype(np.uint8),
        "label": rng.integers(0, 200, batch_size).astype(np.int32),
    })  # fmt: skip
    model = models.build(name, num_classes=200, rngs=nnx.Rngs(0))
    update = optimizer.make(Optimizer(schedule="constant"), steps_per_epoch=1, epochs=1)
    trainable = freezing.unfrozen(model, nnx.Param, freeze)
    fit.set_mode(model, trainable)
    graph, trained, rest = nnx.split(model, trainable, ...)
    state = sharding.replicate(initial_state(model, trainable, update.init))
    step = make_step(
        graph, trained, rest, cross_entropy, update, trainable, jax.random.key(0),
        accumulate=accumulate,
    )  # fmt: skip
    compiled = step.lower(state, {}, batch, 0).compile()
    memory = compiled.memory_analysis()
    peak = (memory.temp_size_in_bytes + memory.argument_size_in_bytes
            + memory.output_size_in_bytes - memory.alias_size_in_bytes)  # fmt: skip

    def run():
        nonlocal state
        state, metrics = compiled(state, {}, batch, 0)
        jax.block_until_ready((state, metrics))

    return run, compiled.cost_analysis()["flops"], peak


def prefixes(name):
    """All but the last map, from none on: no name, stem, stem,stage1 and so on."""
    model = nnx.eval_shape(lambda: models.build(name, num_classes=2, rngs=nnx.Rngs(0)))
    maps = list(model.modules_of_maps())
    return [",".join(maps[:count]) for count in range(len(maps))]


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    sizes = options.network, options.size, options.batch
    variants = {f"freeze={freeze}": {"freeze": freeze} for freeze in prefixes(options.network)}
    variants |= {f"accumulate={count}": {"accumulate": count} for count in (2, 4)}
    made = {name: make(*sizes, **changes) for name, changes in variants.items()}
    seconds = {name: [] for name in made}
    for turn in range(options.turns + 2):
        for name, (run, _, _) in made.items():
            began = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    whole = np.array(seconds["freeze="])
    print(f"{jax.devices()[0].device_kind}: {options.network}, {options.size} px, "
          f"batch {options.batch}, {options.turns} turns")  # fmt: skip
    print("| step | ms | share | GFLOP | MiB |\n|---|---|---|---|---|")
    for name, (_, operations, peak) in made.items():
        taken = np.array(seconds[name])
        work = "" if "accumulate" in name else f"{operations / 1e9:.1f}"
        print(f"| {name} | {1e3 * np.median(taken):.0f} | {np.median(taken / whole):.2f} | "
              f"{work} | {peak / 2**20:.0f} |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(_main())
