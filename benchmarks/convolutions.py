"""Each convolution of a training step by itself: how long XLA takes to compile and to run it.

    PYTHONPATH=. python benchmarks/convolutions.py efficientnet_lite0 224 64
    PYTHONPATH=. python benchmarks/convolutions.py resnet50 224 128 --dtype=float32

Forward passes and both gradients, as the network's own program has them on this backend: those of
one shape are measured once and counted. Slowest first; a line is printed as soon as it is known.
"""

import argparse
import collections
import statistics
import time

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx

from fgjax import compilation, models

CONVOLUTION = "conv_general_dilated"


def found(name, size, batch, dtype):
    """{parameters and shapes: a convolution's equation}, and how often each occurs."""
    model = models.build(name, num_classes=1000, rngs=nnx.Rngs(0), dtype=dtype, head="original")
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, images):
        outputs = nnx.merge(graph, params, rest, copy=True)(images)
        return jnp.mean(outputs["logits"].astype(jnp.float32) ** 2)

    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    program = jax.make_jaxpr(jax.grad(loss))(params, images)
    equations, counts = {}, collections.Counter()
    for equation in _inside(program.jaxpr):
        shapes = [f"{v.aval.dtype}{list(v.aval.shape)}" for v in equation.invars]
        key = f"{' '.join(shapes)} {sorted(map(str, equation.params.items()))}"
        equations[key] = equation
        counts[key] += 1
    return equations, counts


def _inside(jaxpr):
    """All convolutions of a program, those of the functions that it calls included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == CONVOLUTION:
            yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _inside(inner)


def measured(equation, turns):
    """Seconds to compile and to run it, the second as a median."""
    key = jax.random.key(0)
    arguments = [jax.random.normal(key, v.aval.shape).astype(v.aval.dtype) for v in equation.invars]
    began = time.perf_counter()
    run = compilation.jit(lambda *a: equation.primitive.bind(*a, **equation.params))
    jax.block_until_ready(run(*arguments))
    compiled, times = time.perf_counter() - began, []
    for _ in range(turns):
        began = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        times.append(time.perf_counter() - began)
    return compiled, statistics.median(times)


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("size", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    equations, counts = found(
        options.network, options.size, options.batch, jnp.dtype(options.dtype).type
    )
    device = jax.devices()[0].device_kind
    print(f"{device}: {sum(counts.values())} convolutions, {len(counts)} of different shapes")
    print("compiled, s | ms | times | groups, strides, shapes", flush=True)
    total = []
    for key, equation in equations.items():
        compiled, seconds = measured(equation, options.turns)
        total.append((seconds * counts[key], compiled))
        shapes = " ".join(f"{list(v.aval.shape)}" for v in (*equation.invars, *equation.outvars))
        groups, batches = (equation.params[f"{k}_group_count"] for k in ("feature", "batch"))
        strides = [equation.params[f"{k}_dilation"] for k in ("lhs", "rhs")]
        what = f"{max(groups, batches)}, {equation.params['window_strides']} {strides}, {shapes}"
        print(f"{compiled:.2f} | {1e3 * seconds:.3f} | {counts[key]} | {what}", flush=True)
    run, compiled = (sum(column) for column in zip(*total))
    print(f"all: {compiled:.1f} s to compile, {1e3 * run:.1f} ms a step")


if __name__ == "__main__":
    _main()
