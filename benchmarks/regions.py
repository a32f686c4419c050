"""What CCFR's step costs beside the extractor: proposals, suppression, crops, fusion and losses.

    PYTHONPATH=. python benchmarks/regions.py

Two training steps take turns: the whole one of `methods.ccfr.RegionLoss`, and one in which the same
extractor sees the same number of images and of crops and nothing else happens. The share is what
the whole step takes longer. Each part is timed by itself as well, forwards.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import compilation, losses, models
from fgjax.localization import crop_and_resize
from fgjax.methods import ccfr
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions, grids_of
from fgjax.models.layers import Linear

CLASSES = 100


class Extractor(nnx.Module):
    """The backbone with a classifier of crops, as the whole network has them."""

    def __init__(self, backbone: models.Backbone, *, rngs: nnx.Rngs):
        self.backbone = backbone
        self.part_fc = Linear(backbone.features, CLASSES, rngs=rngs)


def seconds(function, *arguments) -> float:
    """Of one call that is waited for."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def gradient_of(model, objective):
    """Jitted gradient of objective(model, batch) and its parameters."""
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def total(values, batch):
        return objective(nnx.merge(graph, values, rest, copy=True), batch)

    return compilation.jit(jax.grad(total)), params


def measure(name: str, size: int, crop: int, batch: int, width: int, turns: int) -> None:
    """One line of the table, and the parts below it."""
    backbone = models.build(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    grids = grids_of(backbone, size, 2)
    regions = Regions((96 / 448, 192 / 448), grids, 2, 3, crop, 0.25, True)
    network = RegionNetwork(
        backbone, regions, fusion=True, width=width, dtype=jnp.float32, rngs=nnx.Rngs(1)
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (batch, size, size, 3)).astype(np.uint8)
    crops = rng.integers(0, 255, (6 * batch, crop, crop, 3)).astype(np.uint8)
    labels = (np.arange(batch) // 2 % CLASSES).astype(np.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    loss = ccfr.RegionLoss(enhanced=True)

    def whole(model, given):
        return loss(model, given, {}, jax.random.key(0))[0]

    def extractor(model, given):
        logits = model.backbone(given["image"])["logits"]
        pooled = model.backbone(given["crops"])["pooled"]
        parts = entropy(model.part_fc(pooled), jnp.repeat(given["label"], 6))
        return jnp.mean(entropy(logits, given["label"])) + jnp.mean(parts)

    given = {"image": images, "label": labels, "crops": crops}
    steps = [gradient_of(network, whole),
             gradient_of(Extractor(backbone, rngs=nnx.Rngs(2)), extractor)]  # fmt: skip
    for step, params in steps:
        seconds(step, params, given)
    times = np.array([[seconds(step, p, given) for step, p in steps] for _ in range(turns)])
    share = 100 * np.median(1 - times[:, 1] / times[:, 0])
    first, second = 1e3 * np.median(times, axis=0)
    print(f"| {name}, {size} px, batch {batch} | {first:.0f} | {second:.0f} | {share:.1f} % |")
    network.eval()
    maps = compilation.jit(lambda x: models.last_map(network.backbone(x)))(images)
    scores = network.pyramid(maps)
    chosen = regions.select(scores, each=3)
    boxes = jnp.asarray(regions.boxes)[chosen]
    floats = images.astype(jnp.float32)
    x = jax.random.normal(jax.random.key(0), (batch, 3 * backbone.channels))
    parts = {
        "pyramid": (compilation.jit(network.pyramid), maps),
        "suppression": (compilation.jit(lambda s: regions.select(s, each=3)), scores),
        "crops": (compilation.jit(lambda i, b: crop_and_resize(i, b, size=crop)), floats, boxes),
        "triplets": (compilation.jit(losses.batch_hard_cosine_triplet_loss), x, labels),
    }
    costs = []
    for title, (function, *arguments) in parts.items():
        seconds(function, *arguments)
        cost = 1e3 * np.median([seconds(function, *arguments) for _ in range(10)])
        costs.append(f"{title} {cost:.1f} ms")
    print("forwards: " + ", ".join(costs), flush=True)


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print("| network | whole step, ms | extractor alone, ms | share beside it |\n|---|---|---|---|")
    measure("resnet_small", 96, 48, 32, 64, 4 * options.turns)
    measure("resnet50", 448, 224, 4, 256, options.turns)


if __name__ == "__main__":
    sys.exit(_main())
