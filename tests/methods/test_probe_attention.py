"""Queries that attend over a map: against loops, and as the linear head that they begin as."""

import json

import jax
import numpy as np
import pytest

from fgjax import main, methods
from fgjax.config import check, override
from fgjax.data.images import Encoded
from fgjax.errors import UserError
from fgjax.methods.shared import attention_head
from tests import tiny


def random_head(seed=0, queries=3, depth=5, classes=4):
    rng = np.random.default_rng(seed)
    head = attention_head.AttentionHead(
        rng.normal(size=(depth, classes)), rng.normal(size=classes), queries, jax.random.key(0)
    )
    head.queries[...] = rng.normal(size=(queries, depth)).astype(np.float32)
    head.kernel[...] = rng.normal(size=(queries, depth, classes)).astype(np.float32)
    return head, rng.uniform(size=(2, 2, 3, depth)).astype(np.float32)


def test_logits_and_shares_by_loops():
    head, maps = random_head()
    q, w, b = (np.asarray(x[...], np.float64) for x in (head.queries, head.kernel, head.bias))
    logits, shares = head(maps)
    for image, found, seen in zip(maps.astype(np.float64), logits, shares):
        wanted = b.copy()
        for m in range(len(q)):
            scores = np.array(
                [[attention_head._SCALE * q[m] @ place for place in row] for row in image]
            )
            a = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(seen[m], a, rtol=1e-4)
            u = sum(a[y, x] * image[y, x] for y in range(2) for x in range(3))
            wanted += u / np.linalg.norm(u) @ w[m]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_it_begins_as_the_linear_head():
    rng = np.random.default_rng(1)
    maps = rng.uniform(size=(6, 3, 3, 8)).astype(np.float32)
    weights, bias = rng.normal(size=(8, 5)), rng.normal(size=5)
    head = attention_head.AttentionHead(weights, bias, 4, jax.random.key(3))
    means = maps.mean(axis=(1, 2))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    logits, shares = head(maps)
    np.testing.assert_allclose(logits, means @ weights + bias, atol=0.02)
    np.testing.assert_allclose(shares, 1 / 9, atol=1e-3)
    assert len(np.unique(np.asarray(head.queries[...]), axis=0)) == 4  # or they stayed the same


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_a_run_with_it_predicts_what_it_measured(finished_probe, tmp_path):
    config = main.open_run(finished_probe).config
    changed = override(
        config, {"method.head": "attention", "reuse": str(finished_probe), "data.workers": 0}
    )
    results = main.run(changed, tmp_path)
    assert (tmp_path / "figures" / "attention.webp").exists()
    assert results["protocol"]["head"] == "attention"
    assert "without their own class" in results["protocol"]["unknown"]
    opened = main.open_run(tmp_path)
    stored = np.load(tmp_path / "head" / "predictions.npz")
    images = [Encoded(opened.dataset.test.source[row]["image"]) for row in range(6)]
    predictor = methods.of(opened.config).load_predictor(opened)
    temperature = results["metrics"]["temperature"]
    scaled = stored["logits"][:6].astype(np.float64) / temperature
    likely = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    found = [one.probabilities for one in predictor(images)]
    np.testing.assert_allclose(found, likely, rtol=5e-2, atol=2e-3)  # maps are halves there
    assert results["metrics"]["top1"] == np.mean(stored["logits"].argmax(1) == stored["labels"])
    # The same words find everything done, and the loops lie in folders of their own.
    assert {p.name for p in (tmp_path / "head").glob("fold-*")} == {"fold-0", "fold-1"}
    assert main.run(changed, tmp_path, figures=False) == json.loads(
        (tmp_path / "results.json").read_text()
    )


@pytest.mark.parametrize(
    ("field", "value"), [("queries", 0), ("passes", -1), ("learning_rate", 0.0), ("batch_size", 0)]
)
def test_impossible_settings_are_refused(data_dir, field, value):
    config = override(tiny.probe_config(data_dir), {f"method.attention.{field}": value})
    with pytest.raises(UserError, match=rf"config.method.attention.{field} is"):
        check(config, devices=1)
