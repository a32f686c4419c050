"""Four simulated devices, strict types, checked shapes, and small data for all tests."""

import atexit
import os
import shutil
import sys
import tempfile

# Most of a test's time is compiling: LLVM does without its optimizations here, but not in the
# subprocesses that stand for what people run.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for all processes of this run of the tests
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fgjax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "allow")

# Every call of these, from tests, doctests and methods alike, is held to its annotations.
CHECKED = ("fgjax.losses", "fgjax.evaluation", "fgjax.localization")
if early := [name for name in CHECKED if name in sys.modules]:
    raise RuntimeError(f"imported before their types can be checked: {', '.join(early)}")
jaxtyping.install_import_hook(
    CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)


@pytest.fixture
def unchecked_types():
    """Types are not checked, as outside of the tests: what bad input meets is our own sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Prepared datasets, shared by the tests of one process."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_dataset(data_dir):
    """The built-in aircraft with four images of each class per split."""
    from fgjax.data import datasets

    return datasets.load_dataset("synthetic_aircraft/4", data_dir=data_dir)


@pytest.fixture
def tiny_config(data_dir):
    """The demo's config, shrunk to seconds."""
    from tests.tiny import shrink

    return shrink(data_dir)
