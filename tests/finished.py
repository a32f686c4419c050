"""Things that are made once for all worker processes of a run of the tests."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import filelock
import jax

ROOT = pathlib.Path(__file__).parents[1]
DEMO = "--config=configs/aircraft.py:demo"
TINY = (
    "--config.data.dataset=synthetic_aircraft/4", "--config.data.image_size=32",
    "--config.data.held_out=0.25", "--config.method.samples=8",
    "--config.method.classifier.epochs=1", "--config.method.grouping.warmup.epochs=1",
    "--config.method.grouping.classify_epochs=1", "--config.method.margin.epochs=2",
    "--config.backbone=tests.tiny:Net",
)  # fmt: skip


# For runs whose time is compiling. What is compared bit by bit must be compiled alike.
HASTY = "--xla_backend_optimization_level=0"


def once(folder: pathlib.Path, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """The folder, filled by the first process that asks for it while the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    finished = folder.with_name(f"{folder.name}.finished")
    with filelock.FileLock(f"{folder}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            finished.touch()
    return folder


def environment(data_dir: str, home: pathlib.Path, **more: str) -> dict[str, str]:
    """Of a process that stands for a person's: one device, compiled as theirs, no way out."""
    unreachable = "http://127.0.0.1:9"
    return {
        **os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "HOME": str(home),
        "FGJAX_DATA": data_dir, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": unreachable,
        "http_proxy": unreachable, "https_proxy": unreachable, "no_proxy": "",
        "HF_HUB_DISABLE_TELEMETRY": "1", **more,
    }  # fmt: skip


def run(*words: str, environment: dict[str, str], cwd: pathlib.Path = ROOT, code: int = 0):
    """`python WORDS` in a process of its own, which must end with that code."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True,
        text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return done


def train_in_process(config, workdir: pathlib.Path) -> None:
    from fgjax import main

    with jax.numpy_dtype_promotion("standard"):  # optax promotes types by itself
        main.run(config, workdir)
