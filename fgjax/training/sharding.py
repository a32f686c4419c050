"""Data parallelism: `jax.jit` over a mesh with the one axis `data`."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


@functools.cache
def data_mesh() -> Mesh:
    """All devices of all processes on one axis `data`.

    The axis is Auto: with the default Explicit axes `x @ x.T`, `labels[:, None] == labels[None]`
    and `centers[labels]` fail on a sharded batch.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: Any) -> Any:
    """The same values on every device, in buffers of their own (so that they can be donated)."""
    sharding = NamedSharding(data_mesh(), PartitionSpec())
    return jax.device_put(jax.tree.map(np.asarray, tree), sharding)


def shard(batch: Any) -> Any:
    """Rows of this process of a batch as global arrays, split over the devices by rows."""
    sharding = NamedSharding(data_mesh(), PartitionSpec("data"))
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch
    )


def slices(batch: Any, count: int) -> Any:
    """Arrays [B, …] as [count, B / count, …], one slice after the other, inside a jitted function.

    Each slice is split over the devices by rows, and is the same for any number of them.
    """
    sharding = NamedSharding(data_mesh(), PartitionSpec(None, "data"))

    def cut(rows: jax.Array) -> jax.Array:
        parts = rows.reshape(count, len(rows) // count, *rows.shape[1:])
        return jax.lax.with_sharding_constraint(parts, sharding)

    return jax.tree.map(cut, batch)


def abstract(tree: Any, *, split: bool = False) -> Any:
    """Shapes and types of what `replicate`, or with `split` what `shard`, makes of arrays."""
    spec = PartitionSpec("data") if split else PartitionSpec()
    sharding = NamedSharding(data_mesh(), spec)

    def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = getattr(leaf, "dtype", None) or np.result_type(leaf)
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        return jax.ShapeDtypeStruct(np.shape(leaf), dtype, sharding=sharding)

    return jax.tree.map(shape_of, tree)


def divisible(batch_size: int) -> int:
    """The batch size, rounded up to a multiple of the devices."""
    devices = jax.device_count()
    return -(-batch_size // devices) * devices
