"""How programs are compiled: options for XLA, and the cache that makes the second start quick."""

import functools
import os
import pathlib

import jax

# XLA's library of small kernels for CPUs takes over convolutions and products, too, by default; the
# weights' gradient of a 3×3 convolution is four times slower there than in the older code. Its
# reductions are three times faster and stay.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def options() -> dict[str, str]:
    """`compiler_options` for `jax.jit`: what is faster on a CPU; nothing elsewhere.

    They choose among implementations of the same operations. An XLA that does not know them (they
    are marked experimental) is left to itself, and so is one that XLA_FLAGS speaks to.
    """
    name = next(iter(_CPU_OPTIONS))
    if jax.default_backend() != "cpu" or name in os.environ.get("XLA_FLAGS", ""):
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _CPU_OPTIONS


def enable_cache() -> None:
    """Keep compiled programs in $JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or f"{home}/fgjax/xla"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
