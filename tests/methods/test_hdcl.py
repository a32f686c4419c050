"""HDCL: its head and losses, every row of Table 1 for a step, zero-shot splits, search."""

import dataclasses
import functools
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
from fgjax.data.datasets import load_dataset
from fgjax.errors import UserError
from fgjax.methods import hdcl
from fgjax.methods.hdcl.centers import annealed
from fgjax.methods.hdcl.heads import CenterHead, PairSimilarity
from fgjax.methods.shared.embedding import Embed
from tests import finished, tiny
from tests.models.golden import QUICK


@pytest.fixture
def config(data_dir):
    """The demo's shape at 32 px, four images a class: 12 classes train, 12 are searched."""
    return tiny.hdcl_config(data_dir)


def test_the_head_is_eq_4_and_5():
    head = CenterHead(6, 4, alpha=100.0, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    f = rng.normal(size=(3, 6)).astype(np.float32)
    head.lengths[...] = jnp.asarray(rng.uniform(0.5, 2, 4).astype(np.float32))
    v, g = np.asarray(head.directions[...], np.float64), np.asarray(head.lengths[...])
    x = 100 * f / np.linalg.norm(f, axis=1, keepdims=True)
    wanted = x @ (g * v / np.linalg.norm(v, axis=0))
    np.testing.assert_allclose(head(f), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(head.centers(), axis=0), 1, rtol=1e-5)
    fresh = CenterHead(6, 4, alpha=1.0, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        fresh.lengths[...], np.linalg.norm(fresh.directions[...], axis=0), rtol=1e-6
    )


def test_centres_begin_at_the_class_means():
    """All features share a large part: centres without it tell the classes apart at once."""
    rng = np.random.default_rng(0)
    own, shared = rng.normal(size=(5, 8)), 4 * np.ones(8)
    labels = np.repeat(np.arange(5), 40)
    f = own[labels] + shared + 0.3 * rng.normal(size=(200, 8))
    unit = f / np.linalg.norm(f, axis=1, keepdims=True)
    means = np.stack([unit[labels == k].mean(axis=0) for k in range(5)] + [np.zeros(8)])
    head = CenterHead(8, 6, alpha=100.0, rngs=nnx.Rngs(0))
    lengths, random = np.array(head.lengths[...]), np.array(head.centers())
    before = np.argmax(head(jnp.asarray(f, jnp.float32)), axis=1)
    head.start_at(means.astype(np.float32), np.array([40] * 5 + [0]))
    apart = means[:5] - means[:5].mean(axis=0)
    wanted = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    np.testing.assert_allclose(head.centers()[:, :5].T, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(head.centers()[:, 5], random[:, 5], rtol=1e-5)  # no image of it
    np.testing.assert_allclose(np.linalg.norm(head.directions[...], axis=0), lengths, rtol=1e-4)
    after = np.argmax(head(jnp.asarray(f, jnp.float32))[:, :5], axis=1)
    assert np.mean(after == labels) > 0.95 and np.mean(before == labels) < 0.6


def test_pddm_learns_its_metric_and_leaves_the_embedding_alone():
    head = PairSimilarity(5, width=8, rngs=nnx.Rngs(0))
    f = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    found = head(f)
    assert found.shape == (4, 4)
    np.testing.assert_allclose(found, found.T, rtol=1e-4, atol=1e-5)
    assert not np.any(jax.grad(lambda f: jnp.sum(head(f)))(f))


@pytest.mark.parametrize(("margin", "squared"), [(0.2, False), (0.7, True)])
def test_batch_all_triplets_by_loops(margin, squared):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(9, 3)), rng.integers(0, 3, 9)
    d = np.linalg.norm(x[:, None] - x[None], axis=2) ** (2 if squared else 1)
    terms = [
        0.5 * max(0, margin + d[a, p] - d[a, n])
        for a in range(9) for p in range(9) for n in range(9)
        if a != p and y[a] == y[p] and y[a] != y[n]
    ]  # fmt: skip
    wanted = np.mean([t for t in terms if t > 0])
    found = losses.batch_all_triplet_loss(x, y, margin=margin, squared=squared)
    assert float(found) == pytest.approx(wanted, rel=1e-4)
    alone = losses.batch_all_triplet_loss(x, np.arange(9), margin=margin)
    assert float(alone) == 0


def loss_of(config, **changes):
    values = {
        f: getattr(config, f) for f in vars(config) if f not in ("start", "embedding")
    } | changes  # fmt: skip
    return hdcl.EmbeddingLoss(tuple(values.items()))


def batch(labels=(0, 0, 1, 1, 2, 2), size=32):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (len(labels), size, size, 3)).astype(np.uint8)
    return {"image": image, "label": np.array(labels, np.int32)}


def network(config, classes=5, **options):
    backbone = models.build(
        "tests.tiny:Net", num_classes=classes, rngs=nnx.Rngs(0), pooling="max_average", **options
    )
    return hdcl.EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(1))


def test_the_objective_is_eq_11():
    config = hdcl.Config(top_k=2, decorrelation=0.3)
    model = network(config)
    model.eval()
    given = batch()
    value, metrics = loss_of(config)(model, given, {"warm": jnp.asarray(False)}, None)
    logits = np.asarray(model.head(model(given["image"])["pooled"]), np.float64)
    top = np.sort(logits, axis=1)[:, -2:]
    own = logits[np.arange(6), given["label"]]
    hard = np.logaddexp(top[:, 0], top[:, 1]) - own
    w = np.asarray(model.head.centers(), np.float64)
    gram = np.abs(w.T @ w)
    regular = (gram.sum() - np.trace(gram)) / 20
    assert float(value) == pytest.approx(hard.mean() + 0.3 * regular, rel=1e-3)
    assert float(metrics["decorrelation"]) == pytest.approx(regular, rel=1e-3)
    warm, _ = loss_of(config)(model, given, {"warm": jnp.asarray(True)}, None)
    softmax = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - own
    assert float(warm) == pytest.approx(softmax.mean() + 0.3 * regular, rel=1e-3)


def test_k_hat_falls_from_all_classes_and_is_logged():
    config = hdcl.Config(top_k=2, warmup_epochs=1, anneal_epochs=3)
    settings = {"top_k": 2, "warmup_epochs": 1, "anneal_epochs": 3}
    assert [annealed(epoch, 128, **settings) for epoch in range(6)] == [128, 128, 32, 8, 2, 2]
    assert annealed(1, 128, top_k=5, warmup_epochs=0, anneal_epochs=0) == 5
    backbone = models.build("tests.tiny:Net", num_classes=5, rngs=nnx.Rngs(0))
    model = hdcl.EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(1))
    model.eval()
    given, cold = batch(), {"warm": jnp.asarray(False)}
    for top_k in (1, 3, 5):
        wanted, _ = loss_of(hdcl.Config(top_k=top_k))(model, given, cold, None)
        traced = {**cold, "top_k": jnp.asarray(top_k)}
        value, metrics = loss_of(config)(model, given, traced, None)
        assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    logits = np.asarray(model.head(model(given["image"])["pooled"]))
    place = np.argsort(np.argsort(-logits, axis=1), axis=1)[np.arange(6), given["label"]]
    assert float(metrics["share_outside_top_k"]) == np.mean(place >= 2)


def test_in_batch_losses_learn_a_layer_that_search_uses():
    """Its embeddings may point anywhere; those of pooled features all have positive cosines."""
    backbone = models.build("tests.tiny:Net", num_classes=5, rngs=nnx.Rngs(0))
    config = hdcl.Config(loss="contrastive", width=16)
    model = hdcl.EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(1))
    model.eval()
    given = batch()
    found = np.asarray(Embed()(model, given)["embedding"])
    assert found.shape == (6, 16) and found.min() < 0
    pooled = np.asarray(backbone(given["image"])["pooled"])
    wanted = pooled @ np.asarray(model.linear.kernel[...]) + np.asarray(model.linear.bias[...])
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    for other in (hdcl.Config(), hdcl.Config(loss="contrastive", width=0)):
        assert hdcl.EmbeddingNetwork(backbone, other, rngs=nnx.Rngs(1)).linear is None


def test_held_out_classes_are_in_no_denominator():
    """The loss of five classes of which two are held out is that of the other three alone."""
    config = hdcl.Config(top_k=3, decorrelation=0.3)
    backbone = models.build("tests.tiny:Net", num_classes=5, rngs=nnx.Rngs(0))
    model = hdcl.EmbeddingNetwork(backbone, config, rngs=nnx.Rngs(1))
    model.eval()
    given = batch((1, 1, 3, 3, 4, 4))
    loss = dataclasses.replace(loss_of(config), trained=(1, 3, 4))
    statistics = {"warm": jnp.asarray(False)}
    value, metrics = loss(model, given, statistics, None)
    alone = hdcl.EmbeddingNetwork(model.backbone, config, rngs=nnx.Rngs(1))
    kept = np.array([1, 3, 4])
    alone.head.directions = nnx.Param(model.head.directions[...][:, kept])
    alone.head.lengths = nnx.Param(model.head.lengths[...][kept])
    wanted, others = loss_of(config)(alone, batch((0, 0, 1, 1, 2, 2)), statistics, None)
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    assert float(metrics["accuracy"]) == float(others["accuracy"])
    before, _ = loss_of(config)(model, given, statistics, None)
    assert float(before) != pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.usefixtures("relaxed")
def test_selection_looks_at_held_out_classes(config, tmp_path):
    config.data.held_out = 0.25
    results = main.run(config, tmp_path, figures=False)
    assert results["protocol"]["held_out_images"] == 3 * 8  # of the 12 classes that train
    assert results["metrics"]["held_out_queries"] == 24
    assert 0 <= results["metrics"]["held_out_recall@1"] <= 1
    logged = (tmp_path / "embedding" / "metrics.jsonl").read_text()
    assert "held_out_recall@1" in logged


@pytest.mark.parametrize("name", [n for n in hdcl.LOSSES if n != "scda"])
def test_every_row_of_table_1_has_a_gradient(name):
    config = hdcl.Config(loss=name)
    model = network(config)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    statistics = {"warm": jnp.asarray(False), "centers": jnp.eye(5, 64)}

    @jax.jit
    @jax.value_and_grad
    def objective(params):
        merged = nnx.merge(graph, params, rest, copy=True)
        return loss_of(config)(merged, batch(), statistics, jax.random.key(0))[0]

    value, gradient = objective(params)
    leaves = jax.tree.leaves(gradient)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in leaves)
    assert np.any(gradient["backbone"]["conv1"]["kernel"][...])


def test_salient_pooling_by_hand():
    """Places above the mean of the channel sum, the maximum and the mean over them."""

    class Fixed(nnx.Module):
        def __call__(self, images, *, key=None):
            return {"stage1": jnp.asarray(maps), "pooled": jnp.zeros((1, 4))}

    maps = np.array(
        [[[[1, 0], [0, 0]], [[3, 1], [2, 4]]]], np.float32
    )  # sums 1, 0, 4, 6; mean 2.75
    found = Embed(salient=True)(Fixed(), batch((0,)))["embedding"]
    wanted = np.array([3, 4, 2.5, 2.5])
    np.testing.assert_allclose(found[0], wanted / np.linalg.norm(wanted), rtol=1e-5)
    halves = Embed(salient=True, halves=True)(Fixed(), batch((0,)))["embedding"]
    np.testing.assert_allclose(halves[0], [0.6 / 2**0.5, 0.8 / 2**0.5, 0.5, 0.5], rtol=1e-5)
    # Two regions of sums 9 apart: SCDA keeps the larger one, whatever the other holds.
    maps = np.zeros((1, 3, 5, 2), np.float32)
    maps[0, 0, 0], maps[0, 1, 1], maps[0, 2, 4] = [9, 0], [7, 2], [0, 50]
    scda = hdcl.method.embed_of(hdcl.Config(loss="scda"))
    found = scda(Fixed(), batch((0,)))["embedding"]
    pair = np.array([9, 2]) / np.hypot(9, 2), np.array([8, 1]) / np.hypot(8, 1)
    np.testing.assert_allclose(found[0], np.concatenate(pair) / 2**0.5, rtol=1e-5)


def test_zero_shot_splits_by_class(data_dir, monkeypatch):
    whole = load_dataset("synthetic_aircraft/4", data_dir=data_dir)
    half = load_dataset("synthetic_aircraft/4", data_dir=data_dir, zero_shot=True)
    assert half.num_classes == 12 and half.unseen_names == whole.class_names[12:]
    assert len(half.train) == len(half.test) == 12 * 8  # both official splits pooled
    assert set(half.train.labels) == set(range(12)) and set(half.test.labels) == set(range(12, 24))
    for split in (half.train, half.test):
        for row in (0, 50, 95):
            assert split.source[row]["filename"].decode() == split.filenames[row]
            assert split.source[row]["label"] == split.labels[row]
    assert half.fingerprint != whole.fingerprint
    assert half.name_of(23) == whole.class_names[23]
    official = dataclasses.replace(whole, zero_shot_counts=(5000, 5000))
    with pytest.raises(UserError, match="96 and 96 images where the official data has 5000"):
        official.zero_shot()


def test_a_run_ends_with_its_measures_and_pictures(finished_hdcl):
    results = json.loads((finished_hdcl / "results.json").read_text())
    metrics, protocol = results["metrics"], results["protocol"]
    assert metrics["queries"] == 96 and metrics["queries_without_relevant"] == 0
    assert metrics["recall@1"] == metrics["precision@1"] == pytest.approx(metrics["map@1"])
    assert protocol["zero_shot"] is True and protocol["test_split_used_for_selection"] is False
    for name in ("gallery.webp", "tsne.png", "centers.png", "recall.png"):
        assert cv2.imread(str(finished_hdcl / "figures" / name)).std() > 5
    with pytest.raises(UserError, match="trained for retrieval"):
        hdcl.load_predictor(main.open_run(finished_hdcl))


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", ["scda", "crl", "n_pairs", "pddm"])
def test_runs_of_other_losses(config, tmp_path, name):
    """The sampler, the epoch's centres, the learned metric, and no training at all."""
    config.method.loss, config.method.start.epochs = name, 0
    if name == "n_pairs":  # more than two of each of the 12 classes: cut to one pair of each
        config.method.embedding.batch_size = 32
    results = main.run(config, tmp_path, figures=False)
    assert results["protocol"]["batch_size"] == (24 if name == "n_pairs" else 8)
    found = results["metrics"]
    assert 0 <= found["recall@1"] <= found["recall@32"] <= 1


def test_recognition(finished_recognition):
    results = json.loads((finished_recognition / "results.json").read_text())
    assert 0 <= results["metrics"]["top1"] <= 1
    predictor = hdcl.load_predictor(main.open_run(finished_recognition))
    image = np.zeros((40, 60, 3), np.uint8)
    (found,) = predictor([image])
    assert found.probabilities.shape == (24,)
    assert found.probabilities.sum() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("loss", "arcface", "one of hdcl"), ("top_k", 0, "1 or more"), ("alpha", 0.0, "above 0"),
     ("per_class", 1, "at least 2")],
)  # fmt: skip
def test_impossible_settings_are_refused(config, field, value, says):
    with pytest.raises(UserError, match=says):
        check(override(config, {f"method.{field}": value}), devices=4)


def test_k_hat_above_the_classes_is_refused_before_training(config, tmp_path):
    config.method.top_k = 13
    with pytest.raises(UserError, match=r"top_k is 13, but must be in 1 … 12"):
        main.run(config, tmp_path)
    assert not (tmp_path / "classifier").exists()


def test_every_row_of_every_study_is_a_valid_config(config):
    for study in methods.studies(config).values():
        for row in study.rows:
            check(override(config, row.overrides), devices=4)


PAPERS = [("vgg19", 1024), ("resnet50", 4096), ("resnet101", 4096)]


@pytest.mark.parametrize(
    ("name", "width"),
    [pytest.param(*case, marks=pytest.mark.slow) for case in [("resnet_small", 192), *PAPERS]],
)
def test_backbones_take_a_step(name, width):
    """With a last stage of stride 1 and both poolings; the loss falls along its gradient."""
    options = {"last_stride": 1, "pooling": "max_average"}
    backbone = models.build(name, num_classes=5, rngs=nnx.Rngs(0), **options)
    model = hdcl.EmbeddingNetwork(backbone, hdcl.Config(), rngs=nnx.Rngs(1))
    assert model.head.directions[...].shape == (width, 5)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    given, loss = batch((0, 1, 2, 3), size=48), loss_of(hdcl.Config())

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.value_and_grad
    def objective(params):
        merged = nnx.merge(graph, params, rest, copy=True)
        return loss(merged, given, {"warm": jnp.asarray(False)}, None)[0]

    before, gradient = objective(params)
    size = optax.global_norm(gradient)
    after, _ = objective(jax.tree.map(lambda p, g: p - 1e-4 / size * g, params, gradient))
    assert float(after) < float(before)


@pytest.fixture(scope="module")
def folder(tiny_dataset, tmp_path_factory):
    """Ten images, and two files that are none."""
    folder = tmp_path_factory.mktemp("images")
    for row in range(10):
        (folder / f"{row:02d}.jpg").write_bytes(tiny_dataset.test.source[row]["image"])
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8nonsense")
    return folder


def test_search_finds_an_image_in_its_own_folder(
    finished_hdcl, folder, copy_of, data_dir, tmp_path
):
    """Indexed and asked as people do, in two processes."""
    workdir = copy_of(finished_hdcl)
    environment = finished.environment(data_dir, tmp_path)
    words = ("-m", "fgjax", "search", f"--workdir={workdir}")
    done = finished.run(*words, f"--index={folder}", environment=environment)
    assert "2 files are not images" in done.stderr and "broken.jpg" in done.stderr
    words = ("-m", "fgjax.search", *words[3:], f"--query={folder}/03.jpg", "--json", "--top=4")
    (result,) = json.loads(finished.run(*words, environment=environment).stdout)
    assert result["matches"][0]["file"] == str(folder / "03.jpg")
    assert result["matches"][0]["score"] == pytest.approx(1, abs=1e-4)
    scores = [m["score"] for m in result["matches"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4
    assert cv2.imread(str(workdir / "search.png")).std() > 5


def test_search_refuses_what_cannot_be(finished_hdcl, folder, copy_of, command, tmp_path):
    workdir = copy_of(finished_hdcl)
    search = functools.partial(command, "search", f"--workdir={workdir}")
    with pytest.raises(UserError, match="no index"):
        search(f"--query={folder}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no readable image"):
        search(f"--index={tmp_path}/empty")
    with pytest.raises(UserError, match="say what to do"):
        search()
    search(f"--index={folder}")
    with pytest.raises(UserError, match="--top is 0"):
        search(f"--query={folder}", "--top=0")
    results = json.loads((workdir / "results.json").read_text())
    results["metrics"]["recall@1"] += 1  # another model of the same shape
    (workdir / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="made by another model"):
        search(f"--query={folder}")
