"""One device and four train alike, in every stage of every method."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fgjax.training.preemption import EXIT_CODE
from tests import finished

pytestmark = pytest.mark.slow

# Four devices add what one adds in another order; a stage begins with what the one before left.
TOLERANCE = 2e-3

_RUN = """
import pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
from fgjax import main
from tests import tiny
main.setup()
assert jax.device_count() == 1
main.run(getattr(tiny, sys.argv[1])(sys.argv[2]), pathlib.Path(sys.argv[3]), figures=False)
"""


def losses(workdir: pathlib.Path) -> dict[str, list[float]]:
    """Of every loop, epoch by epoch."""
    return {
        str(path.parent.relative_to(workdir)): [
            json.loads(line)["loss"] for line in path.read_text().splitlines()
        ]
        for path in sorted(workdir.rglob("metrics.jsonl"))
    }


@pytest.mark.parametrize("name", ["ghns", "hdcl", "recognition", "ccfr", "probe"])
def test_one_device_trains_as_four_do(name, request, shared, data_dir, tmp_path):
    four = request.getfixturevalue(f"finished_{name}")
    environment = finished.environment(data_dir, shared, XLA_FLAGS=finished.HASTY)
    words = ("-c", _RUN, f"{name}_config", data_dir, tmp_path / "run")
    finished.run(*words, environment=environment)
    found, wanted = losses(tmp_path / "run"), losses(four)
    assert found.keys() == wanted.keys()
    for loop, values in wanted.items():
        np.testing.assert_allclose(found[loop], values, rtol=TOLERANCE, err_msg=loop)


def on(devices: int, data_dir, shared) -> dict[str, str]:
    flags = f"{finished.HASTY} --xla_force_host_platform_device_count={devices}"
    return finished.environment(data_dir, shared, XLA_FLAGS=flags)


def test_a_run_that_four_devices_began_is_ended_by_one(finished_lapm, shared, data_dir, tmp_path):
    """Stopped by SIGTERM after its first checkpoint; the same as if one had trained it all."""
    folder = tmp_path / "run"
    words = (finished.DEMO, *finished.TINY, f"--workdir={folder}")
    saving = "--config.checkpoints.every_steps=1"
    process = subprocess.Popen(
        [sys.executable, "train.py", *words, saving], cwd=finished.ROOT, env=on(4, data_dir, shared)
    )
    until = time.monotonic() + 200
    while not list(folder.glob("*/checkpoints/[0-9]*")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == EXIT_CODE
    assert not (folder / "results.json").exists()
    finished.run("train.py", *words, environment=on(1, data_dir, shared))
    margin, wanted = losses(folder)["margin"], losses(finished_lapm)["margin"]
    np.testing.assert_allclose(margin, wanted, rtol=TOLERANCE)
    answers = [folder / "margin" / "predictions.npz", finished_lapm / "margin" / "predictions.npz"]
    np.testing.assert_allclose(*(np.load(path)["logits"] for path in answers), atol=10 * TOLERANCE)
