"""Parts where queries look: against loops, kept apart, and in a whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import losses, main, models
from fgjax.config import override
from fgjax.figures.common import image_of
from fgjax.methods import lapm
from fgjax.methods.shared.attended_parts import AttendedParts, QueryLoss
from fgjax.methods.shared.attention_head import AttentionHead
from tests import tiny


def random_head(queries=3, depth=6, classes=4):
    rng = np.random.default_rng(0)
    head = AttentionHead(
        rng.normal(size=(depth, classes)), rng.normal(size=classes), queries, jax.random.key(0)
    )
    head.queries[...] = jnp.asarray(rng.normal(size=(queries, depth)) * 4, jnp.float32)
    maps = rng.uniform(size=(5, 4, 4, depth)).astype(np.float32)
    return head, maps


def test_the_loss_is_cross_entropy_and_a_price_for_seeing_the_same():
    head, maps = random_head()
    batch = {"map": maps, "label": np.array([0, 1, 2, 3, 0], np.int32)}
    value, metrics = QueryLoss(diversity_weight=3.0, margin=0.05)(head, batch, {}, None)
    logits, shares = (np.asarray(x, np.float64) for x in head(maps))
    top = logits.max(axis=1, keepdims=True)
    entropy = (
        np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[range(5), batch["label"]]
    )
    overlap = 0.0
    for image in shares:
        for i, own in enumerate(image):
            others = np.max([image[k] for k in range(3) if k != i], axis=0)
            overlap += np.sum(own * (others - 0.05)) / 5
    assert float(metrics["entropy"]) == pytest.approx(entropy.mean(), rel=1e-4)
    assert float(metrics["diversity"]) == pytest.approx(overlap, rel=1e-4)
    assert float(value) == pytest.approx(entropy.mean() + 3 * overlap, rel=1e-4)
    assert float(losses.part_diversity(np.moveaxis(shares, 1, -1).astype(np.float32))[0]) != 0


@pytest.mark.parametrize("refined", [False, True])
def test_a_part_stands_where_its_query_looks_most(refined):
    backbone = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    model = AttendedParts(backbone, 3, refined=refined, key=jax.random.key(1))
    model.eval()
    rng = np.random.default_rng(0)
    model.head.queries[...] = jnp.asarray(
        rng.normal(size=model.head.queries[...].shape) * 20, jnp.float32
    )
    images = rng.integers(0, 255, (4, 32, 32, 3)).astype(np.uint8)
    outputs = model(images)
    _, shares = model.head(models.last_map(outputs))
    side = shares.shape[-1]
    for own, centers in zip(np.asarray(shares), np.asarray(outputs["centers"])):
        for share, center in zip(own, centers):
            best = (np.array(np.unravel_index(share.argmax(), share.shape)) + 0.5) / side
            assert np.abs(center - best).max() <= (1 / side if refined else 1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_a_run_with_them_predicts_with_the_same_parts(data_dir, tmp_path):
    config = override(tiny.shrink(str(data_dir)), {"method.parts": "attention"})
    results = main.run(config, tmp_path, figures=False)
    assert "test_part_centers_inside" in results["metrics"]["localization"]
    run = main.open_run(tmp_path)
    predictor = lapm.load_predictor(run)
    stored = run.stages["parts"].load_arrays("boxes")["test"][:4]
    windows = run.stages["objects"].load_arrays("boxes")["test"][:4]
    pixels = [image_of(run.dataset.test, row) for row in range(4)]
    crops = predictor._crops(pixels, windows)
    np.testing.assert_allclose(predictor.localizer.parts(crops, windows), stored, atol=1e-5)
