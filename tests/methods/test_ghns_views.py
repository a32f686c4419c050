"""GHNS with several views of each image, with shuffled batches, and its embeddings."""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import main
from fgjax.config import override
from fgjax.methods import ghns
from fgjax.methods.ghns import figures, filtering, parts_classifier
from fgjax.methods.ghns.hard_negatives import HardNegatives
from fgjax.methods.ghns.part_networks import load_views
from fgjax.methods.ghns.part_sets import Views
from fgjax.training.run import Stage
from tests import tiny

LABELS = np.repeat(np.arange(4), [6, 2, 7, 5])


def test_views_of_an_image_are_itself_to_recipes():
    """A recipe is of views; its reference and what is read again are images."""
    features = np.random.default_rng(0).normal(size=(3 * 20, 3, 2)).astype(np.float32)
    views = Views(features, np.tile(LABELS, 3), 20)
    assert views.count == 3
    assert views.of(np.array([4, 9])).tolist() == [4, 9, 24, 29, 44, 49]
    assert views.images_of(np.array([4, 29, 44])).tolist() == [4, 9, 4]
    rng = np.random.default_rng(0)
    assert {views.draw(4, rng) for _ in range(50)} == {4, 24, 44}
    kept = HardNegatives(
        rows=np.array([[24, 49, 24]], np.int32), reference=np.array([24], np.int32),
        mask=np.ones(1, np.int32), label=LABELS[4:5], probability=np.ones(1, np.float32),
    )  # fmt: skip
    transform, seen = parts_classifier.Quadruplets(kept, views, seed=0), set()
    for position in range(30):
        made = transform(position, 4)
        assert made["hard_rows"].tolist() == [4, 9, 4] and made["label"] == LABELS[4]
        np.testing.assert_array_equal(made["hard"], features[[24, 49, 24], [0, 1, 2]])
        seen |= {v for v in (4, 24, 44) if np.array_equal(made["features"], features[v])}
    assert seen == {4, 24, 44}
    cached = filtering.CachedFeatures(views, seed=1)
    rows = {k: [v for v in (7, 27, 47) if np.array_equal(cached(k, 7)["features"], features[v])]
            for k in range(30)}  # fmt: skip
    assert {v for found in rows.values() for v in found} == {7, 27, 47}
    one = Views(features[:20], LABELS, 20)
    state = rng.bit_generator.state
    assert one.draw(4, rng) == 4 and rng.bit_generator.state == state  # batches stay as they were


def test_a_reference_alone_in_its_batch_has_no_quadruplet():
    """As in shuffled batches: only the two of one class have a positive."""
    rng = np.random.default_rng(3)
    labels = np.array([0, 0, 1, 2], np.int32)
    head = parts_classifier.PartsHead(6, 4, embedding=5, rngs=nnx.Rngs(0))
    batch = {"features": rng.normal(size=(4, 3, 2)).astype(np.float32), "label": labels,
             "hard": rng.normal(size=(4, 3, 2)).astype(np.float32),
             "has_hard": np.ones(4, np.float32)}  # fmt: skip
    loss = ghns.PartsLoss(0.0, 0.4, 0.2, 0.2)
    found, metrics = loss(head, batch, {}, jax.random.key(0))
    unit = lambda x: np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float64)  # noqa: E731
    f, hard = (unit(np.asarray(head.embed(jnp.asarray(batch[k])))) for k in ("features", "hard"))
    _, negative = parts_classifier.draw_pairs(jax.random.key(0), jnp.asarray(labels))
    far = lambda a, b: float(np.sum((a - b) ** 2))  # noqa: E731
    total = 0.0
    for r, p in ((0, 1), (1, 0)):
        n = int(negative[r])
        total += 0.5 * max(0, far(f[r], f[p]) - far(f[r], hard[r]) + 0.4 - 0.2)
        total += 0.5 * max(0, far(f[r], hard[r]) - far(f[r], f[n]) + 0.2)
    assert float(found) == pytest.approx(total / 4, rel=1e-4)
    assert float(metrics["positive_distance"]) == pytest.approx(
        math.sqrt(far(f[0], f[1])), rel=1e-5
    )


def test_the_embedding_that_is_drawn_is_that_of_the_parts_classifier():
    """What its last layer makes scores of."""

    class Networks(nnx.Module):
        def __call__(self, images, *, key=None):
            return {"features": images.reshape(*images.shape[:2], -1)[..., :2] / 64.0 - 2.0}

    head = parts_classifier.PartsHead(6, 4, embedding=5, rngs=nnx.Rngs(0))
    model = ghns.PartsClassifier(Networks(), head, unit=True)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 2, 3)).astype(np.uint8)
    found = figures.parts_embedding(model, {"image": pixels})["embedding"]
    scores = np.asarray(found) @ np.asarray(head.fc.kernel[...]) + np.asarray(head.fc.bias[...])
    wanted = parts_classifier.parts_logits(model, {"image": pixels})["logits"]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_a_run_with_several_views_and_shuffled_batches(data_dir, finished_ghns, tmp_path):
    """Stages before these are found; a view is another reading of its image."""
    config = tiny.ghns_config(data_dir)
    changes = {"method.views": 3, "method.per_class": 1, "method.beta": 0.0}
    main.run(override(config, changes | {"reuse": str(finished_ghns)}), tmp_path, figures=True)
    run = main.open_run(tmp_path)
    views = load_views(run, Stage("part_networks", tmp_path / "part_networks", ""))
    assert views.count == 3 and not np.allclose(views.features[0], views.features[views.images])
    kept = filtering.load_kept(Stage("hard_negatives", tmp_path / "hard_negatives", ""))
    assert kept.rows.max() >= views.images  # candidates are made of all views
    images = views.images_of(kept.rows)
    assert not np.isin(images, run.held_out_indices).any()
    assert cv2.imread(str(tmp_path / "figures" / "candidates.webp")).std() > 5
