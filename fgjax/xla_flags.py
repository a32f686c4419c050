"""What XLA must be told before JAX starts: no program of this process uses the faulty library."""

import importlib.metadata
import logging
import os
import sys

log = logging.getLogger(__name__)

# Which operations XLA hands to its library of small kernels for CPUs; "" is none.
OPTION = "xla_cpu_experimental_ynn_fusion_type"
OFF = f"--{OPTION}="
# Releases of jaxlib whose library computes wrong numbers in some programs (jax#39103). All of them
# know the option: XLA ends a process over a flag that it does not know.
FAULTY = ("0.10.2", "0.11.0", "0.11.1", "0.11.2")

_added = False


def protect() -> None:
    """Switch the library off in XLA_FLAGS, unless they speak of it or jaxlib is none of `FAULTY`.

    Importing fgjax does this, so that operations outside `jax.jit` and programs that a user
    compiles himself are right, too. Once JAX has started it reads no flags: then it says so.
    """
    global _added
    flags = os.environ.get("XLA_FLAGS", "")
    version = _jaxlib()
    if version not in FAULTY or OPTION in flags:
        return
    if _jax_has_started():
        import jax

        if jax.default_backend() == "cpu":
            log.warning(
                "JAX had started before fgjax was imported, and jaxlib %s computes wrong numbers "
                "in some programs on a CPU: import fgjax before JAX computes anything, or set "
                "XLA_FLAGS=%s.", version, OFF,
            )  # fmt: skip
        return
    os.environ["XLA_FLAGS"] = f"{flags} {OFF}".strip()
    _added = True


def spoken_for() -> bool:
    """Whether a person's XLA_FLAGS say what the library may do."""
    return OPTION in os.environ.get("XLA_FLAGS", "") and not _added


def _jaxlib() -> str | None:
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return None


def _jax_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()
