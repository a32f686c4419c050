"""CCFR: its objectives by hand, hierarchy and thresholds, whole runs and their switches."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax import losses, main, methods, models
from fgjax.config import check, override
from fgjax.data.images import Encoded
from fgjax.errors import UserError
from fgjax.evaluation.rerank import Neighbours, Thresholds, search_thresholds
from fgjax.figures.common import image_of
from fgjax.methods import ccfr
from fgjax.methods.ccfr import figures, hierarchy, reranking
from fgjax.methods.ccfr.method import train
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions
from fgjax.methods.ccfr.regions import load_network, without_fusion
from tests import tiny


@pytest.fixture
def config(data_dir):
    """The demo's shape at 32 px, four images a class; anchors on grids of 4 and 2."""
    return tiny.ccfr_config(data_dir)


@pytest.fixture(scope="module")
def network():
    backbone = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    regions = Regions((0.25, 0.5), (4, 2), 1, 2, 16, 0.25, True)
    model = RegionNetwork(
        backbone, regions, fusion=True, width=8, dtype=jnp.float32, rngs=nnx.Rngs(1)
    )
    model.eval()
    return model


def batch(labels=(0, 0, 1, 1, 2, 2)):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (len(labels), 32, 32, 3)).astype(np.uint8)
    return {"image": image, "label": np.array(labels, np.int32)}


def entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    own = np.take_along_axis(logits, np.asarray(labels)[..., None], axis=-1)[..., 0]
    top = logits.max(axis=-1)
    return np.log(np.exp(logits - top[..., None]).sum(axis=-1)) + top - own


@pytest.mark.parametrize(
    ("enhanced", "ranked", "weight", "concat"),
    [(False, True, 1.0, False), (True, True, 1.0, False), (True, False, 1.0, False),
     (True, True, 0.25, False), (True, True, 0.0, False), (False, True, 1.0, True)],
)  # fmt: skip
def test_the_objective_by_loops(network, enhanced, ranked, weight, concat):
    given = batch()
    loss = ccfr.RegionLoss(
        enhanced=enhanced, ranked=ranked, mu=0.5, margin=0.3, region_weight=weight, concat=concat
    )
    value, _ = loss(network, given, {}, None)
    outputs = network(given["image"], ranked=ranked)
    labels = given["label"]
    wanted = entropy(outputs["global_logits"], labels).mean()
    if ranked:
        parts = entropy(outputs["part_logits"], np.repeat(labels[:, None], 4, 1))
        scores = np.asarray(outputs["proposed"], np.float64)
        ranking = [
            max(0, 1 - (scores[b, i] - scores[b, j]))
            for b in range(6) for i in range(4) for j in range(4) if parts[b, j] > parts[b, i]
        ]  # fmt: skip
        wanted += parts.mean() + np.sum(ranking) / 6
    if concat:
        wanted += entropy(outputs["logits"], labels).mean()
    if enhanced:
        wanted *= weight
        x = np.asarray(outputs["features"], np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cos = x @ x.T
        triplets = [
            max(0, 0.3 - min(cos[a, p] for p in range(6) if p != a and labels[p] == labels[a])
                + max(cos[a, n] for n in range(6) if labels[n] != labels[a]))
            for a in range(6)
        ]  # fmt: skip
        wanted += entropy(outputs["logits"], labels).mean() + 0.5 * np.mean(triplets)
    assert float(value) == pytest.approx(wanted, rel=2e-3)


def test_anchors_without_a_pair_do_not_count():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    found = losses.batch_hard_cosine_triplet_loss(x, np.array([0, 0, 1, 2]), margin=2.0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cos = unit @ unit.T
    wanted = np.mean([2 - cos[a, 1 - a] + max(cos[a, 2], cos[a, 3]) for a in (0, 1)])
    assert float(found) == pytest.approx(wanted, rel=1e-3)
    for labels in (np.arange(4), np.zeros(4, int)):
        assert float(losses.batch_hard_cosine_triplet_loss(x, labels)) == 0
    zero = jax.grad(lambda e: losses.batch_hard_cosine_triplet_loss(e, np.array([0, 0, 1, 1])))
    assert np.isfinite(zero(jnp.zeros((4, 3)))).all()


def test_regions_may_be_ranked_by_their_own_triplets(network):
    """Each place of the ranking by itself; which region is better teaches the pyramid alone."""
    given = batch()
    labels = given["label"]
    outputs = network(given["image"], ranked=True)
    teacher = np.zeros((6, 4))
    for place in range(4):
        x = np.asarray(outputs["part_features"][:, place], np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cos = x @ x.T
        for a in range(6):
            same = [cos[a, p] for p in range(6) if p != a and labels[p] == labels[a]]
            others = [cos[a, n] for n in range(6) if labels[n] != labels[a]]
            teacher[a, place] = max(0, 0.3 - min(same) + max(others))
    scores = np.asarray(outputs["proposed"], np.float64)
    wanted = np.sum([
        max(0, 1 - (scores[b, i] - scores[b, j]))
        for b in range(6) for i in range(4) for j in range(4) if teacher[b, j] > teacher[b, i]
    ]) / 6  # fmt: skip
    loss = ccfr.RegionLoss(enhanced=False, margin=0.3, ranked_by="triplet")
    _, metrics = loss(network, given, {}, None)
    _, plain = ccfr.RegionLoss(enhanced=False, margin=0.3)(network, given, {}, None)
    assert float(metrics["ranking_loss"]) == pytest.approx(wanted, rel=2e-3)
    assert float(metrics["ranking_loss"]) != float(plain["ranking_loss"])


def gradient_of(network, part):
    """Sums of |gradient| of one term by the module that it reaches."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    given = batch()

    @jax.jit
    @jax.grad
    def objective(params):
        model = nnx.merge(graph, params, rest, copy=True)
        outputs = model(given["image"], ranked=True)
        parts = optax.softmax_cross_entropy_with_integer_labels(
            outputs["part_logits"], given["label"][:, None]
        )
        terms = {"ranking": losses.ranking_loss(outputs["proposed"], parts), "parts": parts,
                 "softmax": outputs["logits"]}  # fmt: skip
        return jnp.sum(terms[part])

    found = nnx.to_pure_dict(objective(params))
    return {name: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(part))
            for name, part in found.items()}  # fmt: skip


def test_the_ranking_loss_trains_the_pyramid_alone(network):
    """The teacher gets no gradient, and proposals do not train the extractor (NTS-Net)."""
    ranking = gradient_of(network, "ranking")
    assert ranking["pyramid"] > 0
    assert all(value == 0 for name, value in ranking.items() if name != "pyramid")
    for part in ("parts", "softmax"):
        found = gradient_of(network, part)
        assert found["pyramid"] == 0 and found["backbone"] > 0
    assert gradient_of(network, "softmax")["fusion"] > 0


def test_super_classes_are_the_planted_ones():
    rng = np.random.default_rng(0)
    planted = np.array([0, 1, 2, 0, 1, 2, 2, 1, 0, 0])
    centers = np.eye(3, 8)[planted]
    labels = np.repeat(np.arange(10), 5)
    features = centers[labels] + rng.normal(0, 0.05, (50, 8))
    means = hierarchy.class_means(features, labels, 10)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, rtol=1e-5)
    found = hierarchy.cluster(means, 3, seed=0)
    np.testing.assert_array_equal(found, planted)  # numbered by their first class
    absent = hierarchy.cluster(np.concatenate([means[:4], 0 * means[:2]]), 3, seed=0)
    np.testing.assert_array_equal(absent, [0, 1, 2, 0, -1, -1])
    assert hierarchy.cluster(means[[0, 0]], 2, seed=0).tolist() == [0, 0]
    assert [hierarchy.super_class_count(0, c) for c in (100, 200, 196, 24, 2)] == [20, 40, 39, 5, 1]
    assert hierarchy.super_class_count(7, 100) == 7


def test_multi_level_loss_or_cross_entropy():
    backbone = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    model = ccfr.MultiLevelNetwork(backbone, 2, rngs=nnx.Rngs(1))
    model.eval()
    given, parents = batch(), (0, 1, 1)
    outputs = model(given["image"])
    labels = given["label"]
    plain, _ = ccfr.GlobalLoss((), 1.0)(model, given, {}, None)
    assert float(plain) == pytest.approx(entropy(outputs["logits"], labels).mean(), rel=1e-3)
    whole, metrics = ccfr.GlobalLoss(parents, 0.5)(model, given, {}, None)
    own = np.array(parents)[labels]
    p = np.asarray(jax.nn.softmax(outputs["logits"]), np.float64)
    q = np.asarray(jax.nn.softmax(outputs["parent_logits"]), np.float64)
    order = [max(0, np.mean(p[b, np.array(parents) == own[b]]) - q[b, own[b]]) for b in range(6)]
    coarse = entropy(outputs["parent_logits"], own)
    wanted = (entropy(outputs["logits"], labels) + 0.5 * coarse + order).mean()
    assert float(whole) == pytest.approx(wanted, rel=1e-3)
    hits = np.mean(np.asarray(outputs["parent_logits"]).argmax(1) == own)
    assert float(metrics["super_class_accuracy"]) == pytest.approx(hits)


# Thresholds


def test_the_search_prefers_what_comes_first_and_finds_what_is_better():
    """Every second query is unsure and wrong; its neighbours know."""
    labels = np.arange(20) % 4
    probabilities = np.full((20, 4), 0.05)
    shown = np.where(np.arange(20) % 2, (labels + 1) % 4, labels)
    top = np.where(np.arange(20) % 2, 0.45, 0.85)
    probabilities[np.arange(20), shown] = top
    near = Neighbours(np.full((20, 3), 0.8, np.float32), np.repeat(labels[:, None], 3, 1),
                      np.zeros((20, 3), int))  # fmt: skip
    useless, blind = Thresholds(4, 3, 0.3, 0.7), Thresholds(4, 3, 0.9, 0.9)
    good, same = Thresholds(4, 3, 0.5, 0.7), Thresholds(4, 3, 0.6, 0.7)
    search = lambda *c: search_thresholds(probabilities, labels, near, c)  # noqa: E731
    assert search(useless, blind) == (useless, 0.5)
    assert search(useless, blind, good, same) == (good, 1.0)
    assert search(same, good)[0] == same


def test_what_is_tried_begins_with_the_papers_values():
    preset = Thresholds(5, 50, 0.7, 0.7)
    tried = reranking.thresholds_to_try(preset, 100, 6000)
    assert tried[0] == preset and tried[-1].probability_threshold == 0
    assert {t.top_n for t in tried} == {2, 3, 4, 5, 6} and {t.top_m for t in tried} == {10, 50, 200}
    small = reranking.thresholds_to_try(preset._replace(top_n=3, top_m=8), 3, 8)
    assert max(t.top_n for t in small) == 3 and max(t.top_m for t in small) == 8


def test_probabilities_are_dealt_out_in_the_new_order():
    rng = np.random.default_rng(0)
    probabilities, scores = rng.dirichlet(np.ones(6), 5), rng.normal(size=(5, 6))
    found = reranking.reordered(probabilities, scores)
    np.testing.assert_allclose(np.sort(found), np.sort(probabilities))
    np.testing.assert_array_equal(np.argsort(found), np.argsort(scores))


def test_cover_by_hand():
    parts = np.array([[0.0, 0.0, 0.4, 0.4]] * 3)
    boxes = np.array([[[0.0, 0.0, 0.2, 0.4]], [[0.0, 0.0, 0.19, 0.4]], [[0.5, 0.5, 1.0, 1.0]]])
    assert figures._covers(boxes, parts, 0.5).tolist() == [True, False, False]


# Whole runs


def test_a_run_ends_with_every_score_and_its_pictures(finished_ccfr):
    results = json.loads((finished_ccfr / "results.json").read_text())
    metrics, protocol = results["metrics"], results["protocol"]
    for name in ("top1", "classification_top1", "retrieval_top1", "global_top1", "held_out_top1"):
        assert 0 <= metrics[name] <= 1
    gained = (metrics["rectified"] - metrics["broken"]) / 96
    assert metrics["top1"] == pytest.approx(metrics["classification_top1"] + gained)
    assert protocol["test_split_used_for_selection"] is False
    for name in ("regions.webp", "hierarchy.webp", "reranking.webp", "curves.png",
                 "confusions.webp"):  # fmt: skip
        path = finished_ccfr / "figures" / name
        if name != "reranking.webp" or metrics["rectified"] + metrics["broken"]:
            assert cv2.imread(str(path)).std() > 5
    assert (finished_ccfr / "figures" / "coverage.json").exists()


@pytest.mark.usefixtures("relaxed")
def test_the_same_words_find_everything_done(config, finished_ccfr, copy_of):
    again = main.run(config, copy_of(finished_ccfr), figures=False)
    assert again == json.loads((finished_ccfr / "results.json").read_text())


def test_new_images_are_classified_and_reranked_as_the_test_images_were(finished_ccfr):
    run = main.open_run(finished_ccfr)
    predictor = ccfr.load_predictor(run)
    images = [Encoded(run.dataset.test.source[row]["image"]) for row in range(12)]
    found = predictor(images, batch_size=8)
    stored = run.stages["rerank"].load_arrays("predictions")
    np.testing.assert_array_equal(
        [p.probabilities.argmax() for p in found], stored["logits"][:12].argmax(axis=1)
    )
    np.testing.assert_allclose(
        [p.probabilities for p in found], stored["calibrated"][:12], atol=2e-3
    )
    selected = run.stages["enhance"].load_arrays("regions")["boxes"][:12]
    np.testing.assert_allclose([p.parts for p in found], selected, atol=1e-5)
    pixels = [image_of(run.dataset.test, row) for row in range(8)]
    whole = np.stack([cv2.resize(image, (32, 32)) for image in pixels])
    embedded = ccfr.load_embedder(run)(whole)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize(
    "changes",
    [
        {"method.regions": False, "method.multi_level": False},
        {"method.scale_separated": False, "method.fusion": False},
        {"method.frozen": True, "method.rerank.thresholds": "auto", "method.beside_nts": True},
        {"method.rerank.thresholds": "test"},
        {"method.boxes": "random"},
        {"method.concat_loss": True, "method.fusion_norm": True, "method.region_weight": 0.25},
        {"method.rerank.thresholds": "preset", "data.held_out": 0.0},
        {"method.boxes": "annotated", "method.ranked_by": "triplet", "method.pyramid_maps": 2},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_switch_ends_in_a_result(config, finished_ccfr, tmp_path, changes):
    # With other held-out images every stage is another one, so nothing can be reused.
    reuse = "" if "data.held_out" in changes else str(finished_ccfr)
    changed = override(config, {**changes, "reuse": reuse})
    results = main.run(changed, tmp_path, figures=True)
    metrics, protocol = results["metrics"], results["protocol"]
    tuned = changes.get("method.rerank.thresholds") == "test"
    assert protocol["test_split_used_for_selection"] is tuned
    assert ("TEST" in protocol["thresholds_from"]) is tuned
    if tuned:
        assert metrics["top1"] >= metrics["classification_top1"]
    if changes.get("method.regions") is False:
        assert metrics["classification_top1"] == metrics["global_top1"]
    if changes.get("method.boxes") == "annotated":
        assert protocol["boxes_used"] == "parts, also of the test images"
        with pytest.raises(UserError, match="annotated parts, which new images do not have"):
            ccfr.load_predictor(main.open_run(tmp_path))
    if changes.get("method.frozen"):
        run = main.open_run(tmp_path)
        stages = train(run, run.config.method)
        method = run.config.method
        one, other = (
            nnx.to_pure_dict(nnx.state(load_network(run, settings, stages[name])))
            for name, settings in (
                ("navigator", without_fusion(method)),
                ("enhance", method),
            )
        )
        jax.tree.map(np.testing.assert_array_equal, one["pyramid"], other["pyramid"])
        kernels = [state["backbone"]["conv1"]["kernel"] for state in (one, other)]
        assert not np.array_equal(*kernels)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_images_that_shots_leave_out_are_no_neighbours(config, tmp_path):
    changes = {"data.shots": 2, "method.regions": False, "method.rerank.top_m": 12}
    main.run(override(config, changes), tmp_path, figures=False)
    run = main.open_run(tmp_path)
    assert len(ccfr.load_predictor(run).database) == 2 * 24
    found = run.stages["rerank"].load_arrays("predictions")
    assert set(np.unique(found["neighbour_rows"])) <= set(run.train_indices.tolist())
    labels = run.dataset.train.labels[found["neighbour_rows"]]
    np.testing.assert_array_equal(found["neighbour_labels"], labels)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("scales", (0.2, 1.5), "each above 0 and at most 1"),
     ("ranked_per_scale", 1, "at least per_scale"),
     ("scale_separated", False, "fusion network takes each scale"), ("per_class", 1, "at least 2"),
     ("iou_threshold", 0.0, "above 0"), ("rerank.thresholds", "guess", "held_out, auto"),
     ("rerank.top_n", 0, "1 or more"), ("enhance.batch_size", 4, "None"),
     ("per_class", 24, "with at least two classes"), ("margin", -1.0, "at least 0"),
     ("region_weight", -0.5, "at least 0"),
     ("pyramid_maps", 3, "at least 1 and at most 2"),
     ("ranked_by", "luck", "cross_entropy, triplet"),
     ("clusters", "luck", "classifier, imagenet")],
)  # fmt: skip
def test_impossible_settings_are_refused(config, field, value, says):
    changed = override(config, {f"method.{field}": value})
    if says == "None":
        check(changed, devices=4)
        return
    with pytest.raises(UserError, match=says):
        check(changed, devices=4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"method.rerank.top_n": 25}, "top_n is 25, but synthetic_aircraft has only 24 classes"),
     ({"method.enhance.batch_size": 52}, "enhance.batch_size is 52, .* 24 .* give at most 48: set"),
     ({"method.navigator.batch_size": 52, "method.ranked_by": "triplet"}, "navigator.* at most 48"),
     ({"method.rerank.top_m": 73}, "top_m is 73, but .* only 72 images of the database"),
     ({"method.super_classes": 30}, "super_classes is 30"),
     ({"method.ranked_per_scale": 5}, "smallest level has 4 anchors"),
     ({"data.image_size": 40}, "40, which the pyramid's 2 levels do not divide"),
     ({"data.held_out": 0.0}, "none are held out"),
     ({"method.clusters": "imagenet"}, "pretrained names no weights")],
)  # fmt: skip
def test_what_does_not_fit_the_data_is_said_before_training(config, tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        main.run(override(config, changes), tmp_path)
    assert not (tmp_path / "classifier").exists()


def test_every_row_of_every_study_is_a_valid_config(config):
    found = methods.studies(config)
    assert set(found) == {"run", "boxes", "table2", "table3", "table4", "figure6", "figure6b",
                          "frozen", "few_shot", "levers"}  # fmt: skip
    for row in (row for study in found.values() for row in study.rows):
        check(override(config, row.overrides), devices=4)
