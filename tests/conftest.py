"""Four simulated devices, strict types, checked shapes, and small data for all tests."""

import atexit
import gc
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
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import jaxtyping
import pytest

from tests import finished

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "allow")

# Every call of these, from tests, doctests and methods alike, is held to its annotations.
CHECKED = ("fgjax.losses", "fgjax.evaluation", "fgjax.localization", "fgjax.training.forward")
if early := [name for name in CHECKED if name in sys.modules]:
    raise RuntimeError(f"imported before their types can be checked: {', '.join(early)}")
jaxtyping.install_import_hook(
    CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

# They import PyTorch, for golden.py and the benchmarks.
collect_ignore = ["models/torch_lite.py", "models/torch_modern.py"]


@pytest.fixture
def unchecked_types():
    """Types are not checked, as outside of the tests: what bad input meets is our own sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped():
    """Compiled programs of one module would fill the memory beside those of the next."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all worker processes see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def data_dir(shared):
    """Prepared datasets; the tiny one is there."""
    from fgjax.data import datasets

    def prepare(folder):
        datasets.load_dataset("synthetic_aircraft/4", data_dir=str(folder))

    return str(finished.once(shared / "data", prepare))


@pytest.fixture(scope="session")
def tiny_dataset(data_dir):
    """The built-in aircraft with four images of each class per split."""
    from fgjax.data import datasets

    return datasets.load_dataset("synthetic_aircraft/4", data_dir=data_dir)


@pytest.fixture
def tiny_config(data_dir):
    """LAPM's demo, shrunk to seconds."""
    from tests.tiny import shrink

    return shrink(data_dir)


@pytest.fixture
def relaxed():
    """Whole runs go through optax, which promotes types by itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def command(monkeypatch, relaxed):
    """`fgjax WORDS` in this process; refusals are raised."""
    from fgjax import cli, main

    monkeypatch.setattr(main, "setup", lambda: None)  # pytest has its own logging
    return lambda *words: cli.dispatch([str(word) for word in words])


# Finished runs with their pictures. They are shared: tests read them, and write into a `copy_of`.


@pytest.fixture
def copy_of(tmp_path):
    """Copies a finished run into the test's own folder."""
    return lambda workdir: shutil.copytree(workdir, tmp_path / f"copy-of-{workdir.name}")


@pytest.fixture(scope="session")
def finished_lapm(shared, data_dir):
    """`python train.py --config=configs/aircraft.py:demo`, small, on one device."""

    def make(folder):
        environment = finished.environment(data_dir, shared, XLA_FLAGS=finished.HASTY)
        words = (finished.DEMO, *finished.TINY, f"--workdir={folder}")
        finished.run("train.py", *words, environment=environment)

    return finished.once(shared / "runs" / "lapm", make)


def _made_in_process(shared, data_dir, name):
    from tests import tiny

    make_config = getattr(tiny, f"{name}_config")
    make = lambda folder: finished.train_in_process(make_config(data_dir), folder)  # noqa: E731
    return finished.once(shared / "runs" / name, make)


@pytest.fixture(scope="session")
def finished_ghns(shared, data_dir):
    """GHNS on four devices, as `tests.tiny.ghns_config` says."""
    return _made_in_process(shared, data_dir, "ghns")


@pytest.fixture(scope="session")
def finished_hdcl(shared, data_dir):
    """HDCL for retrieval of unseen classes, as `tests.tiny.hdcl_config` says."""
    return _made_in_process(shared, data_dir, "hdcl")


@pytest.fixture(scope="session")
def finished_recognition(shared, data_dir):
    """HDCL as a classifier, as `tests.tiny.recognition_config` says."""
    return _made_in_process(shared, data_dir, "recognition")


@pytest.fixture(scope="session")
def finished_ccfr(shared, data_dir):
    """CCFR on four devices, as `tests.tiny.ccfr_config` says."""
    return _made_in_process(shared, data_dir, "ccfr")


@pytest.fixture(scope="session")
def finished_probe(shared, data_dir):
    """The probe, as `tests.tiny.probe_config` says."""
    return _made_in_process(shared, data_dir, "probe")
