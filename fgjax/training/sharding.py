"""Data parallelism: `jax.jit` over a mesh with the one axis `data`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fgjax import compilation, hosts


def data_mesh() -> Mesh:
    """All devices of all processes on one axis `data`.

    The axis is Auto: with the default Explicit axes `x @ x.T`, `labels[:, None] == labels[None]`
    and `centers[labels]` fail on a sharded batch.
    """
    return _mesh(tuple(hosts.devices()))


@functools.cache
def _mesh(devices: tuple[Any, ...]) -> Mesh:
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def replicate(tree: Any) -> Any:
    """The same values on every device, in buffers of their own (so that they can be donated)."""
    sharding = NamedSharding(data_mesh(), PartitionSpec())
    values = jax.tree.map(np.asarray, tree)
    if hosts.count() == 1:
        return jax.device_put(values, sharding)
    # device_put would send everything around, to see whether all processes have the same.
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), values)


def replicated(tree: Any) -> bool:
    """Whether every leaf lies on all devices already."""
    wanted = set(data_mesh().devices.flat)
    return all(leaf.sharding.device_set == wanted for leaf in jax.tree.leaves(tree))


def fetch(tree: Any) -> Any:
    """Global arrays as NumPy's, whole, in every process."""
    if hosts.count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)


def own(rows: Any) -> Any:
    """Of arrays that have a row for each example of a whole batch, those of this process."""
    if hosts.count() == 1:
        return rows

    def cut(array: np.ndarray) -> np.ndarray:
        share = len(array) // hosts.count()
        return array[hosts.index() * share : (hosts.index() + 1) * share]

    return jax.tree.map(cut, rows)


def anywhere(flag: bool) -> jax.Array:
    """Whether any process says so; on the devices, after the steps that are on their way."""
    said = np.full(len(jax.local_devices()), flag)
    return _any()(shard(said))


@functools.cache
def _any():
    return compilation.jit(jnp.any)


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
    devices = len(hosts.devices())
    return -(-batch_size // devices) * devices
