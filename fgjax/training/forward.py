"""Forward passes over whole splits."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Integer, Shaped

from fgjax import compilation
from fgjax.data.loading import ImageReader, Transform, evaluation_batches
from fgjax.training import sharding

# A batch by name, and what a network says to it: every array has a row for each example.
Batch = Mapping[str, Shaped[jax.Array | np.ndarray, "B ..."]]
Outputs = Mapping[str, Shaped[jax.Array, "B ..."]]
OutputsOf = Callable[..., Outputs]  # of a network, of the class that a method needs, and a batch


@functools.cache
def _forward():
    def merged(graph, outputs_of: Callable, state, batch):
        return outputs_of(nnx.merge(graph, state), batch)

    return compilation.jit(merged, static_argnums=(0, 1))


def forward(model: nnx.Module, outputs_of: OutputsOf, batch: Batch) -> Outputs:
    """`outputs_of(model, batch)` on the devices; compiled once per network and function."""
    graph, state = nnx.split(model)
    if not sharding.replicated(state):
        state = sharding.replicate(state)  # a model that was just built or read: on one device
        nnx.update(model, state)
    return _forward()(graph, outputs_of, state, sharding.shard(batch))


def trace(model: nnx.Module, outputs_of: OutputsOf, batch: Any) -> jax.stages.Traced:
    """`forward` by the shapes of a batch: nothing is compiled or computed."""
    graph, state = nnx.split(model)
    return _forward().trace(graph, outputs_of, state, batch)


def iterate(
    model: nnx.Module,
    source: ImageReader | Transform,
    indices: Integer[np.ndarray, " N"],
    *,
    batch_size: int,
    outputs_of: OutputsOf,
) -> Iterator[tuple[dict[str, Shaped[np.ndarray, "B ..."]], Integer[np.ndarray, " B"]]]:
    """Outputs for every index in order: (outputs of the real rows, their indices).

    `source` reads images, without augmentation, or makes an example of a position and an index.
    """
    size = sharding.divisible(batch_size)
    model.eval()
    for batch, rows in evaluation_batches(source, indices, batch_size=size):
        outputs = sharding.fetch(forward(model, outputs_of, batch))
        yield {name: value[: len(rows)] for name, value in outputs.items()}, rows


def logits_of(
    model: nnx.Module, batch: Mapping[str, Shaped[jax.Array, "B ..."]]
) -> dict[str, Float[jax.Array, "B K"]]:
    """The classifier's logits, for `forward` and `iterate`."""
    return {"logits": model(batch["image"])["logits"]}
