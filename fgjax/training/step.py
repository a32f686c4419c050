"""One update of the loop: gradient, optimizer, and the running average of the parameters."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fgjax import compilation
from fgjax.training import sharding

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# Of a module, of the class that a method needs, a batch, the epoch's statistics and a key.
Loss = Callable[[Any, Batch, Any, jax.Array], tuple[jax.Array, Metrics]]
State = dict[str, Any]  # "trained", "rest", "optimizer" and, with an average, "average"


def initial_state(
    model: nnx.Module, trainable: Any, init: Callable[[Any], Any], *, ema: float = 0.0
) -> State:
    """What the first step takes.

    Args:
      model: whose variables it is.
      trainable: nnx filter.
      init: makes the optimizer's state.
      ema: decay of the average of what is trained and of batch norm's statistics; 0: none.
    """
    trained, rest = (nnx.to_pure_dict(state) for state in nnx.state(model, trainable, ...))
    state = {"trained": trained, "rest": rest, "optimizer": init(trained)}
    if ema:
        averaged = nnx.state(model, nnx.Any(trainable, nnx.BatchStat))
        state["average"] = nnx.to_pure_dict(averaged)
    return state


def variables(state: State, *, averaged: bool = True) -> dict:
    """All variables of the network; with `averaged` the averages of those that have one."""
    everything = _joined(state["trained"], state["rest"])
    return _joined(everything, state["average"]) if averaged and "average" in state else everything


def make_step(
    graph: nnx.GraphDef,
    trained: nnx.State,
    rest: nnx.State,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    trainable: Any,
    key: jax.Array,
    *,
    ema: float = 0.0,
    accumulate: int = 1,
):
    """Jitted `step(state, statistics, batch, number) -> (state, metrics)`.

    Statistics and the step's number are arguments, so it compiles once. With `accumulate` the batch
    is cut into as many micro-batches, one after the other: gradient, loss and metrics are their
    means, and batch norm goes through all of them.
    """

    def objective(values, rest_values, batch, statistics, key):
        model = nnx.merge(graph, *_with_values(trained, rest, values, rest_values), copy=True)
        value, metrics = loss(model, batch, statistics, key)
        _, _, new_rest = nnx.split(model, trainable, ...)
        return value, ({**metrics, "loss": value}, nnx.to_pure_dict(new_rest))

    differentiate = jax.grad(objective, has_aux=True)

    def by_micro_batches(values, rest_values, batch, statistics, key):
        parts = sharding.slices(batch, accumulate)

        def add(carried, number):
            total, rest_values = carried
            place = number + _nothing(total)
            micro = jax.tree.map(lambda rows: jax.lax.dynamic_index_in_dim(rows, place, 0, False),
                                 parts)  # fmt: skip
            gradient, (metrics, rest_values) = differentiate(
                values, rest_values, micro, statistics, jax.random.fold_in(key, number)
            )
            return (jax.tree.map(jnp.add, total, gradient), rest_values), metrics

        # XLA's gradients of kernels inside a loop are forty times slower on a CPU.
        unrolled = jax.default_backend() == "cpu"
        begin = (jax.tree.map(jnp.zeros_like, values), rest_values)
        (total, rest_values), metrics = jax.lax.scan(
            add, begin, jnp.arange(accumulate), unroll=unrolled
        )
        gradient = jax.tree.map(lambda g: g / accumulate, total)
        return gradient, (jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics), rest_values)

    gradient_of = differentiate if accumulate == 1 else by_micro_batches

    def update(state: State, statistics, batch: Batch, number) -> tuple[State, Metrics]:
        gradient, (metrics, new_rest) = gradient_of(
            state["trained"], state["rest"], batch, statistics, jax.random.fold_in(key, number)
        )
        updates, moments = optimizer.update(gradient, state["optimizer"], state["trained"])
        values = optax.apply_updates(state["trained"], updates)
        new = {"trained": values, "rest": new_rest, "optimizer": moments}
        if ema:
            new["average"] = moved(state["average"], variables(new), decay=ema, number=number)
        return new, {**metrics, "gradient_norm": optax.global_norm(gradient)}

    return compilation.jit(update, donate_argnums=0)


def moved(average: dict, current: dict, *, decay: float, number: jax.Array | int) -> dict:
    """The average after step `number` (from 0 on): Σ dᵗ⁻ᵏ xₖ / Σ dᵗ⁻ᵏ over the steps k = 1 … t.

    That is the exponential average with Adam's bias correction, without the values before the first
    step, written so that what never changes stays the same to the last bit.

    Args:
      average: after the step before.
      current: values of that structure, which may have others beside them.
      decay: d in (0, 1).
      number: t − 1.
    """
    share = (1 - decay) / -jnp.expm1((number + 1) * math.log(decay))

    def toward(old: Any, new: Any) -> Any:
        if isinstance(old, dict):
            return {name: toward(value, new[name]) for name, value in old.items()}
        return old + share.astype(old.dtype) * (new - old)

    return toward(average, current)


def _nothing(total: Any) -> jax.Array:
    """0, but known only after everything in a gradient: what needs it cannot begin before.

    Otherwise XLA would lay unrolled micro-batches side by side, and no memory would be saved; its
    own barriers are gone when a CPU's schedule is made. (1 where the gradient is infinite, and then
    the loop stops.)
    """
    known = sum(jnp.ravel(leaf)[0].astype(jnp.float32) for leaf in jax.tree.leaves(total))
    return (known > jnp.finfo(jnp.float32).max).astype(jnp.int32)


def _with_values(trained: nnx.State, rest: nnx.State, trained_values, rest_values):
    """Copies of two states that hold the given plain values."""
    states = []
    for state, values in ((trained, trained_values), (rest, rest_values)):
        copy = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(copy, values)
        states.append(copy)
    return states


def _joined(one: dict, other: dict) -> dict:
    """Two nested dicts as one; where both have a value, the other's."""
    result = dict(one)
    for name, value in other.items():
        both = name in result and isinstance(value, dict)
        result[name] = _joined(result[name], value) if both else value
    return result
