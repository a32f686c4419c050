"""GHNS: its three losses by hand, the generator against plain loops, whole runs in both forms."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import losses, main, methods, models
from fgjax.config import Augmentation, check, override
from fgjax.data import loading
from fgjax.data.images import Encoded
from fgjax.data.loading import Reader
from fgjax.errors import UserError
from fgjax.methods import ghns
from fgjax.methods.ghns import part_networks, parts_classifier
from fgjax.methods.ghns.hard_negatives import HardNegatives
from fgjax.methods.ghns.image_classifier import ImageLoss
from fgjax.methods.ghns.part_sets import PartReader, Views
from tests import tiny

LABELS = np.repeat(np.arange(4), [6, 2, 7, 5])


@pytest.fixture
def config(data_dir):
    """The demo's shape at 32 px, four images a class."""
    return tiny.ghns_config(data_dir)


class FakePartNetworks:
    """Features, logits and the discriminator's answer straight from the pixels."""

    def __call__(self, images, *, key=None):
        flat = images.reshape(*images.shape[:2], -1) / 64.0 - 2.0
        return {"features": flat[..., :4], "logits": flat[..., 4:9],
                "shuffled": flat[:, 0, 9:11]}  # fmt: skip


def part_batch(seed=0, size=6):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 255, (size, 3, 2, 2, 3)).astype(np.uint8),
        "labels": rng.integers(0, 3, (size, 3)).astype(np.int32),
        "is_shuffled": (rng.uniform(size=size) < 0.5).astype(np.float32),
    }


def cross_entropy(logits, label):
    return np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - logits[label]


@pytest.mark.parametrize("weights", [(1, 0.8, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0.5)])
def test_stage_1_is_eq_7_by_loops(weights):
    alpha, beta, gamma = weights
    given = part_batch()
    found, metrics = ghns.PartLoss(alpha, beta, gamma, 0.2)(FakePartNetworks(), given, {}, None)
    pixels = np.asarray(given["image"], np.float64)
    outputs = FakePartNetworks()(pixels)
    labels, size = given["labels"], len(given["labels"])
    cls = triplet = 0.0
    for p in range(3):
        cls += np.mean([cross_entropy(outputs["logits"][b, p], labels[b, p]) for b in range(size)])
        f = outputs["features"][:, p]
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        terms = [
            0.5 * max(0, np.sum((f[a] - f[i]) ** 2) - np.sum((f[a] - f[n]) ** 2) + 0.2)
            for a in range(size) for i in range(size) for n in range(size)
            if a != i and labels[a, p] == labels[i, p] and labels[a, p] != labels[n, p]
        ]  # fmt: skip
        active = [t for t in terms if t > 0]
        triplet += np.mean(active) if active else 0.0
    adversarial = np.mean([
        cross_entropy(outputs["shuffled"][b], int(given["is_shuffled"][b])) for b in range(size)
    ])  # fmt: skip
    wanted = alpha * cls + beta * triplet + gamma * adversarial
    assert float(found) == pytest.approx(wanted, rel=1e-4)
    assert float(metrics["adversarial_loss"]) == pytest.approx(adversarial, rel=1e-4)


def test_each_part_has_a_network_of_its_own():
    rngs = nnx.Rngs(0)
    nets = part_networks.PartNetworks(
        [models.build("tests.tiny:Net", num_classes=5, rngs=rngs) for _ in range(3)], rngs=rngs
    )
    nets.eval()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 16, 16, 3)).astype(np.float32))
    outputs = nets(images)
    assert outputs["logits"].shape == (2, 3, 5) and outputs["shuffled"].shape == (2, 2)
    for p, backbone in enumerate(nets.backbones):
        alone = backbone(images[:, p])
        np.testing.assert_allclose(outputs["features"][:, p], alone["pooled"], rtol=1e-5)
        np.testing.assert_allclose(outputs["logits"][:, p], alone["logits"], rtol=1e-4, atol=1e-5)


def test_the_gradient_is_reversed_on_demand_and_only_before_the_discriminator():
    gradient = jax.grad(lambda x: jnp.sum(part_networks.reverse_gradient(x) ** 2))
    np.testing.assert_allclose(gradient(jnp.arange(3.0)), [0, -2, -4])


def test_a_linear_discriminator_cannot_beat_chance_and_a_hidden_layer_can():
    """Parts that look the same one by one in both kinds of sets: its loss is at least ln 2."""
    rng = np.random.default_rng(0)
    same = rng.integers(0, 2, 4000) * 2.0 - 1  # both parts show the same sign, or different ones
    shuffled = rng.integers(0, 2, 4000)
    parts = np.stack([same, np.where(shuffled, -same, same)], axis=1).astype(np.float32)

    def trained(hidden: int) -> float:
        class Part(nnx.Module):
            features = 1

            def __call__(self, x, *, key=None):
                return {"pooled": x, "logits": x}

        net = part_networks.PartNetworks(
            [Part(), Part()], discriminator_hidden=hidden, rngs=nnx.Rngs(0)
        )
        graph, params, rest = nnx.split(net, nnx.Param, ...)

        @jax.jit
        def step(params):
            def loss(params):
                logits = nnx.merge(graph, params, rest)(parts[..., None])["shuffled"]
                return jnp.mean(losses.shuffle_loss(logits, shuffled))

            value, gradient = jax.value_and_grad(loss)(params)
            return value, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)

        for _ in range(300):
            value, params = step(params)
        return float(value)

    assert trained(0) > 0.692
    assert trained(16) < 0.1


# Stage 2


def test_pairs_come_from_the_right_classes():
    labels = jnp.asarray([0, 0, 1, 1, 2, 2])
    for seed in range(30):
        positive, negative = parts_classifier.draw_pairs(jax.random.key(seed), labels)
        assert (labels[positive] == labels).all() and (positive != jnp.arange(6)).all()
        assert (labels[negative] != labels).all()


def test_stage_3_is_eq_10_by_loops():
    head = parts_classifier.PartsHead(12, 3, embedding=6, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    batch = {
        "features": rng.normal(size=(6, 3, 4)).astype(np.float32),
        "hard": rng.normal(size=(6, 3, 4)).astype(np.float32),
        "has_hard": np.array([1, 1, 0, 1, 0, 1], np.float32),
        "label": np.array([0, 0, 1, 1, 2, 2], np.int32),
    }
    key = jax.random.key(5)
    found, _ = ghns.PartsLoss(0.75, 0.4, 0.2, 0.3)(head, batch, {}, key)
    w, b = (np.asarray(x[...], np.float64) for x in (head.embedding.kernel, head.embedding.bias))
    embed = lambda x: np.maximum(x.reshape(6, 12) @ w + b, 0)  # noqa: E731
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    f, hard = unit(embed(batch["features"])), unit(embed(batch["hard"]))
    positive, negative = map(
        np.asarray, parts_classifier.draw_pairs(key, jnp.asarray(batch["label"]))
    )
    d = lambda x, y: np.sum((x - y) ** 2)  # noqa: E731
    metric = 0.0
    for i in range(6):
        near, far = d(f[i], f[positive[i]]), d(f[i], f[negative[i]])
        if batch["has_hard"][i]:
            between = d(f[i], hard[i])
            metric += 0.5 * max(0, near - between + 0.4 - 0.2) + 0.5 * max(0, between - far + 0.2)
        else:
            metric += 0.5 * max(0, near - far + 0.3)
    fc, shift = (np.asarray(x[...], np.float64) for x in (head.fc.kernel, head.fc.bias))
    logits = embed(batch["features"]) @ fc + shift
    entropy = np.mean([cross_entropy(o, y) for o, y in zip(logits, batch["label"])])
    assert float(found) == pytest.approx(0.75 * entropy + 0.25 * metric / 6, rel=1e-4)


def test_hard_negatives_go_through_the_networks_in_the_same_step():
    """The finetuned form: the same mode, one forward pass for all, and a gradient for n⁺."""
    passes = []

    class Model:
        def __init__(self):
            self.head = parts_classifier.PartsHead(12, 3, embedding=0, rngs=nnx.Rngs(0))

        def features(self, images, key=None):
            passes.append(len(images))
            return images

    rng = np.random.default_rng(1)
    draw = lambda: jnp.asarray(rng.normal(size=(6, 3, 4)).astype(np.float32))  # noqa: E731
    batch = {"image": draw(), "hard_image": draw(), "has_hard": np.ones(6, np.float32),
             "label": np.array([0, 0, 1, 1, 2, 2], np.int32)}  # fmt: skip
    loss = ghns.PartsLoss(0.75, 0.4, 0.2, 0.3)
    found, _ = loss(Model(), batch, {}, jax.random.key(0))
    assert passes == [12]
    cached = {**batch, "features": batch["image"], "hard": batch["hard_image"]}
    wanted, _ = loss(Model().head, cached, {}, jax.random.key(0))
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
    of_hard = lambda x: loss(Model(), {**batch, "hard_image": x}, {}, jax.random.key(0))[0]  # noqa: E731
    assert np.abs(jax.grad(of_hard)(batch["hard_image"])).max() > 1e-4


def test_a_hard_negative_is_read_like_its_reference(tiny_dataset):
    """Where its recipe is the reference alone, n⁺ is another view of it, read likewise."""
    split = tiny_dataset.train
    boxes = np.broadcast_to(np.array([[0, 0, 1, 0.5], [0, 0.5, 1, 1]], np.float32),
                            (len(split), 2, 4))  # fmt: skip
    reader = PartReader(Reader(split, 32, Augmentation(), None, boxes), 16)
    kept = HardNegatives(
        rows=np.array([[3, 8]], np.int32), reference=np.array([3], np.int32),
        mask=np.zeros(1, np.int32), label=split.labels[3:4], probability=np.ones(1, np.float32),
    )  # fmt: skip
    views = Views(np.zeros((len(split), 2, 1), np.float32), split.labels, len(split))
    made = parts_classifier.Quadruplets(kept, views, seed=0, reader=reader)(5, 3)
    rng = loading.generator(0, 5)
    rng.choice(np.array([0]))
    np.testing.assert_array_equal(made["image"], reader.read(3, rng)[0])
    np.testing.assert_array_equal(made["hard_image"][0], reader.read(3, rng)[0][0])
    np.testing.assert_array_equal(made["hard_image"][1], reader.read(8, rng)[0][1])


def test_object_and_original_losses_are_entropy_and_triplets():
    class Fake:
        def __call__(self, images, *, key=None):
            flat = images.reshape(len(images), -1) / 64.0 - 2.0
            return {"pooled": flat[:, :4], "logits": flat[:, 4:9]}

    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 255, (6, 2, 2, 3)).astype(np.uint8),
             "label": np.array([0, 0, 1, 1, 2, 2], np.int32)}  # fmt: skip
    found, metrics = ImageLoss(0.8, 0.2)(Fake(), batch, {}, None)
    outputs = Fake()(np.asarray(batch["image"]))
    unit = outputs["pooled"] / np.linalg.norm(outputs["pooled"], axis=1, keepdims=True)
    triplet = losses.batch_all_triplet_loss(unit, batch["label"], margin=0.2, squared=True)
    entropy = np.mean([cross_entropy(o.astype(np.float64), y)
                       for o, y in zip(outputs["logits"], batch["label"])])  # fmt: skip
    assert float(found) == pytest.approx(0.8 * entropy + 0.2 * float(triplet), rel=1e-4)
    assert float(metrics["triplet_loss"]) > 0


def test_a_reference_gets_its_own_hard_negative_before_its_classs():
    kept = HardNegatives(
        rows=np.array([[0, 9, 0], [1, 1, 9], [7, 6, 6]], np.int32),
        reference=np.array([0, 1, 6], np.int32),
        mask=np.array([1, 2, 0], np.int32),
        label=np.array([0, 0, 1], np.int32),
        probability=np.ones(3, np.float32),
    )
    features = np.arange(20 * 3 * 2, dtype=np.float32).reshape(20, 3, 2)
    transform = parts_classifier.Quadruplets(kept, Views(features, LABELS, 20), seed=0)
    for position in range(10):
        own = transform(position, 0)
        assert own["hard_rows"].tolist() == [0, 9, 0]
        np.testing.assert_array_equal(own["hard"], features[[0, 9, 0], [0, 1, 2]])
        assert transform(position, 3)["hard_rows"].tolist() in ([0, 9, 0], [1, 1, 9])
        none = transform(position, 19)
        assert none["has_hard"] == 0
        np.testing.assert_array_equal(none["hard"], features[19])


# Whole runs


def test_a_run_ends_with_every_score_and_its_pictures(finished_ghns):
    results = json.loads((finished_ghns / "results.json").read_text())
    metrics, protocol = results["metrics"], results["protocol"]
    for name in ("original", "object", "parts", "original_object", "original_parts",
                 "object_parts", "original_object_parts"):  # fmt: skip
        assert 0 <= metrics[f"{name}_top1"] <= 1
    assert metrics["top1"] == metrics["original_object_parts_top1"]
    assert sum(metrics["original_object_parts_weights"]) == pytest.approx(1)
    assert protocol["test_split_used_for_selection"] is False
    assert metrics["generation"]["kept"] > 0
    for stage in ("part_networks", "filter"):  # each by itself, on test and on held-out images
        for name in ("test_top1", "held_out_top1"):
            assert 0 <= metrics["stages"][stage][name] <= 1
    for name in ("candidates.webp", "distances.png", "fusion.png", "curves.png", "tsne.png",
                 "confusions.webp"):  # fmt: skip
        assert cv2.imread(str(finished_ghns / "figures" / name)).std() > 5


@pytest.mark.usefixtures("relaxed")
def test_the_same_words_find_everything_done(config, finished_ghns, copy_of):
    again = main.run(config, copy_of(finished_ghns), figures=False)
    assert again == json.loads((finished_ghns / "results.json").read_text())


def test_new_images_go_through_the_same_crops_parts_and_networks(finished_ghns):
    run = main.open_run(finished_ghns)
    predictor = ghns.load_predictor(run)
    images = [Encoded(run.dataset.test.source[row]["image"]) for row in range(12)]
    found = np.stack([p.probabilities for p in predictor(images, batch_size=8)])
    stored = run.stages["fusion"].load_arrays("predictions")["logits"][:12]
    tempered = stored / run.stages["fusion"].metrics["temperature"]
    wanted = tempered - np.log(np.exp(tempered).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.log(found), wanted, atol=2e-3)


@pytest.mark.usefixtures("relaxed")
def test_another_run_takes_what_fits_and_trains_what_does_not(config, finished_ghns, tmp_path):
    metrics = json.loads((finished_ghns / "results.json").read_text())["metrics"]
    changed = override(config, {"method.m1": 0.5, "reuse": str(finished_ghns)})
    found = main.run(changed, tmp_path / "other", figures=False)["metrics"]
    assert found["original_top1"] == metrics["original_top1"]
    trained = {p.name for p in (tmp_path / "other").iterdir() if p.is_dir()}
    assert trained == {"parts_classifier", "fusion"}
    assert ghns.load_predictor(main.open_run(tmp_path / "other"))


@pytest.mark.usefixtures("relaxed")
def test_parts_that_do_not_fit_are_refused(config, finished_ghns, tmp_path):
    changed = override(config, {"method.scda_threshold": 0.9, "reuse": str(finished_ghns)})
    with pytest.raises(UserError, match=r"objects cannot be reused.*scda: 1\.0 -> 0\.9"):
        main.run(changed, tmp_path / "third", figures=False)
    changed = override(config, {"reuse": str(tmp_path / "nothing")})
    with pytest.raises(UserError, match="it has no finished stage classifier"):
        main.run(changed, tmp_path / "fourth", figures=False)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_extractors_that_learn_and_test_tuned_weights_are_labelled(config, finished_ghns, tmp_path):
    config.reuse = str(finished_ghns)
    config.method.extractors, config.method.fusion = "finetuned", "test"
    results = main.run(config, tmp_path, figures=False)
    assert results["protocol"]["test_split_used_for_selection"] is True
    assert "TEST" in results["protocol"]["fusion_weights_from"]
    metrics = results["metrics"]
    alone = [metrics[f"{name}_top1"] for name in ("original", "object", "parts")]
    assert metrics["top1"] >= max(alone)  # tuned on test: at least a corner


@pytest.mark.usefixtures("relaxed")
def test_tau_that_nothing_reaches(config, finished_ghns, tmp_path):
    config.reuse = str(finished_ghns)
    config.method.tau, config.method.max_attempts = 0.999, 512
    with pytest.raises(UserError, match=r"no candidate of any class reached tau = 0\.999"):
        main.run(config, tmp_path, figures=False)


def test_missing_parts_and_missing_held_out_images_are_refused(config, tmp_path):
    config.data.held_out = 0.0
    with pytest.raises(UserError, match="none are held out"):
        main.run(config, tmp_path / "one")
    config.method.fusion = "preset"
    check(config, devices=4)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("tau", 1.5, "at least 0 and at most 1"), ("m1", 0.1, "above m2"),
     ("extractors", "none", "finetuned"),
     ("fusion_parts", 0.9, "sum to 1"), ("per_class", 0, "at least 1"), ("views", 0, "at least 1"),
     ("hard_negatives", -1, "at least 0"), ("parts", "eyes", "grouping"),
     ("part_networks.batch_size", 4, None), ("part_networks.batch_size", 12, None),
     ("per_class", 8, "with at least two classes")],
)  # fmt: skip
def test_impossible_settings_are_refused(config, field, value, says):
    changed = override(config, {f"method.{field}": value})
    if says is None:
        check(changed, devices=4)
        return
    with pytest.raises(UserError, match=says):
        check(changed, devices=4)


def test_own_crops_want_original_pixels(config):
    changed = override(config, {"method.own_crops": True, "method.original_pixels": False})
    with pytest.raises(UserError, match="False without original_pixels"):
        check(changed, devices=4)


def test_every_row_of_every_study_is_a_valid_config(config):
    found = methods.studies(config)
    assert set(found) >= {"run", "table5", "table6", "figure4", "discriminator", "negatives"}
    for study in found.values():
        for row in study.rows:
            check(override(config, row.overrides), devices=4)
