"""The probe: features as the weights give them, and the regression that is fitted to them."""

import json

import numpy as np
import pytest
import scipy.special

from fgjax import main, methods
from fgjax.config import check, override
from fgjax.data.images import Encoded
from fgjax.errors import UserError
from fgjax.evaluation import unknown
from fgjax.methods import probe
from fgjax.methods.probe import heads
from fgjax.training.run import Run
from tests import tiny


@pytest.fixture
def config(data_dir):
    return tiny.probe_config(data_dir)


def clusters(classes=4, each=(12,), width=6, spread=0.4, seed=0):
    """Unit vectors around random directions."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), np.resize(each, classes))
    points = middles[labels] + spread * rng.normal(size=(len(labels), width))
    return points / np.linalg.norm(points, axis=1, keepdims=True), labels.astype(np.int32)


def fitted(settings, features, labels, run):
    """The free number, weights, bias, and the logits of images that the head did not see."""
    found = fit(settings, features, labels, run)
    return found.chosen, found.arrays["weights"], found.arrays["bias"], found.outside


def fit(settings, features, labels, run):
    return heads.fit(
        settings.head, features, labels, classes=run.dataset.num_classes,
        candidates=settings.candidates, folds=settings.folds, iterations=settings.iterations,
        seed=run.seed("folds"),
    )  # fmt: skip


@pytest.fixture
def run(config, tiny_dataset, tmp_path):
    return Run(config, tiny_dataset, tmp_path)


def test_the_head_is_at_the_minimum_of_its_loss(run):
    """½‖W‖² + C Σ cross-entropy: its gradient vanishes, bias not regularised."""
    features, labels = clusters()
    settings = probe.Config(strengths=(3.0,), iterations=2000)
    strength, weights, bias, _ = fitted(settings, features, labels, run)
    assert strength == 3.0
    weights, bias = weights[:, :4].astype(np.float64), bias[:4].astype(np.float64)
    logits = features @ weights + bias
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    error = likely - np.eye(4)[labels]
    gradient = weights + strength * features.T @ error
    assert np.abs(gradient).max() < 0.02 * np.abs(strength * features.T).sum(axis=1).max()
    assert np.abs(strength * error.sum(axis=0)).max() < 0.1


def test_cross_validation_takes_the_strength_that_generalises(run):
    """Too strong, and the largest class is all that is left; among equals the strongest wins."""
    features, labels = clusters(spread=0.3, each=(40, 8, 8, 8))
    assert fitted(probe.Config(strengths=(1e-6, 10.0)), features, labels, run)[0] == 10.0
    same = np.tile(features[:1], (len(features), 1))
    assert fitted(probe.Config(strengths=(100.0, 0.1)), same, labels, run)[0] == 0.1


def test_a_class_without_images_is_never_the_answer_and_two_classes_work(run):
    features, labels = clusters(classes=2)
    _, weights, bias, outside = fitted(probe.Config(strengths=(10.0,)), features, labels + 3, run)
    assert (outside.argmax(axis=1) >= 3).all()
    logits = features @ weights + bias
    np.testing.assert_array_equal(logits.argmax(axis=1), labels + 3)


def test_each_image_is_judged_by_a_head_that_never_saw_it(run):
    """Labels that follow nothing: heads know those they were fitted to, and no others."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 200))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.permutation(np.repeat(np.arange(3), 20)).astype(np.int32)
    settings = probe.Config(strengths=(1e4,), iterations=1000)
    _, weights, bias, outside = fitted(settings, features, labels, run)
    assert np.mean((features @ weights + bias).argmax(axis=1) == labels) == 1
    assert outside.shape == (60, run.dataset.num_classes)
    assert np.mean(outside.argmax(axis=1) == labels) < 0.6


def test_one_image_of_each_class_is_enough(run):
    features, labels = clusters(each=(1,))
    strength, weights, bias, outside = fitted(probe.Config(), features, labels, run)
    assert strength == 100.0 and len(outside) == 0
    np.testing.assert_array_equal((features @ weights + bias).argmax(axis=1), labels)
    few, names = clusters(each=(2, 1, 1, 2))
    outside = fitted(probe.Config(strengths=(10.0,)), few, names, run)[3]
    assert len(outside) == 6  # two folds; where a class was in one alone, it is never the answer
    assert (outside[[2, 3], [1, 2]] == -1e4).all() and (outside[[0, 1], 0] > -1e3).all()


def test_the_nearest_images_vote_by_their_similarity(run):
    features, labels = clusters(spread=0.8)
    found = fit(probe.Config(head="knn", neighbours=(7,)), features, labels + 2, run)
    queries, _ = clusters(spread=0.8, seed=1)
    logits = heads.logits_of(found.arrays, queries.astype(np.float32), run.dataset.num_classes)
    for query, row in zip(queries, logits):
        cos = features @ query
        near = np.argsort(-cos)[:7]
        weights = np.exp(cos[near] / 0.07)
        shares = [weights[labels[near] == k].sum() / weights.sum() for k in range(4)]
        wanted = np.log(np.maximum(shares, 0.01)) + np.log(weights.sum())
        np.testing.assert_allclose(row[2:6], wanted, atol=2e-3)
    assert (logits[:, [0, 1, 6, 23]] == heads.NEVER).all()  # no image of theirs is remembered
    assert found.chosen == 7


def test_cross_validation_takes_as_many_neighbours_as_generalise(run):
    """One in three labels is another class's: a single neighbour is wrong that often."""
    features, labels = clusters(each=(40,), spread=0.2)
    rng = np.random.default_rng(2)
    noisy = np.where(rng.random(len(labels)) < 1 / 3, rng.integers(0, 4, len(labels)), labels)
    settings = probe.Config(head="knn", neighbours=(1, 15))
    assert fit(settings, features, noisy.astype(np.int32), run).chosen == 15
    # More than there are: all of them vote.
    few, names = clusters(each=(2,))
    found = fit(probe.Config(head="knn", neighbours=(50,)), few, names, run)
    assert int(found.arrays["count"]) == 8


def test_of_equally_accurate_votes_the_largest_wins(run):
    """The vote of one neighbour is always sure, and its probabilities say nothing."""
    features, labels = clusters(each=(12,), spread=0.01)
    settings = probe.Config(head="knn", neighbours=(1, 3, 5))
    assert fit(settings, features, labels, run).chosen == 5


def test_the_cosine_head_knows_the_means_of_the_classes(run):
    features, labels = clusters()
    found = fit(probe.Config(head="cosine"), features, labels, run)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    logits = heads.logits_of(found.arrays, features, run.dataset.num_classes)
    np.testing.assert_allclose(logits[:, :4], 100 * features @ means.T, rtol=1e-4, atol=1e-3)
    assert (logits[:, 4:] < heads.NEVER / 2).all() and found.chosen == 0
    # An image's own features are in no mean that judges it.
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(60, 200))
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    names = rng.permutation(np.repeat(np.arange(3), 20)).astype(np.int32)
    outside = fit(probe.Config(head="cosine"), alone, names, run).outside
    assert np.mean(outside.argmax(axis=1) == names) < 0.6


@pytest.mark.parametrize("head", ["linear", "cosine", "knn"])
def test_a_stranger_is_less_sure_than_an_acquaintance(run, head):
    features, labels = clusters(each=(12,), spread=0.5)
    settings = probe.Config(head=head)
    found = fit(settings, features, labels, run)
    scores = heads.strangers(
        head, features, labels, classes=run.dataset.num_classes, chosen=found.chosen,
        iterations=settings.iterations, seed=0,
    )  # fmt: skip
    assert scores is not None and scores.shape == (48,)
    own = heads.logits_of(found.arrays, features, run.dataset.num_classes).max(axis=1)
    assert unknown.auroc(own, scores) > 0.9
    # By a head that knows the other three classes alone: four are left out one at a time.
    if head == "cosine":
        means = np.stack([features[labels == k].mean(axis=0) for k in range(4)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        cosines = features @ means.T
        cosines[np.arange(48), labels] = -1
        np.testing.assert_allclose(scores, 100 * cosines.max(axis=1), rtol=1e-4)


def test_two_classes_are_too_few_to_leave_one_out(run):
    features, labels = clusters()
    some = labels < 2
    options = {"classes": 24, "chosen": 1.0, "iterations": 10, "seed": 0}
    assert heads.strangers("linear", features[some], labels[some], **options) is None


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("head", ["cosine", "knn"])
def test_other_heads_take_the_same_features(finished_probe, head, tmp_path):
    config = main.open_run(finished_probe).config
    changed = override(config, {"method.head": head, "reuse": str(finished_probe)})
    results = main.run(changed, tmp_path, figures=False)
    assert results["protocol"]["head"] == head
    assert ("neighbours" in results["metrics"]) is (head == "knn")
    opened = main.open_run(tmp_path)
    stored = np.load(tmp_path / "head" / "predictions.npz")
    images = [Encoded(opened.dataset.test.source[row]["image"]) for row in range(6)]
    found = methods.of(opened.config).load_predictor(opened)(images)
    logits = stored["logits"][:6].astype(np.float64) / results["metrics"]["temperature"]
    likely = scipy.special.softmax(logits, axis=1)
    np.testing.assert_allclose([one.probabilities for one in found], likely, rtol=5e-3, atol=1e-5)


@pytest.mark.usefixtures("relaxed")
def test_a_run_measures_what_the_predictor_says_of_new_images(finished_probe):
    results = json.loads((finished_probe / "results.json").read_text())
    assert results["protocol"]["backbone_trained"] is False
    assert results["protocol"]["strength_chosen_by"].startswith("2-fold cross-validation")
    assert results["protocol"]["probabilities"].endswith("from the folds of the cross-validation")
    assert "fitted without" in results["protocol"]["unknown"]
    opened = main.open_run(finished_probe)
    stored = np.load(finished_probe / "head" / "predictions.npz")
    assert results["metrics"]["top1"] == np.mean(stored["logits"].argmax(1) == stored["labels"])
    images = [Encoded(opened.dataset.test.source[row]["image"]) for row in range(6)]
    found = methods.of(opened.config).load_predictor(opened)(images)
    logits = stored["logits"][:6].astype(np.float64) / results["metrics"]["temperature"]
    likely = scipy.special.softmax(logits, axis=1)
    np.testing.assert_allclose([one.probabilities for one in found], likely, rtol=2e-3, atol=1e-5)
    strangers = np.load(finished_probe / "head" / "unknown.npz")["scores"]
    rates = [np.mean(strangers >= row.max() - 1e-3) for row in stored["logits"][:6]]
    np.testing.assert_allclose([one.false_accepts for one in found], rates, atol=0.02)
    assert [one.known(1.0) for one in found] == [True] * 6
    assert [one.known(-1e-9) for one in found] == [False] * 6
    assert 0 <= results["metrics"]["unknown_auroc"] <= 1


@pytest.mark.usefixtures("relaxed")
def test_features_have_unit_length_and_are_made_once(finished_probe, copy_of):
    with np.load(finished_probe / "features" / "features.npz") as stored:
        for split in ("train", "test"):
            lengths = np.linalg.norm(stored[split], axis=1)
            np.testing.assert_allclose(lengths, 1, rtol=1e-4)
    folder = copy_of(finished_probe)
    (folder / "head" / "done.json").unlink()
    before = (folder / "features" / "features.npz").stat().st_mtime_ns
    config = main.open_run(folder).config
    again = main.run(config, folder, figures=False)
    assert again == json.loads((finished_probe / "results.json").read_text())
    assert (folder / "features" / "features.npz").stat().st_mtime_ns == before


@pytest.mark.usefixtures("relaxed")
def test_unseen_classes_are_searched_without_a_head(config, tmp_path):
    changed = override(config, {"data.zero_shot": True, "data.held_out": 0.0})
    results = main.run(changed, tmp_path, figures=False)
    assert 0 < results["metrics"]["recall@1"] <= 1
    assert not (tmp_path / "head").exists()
    opened = main.open_run(tmp_path)
    with pytest.raises(UserError, match="fgjax search"):
        methods.of(opened.config).load_predictor(opened)
    embedded = methods.of(opened.config).load_embedder(opened)(np.zeros((4, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("head", "tree", "linear, cosine, knn, attention"), ("neighbours", (0,), "each 1 or more"),
     ("strengths", (), "one or more, each above 0"), ("strengths", (0.0,), "each above 0"),
     ("folds", 1, "at least 2"), ("iterations", 0, "at least 1")],
)  # fmt: skip
def test_impossible_settings_are_refused(config, field, value, says):
    with pytest.raises(UserError, match=says):
        check(override(config, {f"method.{field}": value}), devices=4)
