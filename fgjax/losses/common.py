"""What all losses share: wide floats, safe norms, masked means, checks at trace time."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Real, Shaped


def as_float(x: Shaped[ArrayLike, "*shape"]) -> Float[jax.Array, "*shape"]:
    """The array in at least float32; float64 stays float64."""
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def safe_sqrt(x: Float[jax.Array, "*shape"]) -> Float[jax.Array, "*shape"]:
    """Square root with gradient 0 at 0, where the plain one has infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def euclidean(
    one: Float[ArrayLike, "*#B D"], other: Float[ArrayLike, "*#B D"]
) -> Float[jax.Array, "*B"]:
    """‖one − other‖₂ over the last axis, with gradient 0 where the two coincide."""
    return safe_sqrt(jnp.sum(jnp.square(as_float(one) - as_float(other)), axis=-1))


def normalize(x: Float[ArrayLike, "*B D"], *, epsilon: float = 1e-12) -> Float[jax.Array, "*B D"]:
    """Unit vectors x / ‖x‖₂ over the last axis; zero vectors stay zero, with gradient 0."""
    x = as_float(x)
    norm = safe_sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return jnp.where(norm > 0, x / jnp.maximum(norm, epsilon), 0)


def masked_mean(
    values: Shaped[ArrayLike, "*shape"],
    where: Shaped[ArrayLike, "*#shape"],
    axis: int | tuple[int, ...] | None = None,
) -> Float[jax.Array, "..."]:
    """Mean of the values where the mask holds; 0, with gradient 0, where it holds nowhere."""
    values = as_float(values)
    where = jnp.asarray(where, bool)
    count = jnp.sum(jnp.broadcast_to(where, values.shape), axis=axis, dtype=values.dtype)
    total = jnp.sum(jnp.where(where, values, 0), axis=axis)
    return total / jnp.maximum(count, 1)


def check_embeddings(function: str, **arrays: Shaped[ArrayLike, "..."]) -> None:
    """Raise ValueError unless all arrays are [B, D] of one shape."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if len(shape) != 2:
            raise ValueError(f"{function}: {name} has shape {shape}, but must be [B, D].")
        if shape != first:
            listed = ", ".join(f"{n} {s}" for n, s in shapes.items())
            raise ValueError(f"{function}: all embeddings must have one shape, got {listed}.")


def check_rank(function: str, rank: int, **arrays: Shaped[ArrayLike, "..."]) -> None:
    """Raise ValueError unless every array has the rank."""
    for name, array in arrays.items():
        if jnp.ndim(array) != rank:
            raise ValueError(
                f"{function}: {name} has shape {jnp.shape(array)}, but must have rank {rank}."
            )


def check_batch(function: str, **arrays: Shaped[ArrayLike, "..."]) -> None:
    """Raise ValueError unless all arrays agree in their first axis."""
    sizes = {name: jnp.shape(array)[0] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{function}: batch sizes differ: {listed}.")


def check_labels(function: str, labels: Shaped[ArrayLike, "..."]) -> Integer[jax.Array, " B"]:
    """Labels as an array; ValueError unless they are integers of rank 1."""
    labels = jnp.asarray(labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"{function}: labels must be integers [B], got {labels.dtype} {labels.shape}."
        )
    return labels


def check_not_negative(function: str, **values: Real[ArrayLike, ""]) -> None:
    """Raise ValueError if a hyper-parameter given as a Python number is negative."""
    for name, value in values.items():
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{function}: {name} is {value}, but must not be negative.")
