"""How programs are compiled: right, then quick. Options for XLA, and the caches that save time.

XLA's library of small kernels for CPUs computes wrong numbers in some programs of some releases. A
canary, two programs with known results, says whether it does so here.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgjax import xla_flags

log = logging.getLogger(__name__)

_JAXLIB = importlib.metadata.version("jaxlib")

Options = dict[str, str | bool]
LIBRARY_OFF: Options = {xla_flags.OPTION: ""}
# Its convolutions are slow (the weights' gradient of a 3×3 one takes four times as long as in the
# older code), its reductions three times faster.
REDUCTIONS: Options = {xla_flags.OPTION: "LIBRARY_FUSION_TYPE_REDUCE"}
# Large products are up to twice as fast, each alone, without what stands before and after it.
PRODUCTS: Options = {xla_flags.OPTION: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
# On GPUs XLA tries many kernels of its own for each product. The search takes minutes for a network
# of many small ones, and the library's products are as fast (benchmarks/RESULTS.md).
LIBRARY_PRODUCTS: Options = {"xla_gpu_enable_triton_gemm": False}


class Jitted:
    """A function as `jax.jit` makes it with `options()`, which are asked for at the first call.

    So that a decorated function starts no device when it is imported. For the outermost program:
    JAX refuses compiler options inside of another `jit`, `vmap` or `grad`.
    """

    def __init__(self, function: Callable, products: bool, arguments: dict[str, Any]):
        functools.update_wrapper(self, function)
        self._function, self._products, self._arguments = function, products, arguments

    @functools.cached_property
    def _compiled(self) -> Any:
        chosen = options(products=self._products)
        return jax.jit(self._function, compiler_options=chosen, **self._arguments)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._compiled(*arguments, **named)

    def programs(self) -> int:
        """How many were compiled: one for all steps, if shapes stay as they are."""
        return self._compiled._cache_size()

    def lower(self, *arguments: Any, **named: Any) -> jax.stages.Lowered:
        """As of `jax.jit`."""
        return self._compiled.lower(*arguments, **named)

    def trace(self, *arguments: Any, **named: Any) -> jax.stages.Traced:
        """As of `jax.jit`."""
        return self._compiled.trace(*arguments, **named)


def jit(function: Callable, *, products: bool = False, **arguments: Any) -> Jitted:
    """`jax.jit` with `options()`: what everything in fgjax is compiled by.

    Args:
      function: of arrays.
      products: most of its time goes into large products.
      **arguments: of `jax.jit`.
    """
    return Jitted(function, products, arguments)


@functools.cache
def options(*, products: bool = False) -> Options:
    """`compiler_options` for `jax.jit`: what is right on this CPU, then quick.

    The first choice is the faster one; where the canary finds it wrong, the library is off. An XLA
    that does not know the option (it is marked experimental) is left to itself, and so is one that
    XLA_FLAGS speak to. Where these force wrong numbers, a sentence in the log says so. On GPUs
    `LIBRARY_PRODUCTS`, likewise; elsewhere nothing.
    """
    if jax.default_backend() == "gpu":
        return _known_to_xla(LIBRARY_PRODUCTS)
    if jax.default_backend() != "cpu":
        return {}
    choices = [PRODUCTS if products else REDUCTIONS, LIBRARY_OFF, {}]
    for choice in [{}] if xla_flags.spoken_for() else choices:
        if not _remembered(choice):
            return choice
    _tell()
    return {}


def _known_to_xla(choice: Options) -> Options:
    """The choice; nothing where XLA does not know it, or XLA_FLAGS speak of it."""
    if any(name in os.environ.get("XLA_FLAGS", "") for name in choice):
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=choice).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return choice


@functools.cache
def _tell() -> None:
    log.warning("XLA computes wrong numbers in some programs on this CPU (jaxlib %s): %s.",
                _JAXLIB, remedy())  # fmt: skip


def remedy() -> str:
    """What to do where the canary finds wrong numbers in spite of `options()`."""
    if xla_flags.spoken_for():
        return f"take {xla_flags.OPTION} out of XLA_FLAGS"
    return "install another jaxlib"


def wrong_programs(choice: Options) -> list[str]:
    """The canary: which of its programs, compiled with these options, differ from NumPy's float64.

    Raises:
      jax.errors.JaxRuntimeError: XLA does not know an option.
    """
    wrong = []
    for dtype in (np.float32, np.float64) if jax.config.read("jax_enable_x64") else (np.float32,):
        arrays, wanted = _known(dtype)
        program = jax.jit(_programs).lower(*arrays).compile(compiler_options=choice)
        for name, found in program(*arrays).items():
            error = np.max(np.abs(np.asarray(found, np.float64) - wanted[name]))
            if not error < 2**10 * np.finfo(dtype).eps * np.max(np.abs(wanted[name])):
                wrong.append(f"{name} in {np.dtype(dtype).name}")
    return wrong


def _programs(points: jax.Array, turn: jax.Array, tables: jax.Array) -> dict[str, jax.Array]:
    """A small matrix and a sum for each of many rows; a product with a constant, weighed."""
    weights = jnp.full_like(tables, 0.375)
    return {
        "squared norms of turned points": jax.vmap(lambda p: jnp.sum(jnp.square(turn @ p)))(points),
        "sums of a weighed product": jnp.sum(tables * (tables @ weights), axis=-1),
    }


def _known(dtype: Any) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """Arguments of `_programs`, and its results by NumPy."""
    rng = np.random.default_rng(0)
    points, tables = rng.standard_normal((40_000, 3)), rng.standard_normal((5, 60, 60))
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    arrays = tuple(x.astype(dtype) for x in (points, turn, tables))
    points, turn, tables = (x.astype(np.float64) for x in arrays)
    return arrays, {
        "squared norms of turned points": np.sum((points @ turn.T) ** 2, axis=1),
        "sums of a weighed product": np.sum(tables * (0.375 * tables.sum(-1))[..., None], axis=-1),
    }


def _remembered(choice: Options) -> list[str]:
    """`wrong_programs`, or what it said earlier under the same circumstances."""
    text = json.dumps([*_circumstances(), choice])
    path = _folder() / f"canary-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    try:
        wrong = wrong_programs(choice)
    except jax.errors.JaxRuntimeError as error:
        wrong = [f"none: {str(error).splitlines()[0]}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(wrong))
        part.replace(path)
    except OSError:  # no cache: the next process asks the canary again
        pass
    return wrong


def _circumstances() -> Iterator[Any]:
    """All that the canary's answer depends on."""
    yield from (jax.__version__, _JAXLIB, platform.machine(), os.cpu_count())
    yield from (jax.local_device_count(), jax.config.read("jax_enable_x64"))
    yield os.environ.get("XLA_FLAGS", "").split()
    yield hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    yield sorted({line for line in lines if line.startswith(("model name", "flags"))} or lines)


def _folder() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or f"{home}/fgjax/xla"
    return pathlib.Path(folder).expanduser()


def enable_cache() -> None:
    """Keep compiled programs in $JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(_folder()))
    # A network's start values are dozens of programs of some 50 ms each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
