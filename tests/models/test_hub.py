"""Weights from the Hub: a real client against a server on loopback, in a process of its own."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from tests.fake_hub import Hub

ROOT = pathlib.Path(__file__).parents[2]
_LOAD = """
import sys
from flax import nnx
from fgjax import models
from fgjax.errors import UserError
model = nnx.eval_shape(lambda: models.build("resnet18", num_classes=5, rngs=nnx.Rngs(0)))
try:
    models.load_pretrained(model, "timm/resnet18.tv_in1k")
    print(float(model.conv1.kernel[...].sum()))
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def data():
    """Whole weights of ResNet-18, 45 MB."""
    from tests.models import golden

    arrays = golden.weights(golden.read()["resnet18"]["torchvision"])
    return safetensors.numpy.save(arrays), arrays


@pytest.fixture
def load(tmp_path):
    def run(hub):
        environment = {
            **os.environ, "HF_ENDPOINT": hub if isinstance(hub, str) else hub.address,
            "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            "TQDM_POSITION": "-1",  # the client shows progress on terminals, and where this is set
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-c", _LOAD], env=environment, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    run.cache = tmp_path / "hf" / "hub"
    return run


def stored(cache):
    """Sizes of the weights in the cache; locks and notes are empty or tiny."""
    files = [p for p in cache.rglob("*") if p.is_file() and not p.is_symlink()]
    return [p.stat().st_size for p in files if p.stat().st_size > 1000]


@pytest.mark.slow
def test_a_broken_download_is_taken_up_where_it_stopped(data, load):
    content, arrays = data
    with Hub(content) as hub:
        hub.break_at = [25_000_000, 15_000_000]  # the client keeps whole chunks of 10 MiB
        done = load(hub)
        assert done.returncode == 0, done.stderr
        assert len(hub.ranges) == 3 and hub.ranges[0] is None
        first, second = (int(r.removeprefix("bytes=").removesuffix("-")) for r in hub.ranges[1:])
        assert 0 < first <= 25_000_000 and first < second <= 40_000_000
        total = float(done.stdout.split()[-1])
        assert total == pytest.approx(float(arrays["conv1.weight"].sum()), rel=1e-4)
        assert "model.safetensors" in done.stderr and "%" in done.stderr  # progress
        hub.ranges.clear()
        assert load(hub).returncode == 0
        assert hub.ranges == []  # cached
    assert load("http://127.0.0.1:9").returncode == 0  # also without a way out


def test_a_corrupt_file_is_refused_and_leaves_no_trace(data, load):
    content, _ = data
    broken = np.frombuffer(content, np.uint8).copy()
    broken[-1000:] ^= 255
    with Hub(content) as hub:
        hub.data = broken.tobytes()  # under the checksum of the whole one
        done = load(hub)
        assert done.returncode == 1
        assert "corrupt and were removed from the cache" in done.stderr
        assert "Traceback" not in done.stderr
        assert stored(load.cache) == []
        hub.data = content
        assert load(hub).returncode == 0  # the sentence's advice works


@pytest.mark.slow  # the client tries again for half a minute
def test_a_server_that_stays_down(data, load):
    content, _ = data
    with Hub(content) as hub:
        hub.break_at = [1000] + [0] * 50
        done = load(hub)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert "timm/resnet18.tv_in1k are not cached and could not be downloaded" in sentence
    assert (
        "--config.pretrained=FILE.safetensors" in sentence and "--config.pretrained=''" in sentence
    )
    assert stored(load.cache) == []
