"""LAPM's own pieces: its objective on a batch, the scopes of the margins, its switches."""

import dataclasses
import json
import math
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import main, methods, models
from fgjax.config import check, override
from fgjax.data.datasets import load_dataset
from fgjax.errors import UserError
from fgjax.figures.embeddings import in_plane, rows_of_first
from fgjax.methods import lapm
from fgjax.methods.lapm import adaptive_margin, figures
from fgjax.methods.shared.classifier import classifier_maps, whole_images
from fgjax.training.run import Run, Stage
from tests.oracles import lapm as oracle

PAIRS = lapm.PAIRS


class FakeModel:
    """Features and logits straight from the pixels of tiny 'images'."""

    def __call__(self, images, *, key=None):
        flat = images.reshape(len(images), -1) / 64.0 - 2.0
        return {"pooled": flat[:, :4], "logits": flat[:, 4:9]}


def batch(seed=0, sets=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (sets, 4, 3)).astype(np.int32)
    weights = rng.dirichlet(np.ones(3), (sets, 4)).astype(np.float32)
    return {
        "image": rng.integers(0, 255, (sets, 4, 2, 2, 3)).astype(np.uint8),
        "labels": labels,
        "weights": weights,
        "is_positive": np.array([1, 0, 0][:sets], np.float32),
        "label": labels[:, 0, 0],
        "index": np.arange(sets, dtype=np.int32),
    }


def statistics(m1=1.1, sigma=0.3):
    return {
        p: {"m1": jnp.float32(m1 + i), "sigma": jnp.float32(sigma)} for i, p in enumerate(PAIRS)
    }


def by_hand(given, stats, config):
    """Eq. 4-17 with loops, from the model's outputs."""
    total = 0.0
    for b in range(len(given["image"])):
        outputs = FakeModel()(np.asarray(given["image"][b], np.float64))
        positive = bool(given["is_positive"][b])
        used = range(3) if positive else range(4)
        entropy = 0.0
        for v in used:
            logits = outputs["logits"][v]
            normaliser = math.log(sum(math.exp(o) for o in logits))
            for c in range(3):
                label = given["labels"][b, v, c]
                entropy += float(given["weights"][b, v, c]) * (normaliser - logits[label])
        cls = entropy / len(used)
        f = (
            [x / np.linalg.norm(x) for x in outputs["pooled"]]
            if config.l2norm
            else outputs["pooled"]
        )
        margins = {p: (float(s["m1"]), float(s["sigma"])) for p, s in stats.items()}
        pull = oracle.positive_relationship(*f[:3])
        push = oracle.negative_relationship(
            *f, margins, config.alpha, additional=config.additional_term
        )
        total += oracle.loss(cls, pull, push, positive, config.lambda_)
    return total / len(given["image"])


@pytest.mark.parametrize("l2norm", [True, False])
@pytest.mark.parametrize("additional", [True, False])
def test_the_objective_is_eq_17_of_the_sets(l2norm, additional):
    config = lapm.Config(l2norm=l2norm, additional_term=additional, alpha=1.2)
    loss = lapm.MarginLoss(config.lambda_, config.alpha, additional, "global", l2norm)
    given, stats = batch(), statistics()
    value, metrics = loss(FakeModel(), given, stats, None)
    assert float(value) == pytest.approx(by_hand(given, stats, config), rel=1e-4)
    assert metrics["m1"] == pytest.approx(1.1)


def test_the_slot_outside_a_positive_set_changes_nothing():
    loss = lapm.MarginLoss(0.8, 1.0, True, "global", True)
    given = batch(sets=1)
    other = {**given, "image": given["image"].copy()}
    other["image"][:, 3] = 255 - other["image"][:, 3]
    assert loss(FakeModel(), given, statistics(), None)[0] == pytest.approx(
        float(loss(FakeModel(), other, statistics(), None)[0])
    )


def test_all_slots_count_where_that_is_wished():
    """A positive set's fourth image is a labelled one of another class: a quarter of L_cls."""
    loss = lapm.MarginLoss(1.0, 1.0, True, "global", True, all_slots=True)
    given = batch(sets=1)
    outputs = FakeModel()(np.asarray(given["image"][0], np.float64))
    entropy = 0.0
    for slot in range(4):
        logits = outputs["logits"][slot]
        normaliser = math.log(sum(math.exp(o) for o in logits))
        for share, label in zip(given["weights"][0, slot], given["labels"][0, slot]):
            entropy += float(share) * (normaliser - logits[label])
    assert float(loss(FakeModel(), given, {}, None)[0]) == pytest.approx(entropy / 4, rel=1e-5)


def test_smoothed_labels_give_all_classes_a_share():
    """(1 − s) of the labels' own entropy and s of the mean over all classes (Szegedy et al.)."""
    given = batch(sets=1)
    plain, smoothed, all_of_it = (
        float(lapm.MarginLoss(1.0, 1.0, True, "global", True, all_slots=True, label_smoothing=s)(
            FakeModel(), given, {}, None)[0])
        for s in (0.0, 0.1, 1.0)
    )  # fmt: skip
    logits = FakeModel()(np.asarray(given["image"][0], np.float64))["logits"]
    even = np.mean([np.log(np.sum(np.exp(row))) - np.mean(row) for row in logits])
    assert all_of_it == pytest.approx(even, rel=1e-5)
    assert smoothed == pytest.approx(0.9 * plain + 0.1 * even, rel=1e-5)


@pytest.mark.usefixtures("relaxed")
def test_training_begins_with_pretrained_weights_and_not_with_the_classifiers(
    tiny_config, tmp_path, monkeypatch
):
    """As in GHNS and CCFR. Without any, the classifier stands for them."""

    file = tmp_path / "weights.safetensors"
    file.touch()

    def weights(model, source):
        assert source == str(file)
        model.conv1.kernel[...] = jnp.full_like(model.conv1.kernel[...], 0.5)

    monkeypatch.setattr(models, "load_pretrained", weights)
    changes = {"method.margin.epochs": 0, "method.parts": "grid", "method.objects": "annotated"}
    for source in (str(file), ""):
        config = override(tiny_config, {**changes, "pretrained": source})
        workdir = tmp_path / ("pretrained" if source else "scratch")
        main.run(config, workdir, figures=False)
        opened = main.open_run(workdir)
        learnt, begun = (
            np.asarray(opened.load_model(lapm_stage(opened, name)).conv1.kernel[...])
            for name in ("classifier", "margin")
        )
        assert np.ptp(learnt) > 0
        assert (begun == 0.5).all() if source else np.array_equal(begun, learnt)


def lapm_stage(run, name):
    methods.of(run.config).run(run)
    return run.stages[name]


@pytest.mark.usefixtures("relaxed")
def test_fixed_margins_are_the_first_epochs(tiny_config, tmp_path):
    dataset = load_dataset("synthetic_aircraft/4", data_dir=tiny_config.data.data_dir)
    stage = Run(tiny_config, dataset, tmp_path).stage("margin")
    asked = []

    def estimator(model, epoch, key):
        asked.append(epoch)
        return statistics(m1=3.0 + epoch, sigma=0.5)

    keep = adaptive_margin.kept_margins(estimator, stage)
    first = keep(None, 0, None)
    again = adaptive_margin.kept_margins(estimator, stage)  # a run that resumes
    for found in (first, keep(None, 1, None), again(None, 0, None), again(None, 7, None)):
        assert set(found) == set(PAIRS)
        np.testing.assert_allclose([found[p]["m1"] for p in PAIRS], [3, 4, 5, 6])
        assert float(found["ref_dcdic"]["sigma"]) == 0.5
    assert asked == [0]


def test_margins_are_looked_up_by_class_or_reference():
    given = batch()
    table = {p: {"m1": jnp.arange(10.0), "sigma": jnp.arange(10.0) / 10} for p in PAIRS}
    by_class = lapm.margins_of(table, given, "class")
    np.testing.assert_allclose(by_class.ref_dcdi2.m1, given["label"])
    by_row = lapm.margins_of(table, given, "reference")
    np.testing.assert_allclose(by_row.ref_dcdic.sigma, given["index"] / 10, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class LabelDistances:
    """Stands for a network: the 'distance' is the reference's row."""

    def __call__(self, model, batch):
        row = batch["index"].astype(jnp.float32)
        return {pair: row + i for i, pair in enumerate(PAIRS)}


@pytest.mark.parametrize("scope", ["global", "class", "reference"])
def test_scopes_group_the_samples(tiny_config, tmp_path, scope):
    dataset = load_dataset("synthetic_aircraft/4", data_dir=tiny_config.data.data_dir)
    run = Run(tiny_config, dataset, tmp_path)
    generate = lambda seed: lambda position, index: {"index": np.int32(index)}  # noqa: E731
    estimator = adaptive_margin.MarginEstimator(
        run, LabelDistances(), generate, pairs=PAIRS, samples=50, scope=scope, shared=False,
        batch_size=16, folder=tmp_path,
    )  # fmt: skip
    import flax.nnx as nnx

    found = estimator(nnx.Module(), 0, jax.random.key(3))
    again = estimator(nnx.Module(), 0, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, found, again)
    m1, sigma = np.asarray(found["ref_dcdi1"]["m1"]), np.asarray(found["ref_dcdi1"]["sigma"])
    rows = run.train_indices
    if scope == "reference":
        np.testing.assert_allclose(m1[rows], rows)
        np.testing.assert_allclose(sigma[rows], 0, atol=1e-3)
        np.testing.assert_allclose(found["dcdi1_dcdi2"]["m1"][rows], rows + 2)
    elif scope == "class":
        labels = dataset.train.labels
        for k in range(24):
            members = rows[labels[rows] == k]
            assert members.min() <= m1[k] <= members.max()
            assert m1[k] == pytest.approx(members.mean(), abs=12)
    else:
        assert m1.shape == ()
        assert m1 == pytest.approx(rows.mean(), abs=15)
        assert sigma == pytest.approx(rows.std(), abs=10)


def test_a_shrinking_embedding_is_warned_about(tiny_config, tmp_path, caplog):
    dataset = load_dataset("synthetic_aircraft/4", data_dir=tiny_config.data.data_dir)
    estimator = adaptive_margin.MarginEstimator(
        Run(tiny_config, dataset, tmp_path), LabelDistances(), None, pairs=PAIRS, samples=4,
        scope="global", shared=False, batch_size=4, folder=tmp_path,
    )  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "m1": 2.0}\n')
    estimator._warn(3, 1.5)
    assert "shrinks" not in caplog.text
    estimator._warn(3, 0.9)
    assert "the embedding shrinks: m1 is 0.9 before epoch 4" in caplog.text


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("method.lambda_", 1.5, "lambda_"),
        ("method.samples", 1, "at least 2"),
        ("method.ratio", "1-1", "whole numbers"),
        ("method.ratio", "0:0", "whole numbers"),
        ("method.mixing", "mixup", "one of parts, cutmix, none"),
        ("method.views", "single", "cutmix or none with views=single"),
        ("method.shares", "pixels", "one of area, cam"),
        ("method.objects", "yolo", "one of cam, scda, annotated"),
        ("method.grouping.num_parts", 1, "at least 2"),
        ("method.margin.batch_size", 6, "divisible by the 4 devices"),
        ("data.held_out", 1.0, "below 1"),
        ("method.margin.optimizer.name", "lion", "one of sgd, adamw"),
    ],
)
def test_impossible_settings_are_refused(tiny_config, field, value, says):
    with pytest.raises(UserError, match=says) as caught:
        check(override(tiny_config, {field: value}), devices=4)
    assert field.rsplit(".", 1)[-1] in str(caught.value)


def test_the_bands_that_are_drawn_are_eq_10_and_12():
    rng = np.random.default_rng(0)
    distances = {pair: rng.gamma(4, 1, 200).astype(np.float32) for pair in PAIRS}
    found = figures.bands_of(distances, 1.2)
    for pair, values in distances.items():
        m1 = oracle.m1(values)
        assert found[pair] == pytest.approx((m1, m1 + 1.2 * oracle.sigma(values)))
    shared = figures.bands_of(distances, 1.2, shared=True)
    assert set(shared.values()) == {found[PAIRS[0]]}


def test_fixed_bands_are_drawn_as_they_were_kept(tmp_path):
    run = types.SimpleNamespace(config=types.SimpleNamespace(method=lapm.Config(alpha=2.0)))
    stage = Stage("margin", tmp_path, "")
    assert figures.kept_bands(run, stage) == {}  # they adapt
    run.config.method.adaptive_margin = False
    kept = {f"{pair}.m1": np.array([1.0, 2.0]) for pair in PAIRS}
    stage.save_arrays("margins", **kept, **{f"{pair}.sigma": np.float32(0.25) for pair in PAIRS})
    assert figures.kept_bands(run, stage) == dict.fromkeys(PAIRS, (1.5, 2.0))
    run.config.method.fixed_m1, run.config.method.fixed_m2 = 0.5, 0.75
    assert figures.kept_bands(run, stage) == dict.fromkeys(PAIRS, (0.5, 0.75))


def test_classes_that_lie_apart_do_so_in_the_plane():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 15)
    places = in_plane(np.eye(8)[labels] + rng.normal(0, 0.05, (45, 8)))
    middles = np.stack([places[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(places[:, None] - middles, axis=-1).argmin(axis=1)
    assert (nearest == labels).all()
    assert rows_of_first(np.array([7, 3, 9, 3, 5]), classes=2).tolist() == [1, 3, 4]


def test_nothing_that_is_not_mixed_has_shares(tiny_config):
    plain = {"method.mixing": "none", "method.views": "single", "method.lambda_": 1.0}
    with pytest.raises(UserError, match="area with mixing=none"):
        check(override(tiny_config, {**plain, "method.shares": "cam"}), devices=4)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_labels_by_attention_keep_the_classifiers_maps_of_training_images(tiny_config, tmp_path):
    """Held-out images have none, and a finished run opens again."""
    config = override(tiny_config, {"method.shares": "cam", "method.parts": "grid"})
    main.run(config, tmp_path, figures=False)
    run = main.open_run(tmp_path)
    methods.of(run.config).load_predictor(run)
    maps = run.stages["attention"].load_arrays("maps")["train"]
    assert len(maps) == len(run.dataset.train) and (maps[run.held_out_indices] == 0).all()
    reader, _ = whole_images(run)
    row = run.train_indices[:3]
    model = run.load_model(run.stages["classifier"])
    outputs = run.outputs(model, reader, row, batch_size=4, outputs_of=classifier_maps)
    weights, labels = np.asarray(model.fc.kernel[...]), run.dataset.train.labels[row]
    wanted = np.einsum("bhwd,db->bhw", np.float64(outputs["map"]), np.float64(weights[:, labels]))
    np.testing.assert_allclose(maps[row], wanted, rtol=1e-4, atol=1e-4)
    stored = json.loads((tmp_path / "margin" / "stage.json").read_text())
    assert stored["shares"] == "cam" and "after.attention" in stored


def test_every_row_of_every_study_is_a_valid_config(tiny_config):
    for study in methods.studies(tiny_config).values():
        names = [row.name for row in study.rows]
        assert len(set(names)) == len(names)
        for row in study.rows:
            check(override(tiny_config, row.overrides), devices=4)


def test_a_stage_of_another_config_is_refused(tiny_config, tmp_path):
    dataset = load_dataset("synthetic_aircraft/4", data_dir=tiny_config.data.data_dir)
    run = Run(tiny_config, dataset, tmp_path)
    run.stage("objects", threshold=0.2)
    with pytest.raises(UserError, match=r"threshold: 0\.2 -> 0\.3"):
        run.stage("objects", threshold=0.3)
    assert isinstance(run.stage("objects", threshold=0.2).folder, pathlib.Path)


def test_bfloat16_computes_what_float32_does(tiny_config):
    """Half-precision convolutions, float32 parameters, statistics, logits and loss."""
    import flax.nnx as nnx

    loss = lapm.MarginLoss(0.8, 1.0, True, "global", True)
    rng = np.random.default_rng(0)
    given = batch()
    given["image"] = rng.integers(0, 255, (3, 4, 32, 32, 3)).astype(np.uint8)
    values = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.build("tests.tiny:Net", num_classes=5, rngs=nnx.Rngs(0), dtype=dtype)
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def objective(params, graph=graph, rest=rest):
            merged = nnx.merge(graph, params, rest, copy=True)
            return loss(merged, given, statistics(), None)[0]

        value, gradient = jax.jit(jax.value_and_grad(objective))(params)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
        values[dtype] = float(value)
    assert values[jnp.bfloat16] == pytest.approx(values[jnp.float32], rel=0.05)
    assert values[jnp.bfloat16] != values[jnp.float32]
