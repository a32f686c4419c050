"""Jitted as fgjax does it and of the sizes that it meets, every function is float64 NumPy's equal.

Faults of a compiler show where arrays are large: small examples are in the tests beside this one.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import compilation, evaluation, localization, losses
from fgjax.evaluation import classification, retrieval
from fgjax.evaluation.rerank import Neighbours, rescore
from fgjax.localization import cam, grouping
from tests.oracles import facility, large
from tests.test_types import public

slow = pytest.mark.slow
B, D = 4096, 512


def labels_of(batch):
    """Four rows of each class, in any order."""
    return (
        np.random.default_rng(1).permutation(np.repeat(np.arange(batch // 4), 4)).astype(np.int32)
    )


def signs_of(batch):
    return (np.arange(batch) % 2).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Large:
    """`call(*floats)` and `oracle(*floats)`, floats of the shapes that `shapes(batch)` says.

    Integers are drawn for the batch: `call` and `oracle` take them last.
    """

    call: Callable
    oracle: Callable
    shapes: Callable
    integers: Callable = lambda batch: ()
    batch: int = B
    small: int | None = 1024  # of the gradient's comparison; None without one
    tolerance: float = 1e-4  # of the largest value
    draw: Callable = lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[-1])

    def floats(self, batch):
        rng = np.random.default_rng(0)
        return [self.draw(rng, shape).astype(np.float32) for shape in self.shapes(batch)]


def rows(count):
    return lambda batch: [(batch, D)] * count


def margins_of(dtype):
    one = losses.MarginStatistics(m1=jnp.asarray(1.3, dtype), sigma=jnp.asarray(0.2, dtype))
    return losses.PairMargins(ref_dcdi1=one, ref_dcdi2=one, dcdi1_dcdi2=one, ref_dcdic=one)


def labelled(name, oracle, **more):
    return Large(getattr(losses, name), oracle, rows(1), lambda b: (labels_of(b),), **more)


def logits(rng, shape):
    return 2 * rng.standard_normal(shape)


def maps(rng, shape):
    peaks = np.exp(2 * rng.standard_normal(shape))
    return peaks / peaks.sum(axis=(1, 2), keepdims=True)


def spread(rng, shape):
    """Rows around a centre, of lengths that fall from column to column."""
    return rng.standard_normal(shape) / np.sqrt(1 + np.arange(shape[-1])) + 0.1


def boxes(rng, shape):
    corner = rng.uniform(0, 0.7, (*shape[:-1], 2))
    return np.concatenate([corner, corner + rng.uniform(0.05, 0.3, corner.shape)], axis=-1)


def statistics(d, where):
    found = losses.margin_statistics(d, where=where)
    return jnp.stack([found.m1, found.sigma])


def alarm(x):
    found = losses.collapse_alarm(x)
    return jnp.stack([found["mean_pair_distance"], found["effective_rank"]])


CASES = {
    "batch_all_triplet_loss": labelled(
        "batch_all_triplet_loss", large.batch_all_triplet, batch=256, small=64
    ),
    "batch_hard_cosine_triplet_loss": labelled(
        "batch_hard_cosine_triplet_loss", large.batch_hard_cosine_triplet, small=256
    ),
    "batch_hard_cosine_triplets": labelled(
        "batch_hard_cosine_triplets", large.batch_hard_cosine_triplets, small=256
    ),
    "binomial_deviance_loss": labelled("binomial_deviance_loss", large.binomial_deviance),
    "centralized_ranking_loss": Large(
        lambda f, c, y: losses.centralized_ranking_loss(f, y, c), large.centralized_ranking,
        lambda b: [(b, D), (32, D)], lambda b: (labels_of(b) % 32,),
    ),
    "collapse_alarm": Large(
        # float32's Gram matrix adds rounding to the sum of singular values: 0.3 % of the rank here.
        alarm, large.collapse, rows(1), batch=1024, small=None, draw=spread, tolerance=5e-3,
    ),
    "proxy_anchor_loss": Large(
        lambda x, p, y: losses.proxy_anchor_loss(x, y, p), large.proxy_anchor,
        lambda b: [(b, D), (32, D)], lambda b: (labels_of(b) % 32,),
    ),
    "contrastive_loss": labelled("contrastive_loss", large.contrastive),
    "cosine_triplet_loss": Large(losses.cosine_triplet_loss, large.cosine_triplet, rows(3)),
    "decorrelation": Large(losses.decorrelation, large.decorrelation, lambda b: [(D, b // 4)]),
    "dissimilarity": Large(
        lambda d: losses.dissimilarity(d, 0.5, 1.0),
        lambda d: large.relu(0.5 - d) + large.relu(d - 1), rows(1), draw=logits,
    ),
    "euclidean": Large(losses.euclidean, large.euclidean, rows(2)),
    "facility_location_loss": labelled(
        "facility_location_loss", facility.facility_location, batch=64, small=8
    ),
    "hard_softmax_loss": Large(
        lambda o, y: losses.hard_softmax_loss(o, y, top_k=2), large.hard_softmax, rows(1),
        lambda b: (labels_of(b) % D,), draw=logits,
    ),
    "hdcl_loss": Large(
        lambda o, w, y: losses.hdcl_loss(o, y, w),
        lambda o, w, y: large.hard_softmax(o, y) + 0.1 * large.decorrelation(w),
        lambda b: [(b, D), (D, D)], lambda b: (labels_of(b) % D,),
    ),
    "histogram_loss": labelled("histogram_loss", large.histogram),
    "lapm_loss": Large(
        losses.lapm_loss, lambda c, p, n, s: 0.75 * c + 0.25 * np.where(s == 1, p, n),
        lambda b: [(b,)] * 3, lambda b: (signs_of(b),),
    ),
    "lifted_structure_loss": labelled("lifted_structure_loss", large.lifted_structure),
    "margin_statistics": Large(
        statistics, lambda d, w: np.array([d[w].mean(), d[w].std()]), rows(1),
        lambda b: (np.random.default_rng(2).random((b, D)) < 0.7,), small=None,
    ),
    "masked_mean": Large(
        lambda v, w: losses.masked_mean(v, w, axis=1),
        lambda v, w: (v * w).sum(axis=1) / w.sum(axis=1), rows(1),
        lambda b: (np.random.default_rng(2).random((b, D)) < 0.7,),
    ),
    "multi_level_loss": Large(
        losses.multi_level_loss, large.multi_level, lambda b: [(b, D), (b, 64)],
        lambda b: (labels_of(b) % D, (np.arange(D) % 64).astype(np.int32)), draw=logits,
    ),
    "n_pairs_loss": labelled("n_pairs_loss", large.n_pairs, small=256),
    "negative_relationship": Large(
        lambda *x: losses.negative_relationship(
            *x, margins_of(losses.common.as_float(x[0]).dtype)
        ),
        lambda *x: large.negative_relationship(*x, 1.3, 0.2), rows(4),
    ),
    "normalize": Large(losses.normalize, large.unit, rows(1)),
    "pairwise_margin_loss": Large(
        lambda a, b, s: losses.pairwise_margin_loss(a, b, s, margin=1.5),
        lambda a, b, s: large.pairwise_margin(a, b, s, 1.5), rows(2), lambda b: (signs_of(b),),
    ),
    "part_distance": Large(
        losses.part_distance, large.part_distance, lambda b: [(b // 4, 14, 14, 4)], draw=maps
    ),
    "part_diversity": Large(
        losses.part_diversity, large.part_diversity, lambda b: [(b // 4, 14, 14, 4)], draw=maps
    ),
    "pddm_quadruplet_loss": Large(
        lambda x, s, y: losses.pddm_quadruplet_loss(x, y, s), large.pddm,
        lambda b: [(b, D), (b, b)], lambda b: (labels_of(b),),
    ),
    "positive_relationship": Large(
        losses.positive_relationship,
        lambda a, b, c: large.euclidean(a, b) + large.euclidean(a, c) + large.euclidean(b, c),
        rows(3),
    ),
    "quadruplet_loss": Large(
        losses.quadruplet_loss,
        lambda r, p, h, n: large.triplet(r, p, h) + large.triplet(r, h, n), rows(4),
    ),
    "ranking_loss": Large(losses.ranking_loss, large.ranking, lambda b: [(b, 64)] * 2, draw=logits),
    "shuffle_loss": Large(
        losses.shuffle_loss, lambda o, s: large.hard_softmax(o, s), lambda b: [(b, 2)],
        lambda b: (signs_of(b),), draw=logits,
    ),
    "triplet_loss": Large(losses.triplet_loss, large.triplet, rows(3)),
    "pairwise_iou": Large(
        localization.pairwise_iou, large.iou, lambda b: [(b, 4), (D, 4)], draw=boxes, small=None
    ),
    "class_activation_map": Large(
        cam.class_activation_map,
        lambda f, w, y: np.einsum("bhwd,db->bhw", f, w[:, y], optimize=True),
        lambda b: [(b // 32, 14, 14, D), (D, 100)], lambda b: (labels_of(b // 32) % 100,),
    ),
    "channel_sum": Large(
        cam.channel_sum, lambda f: f.sum(axis=-1), lambda b: [(b // 32, 14, 14, D)]
    ),
    "part_scores": Large(
        grouping.part_scores, lambda f, g: np.einsum("bhwc,bnc->bhwn", f, g, optimize=True),
        lambda b: [(b // 32, 14, 14, D), (b // 32, 4, D)], small=None,
    ),
    "attention": Large(
        grouping.attention, large.attention, lambda b: [(b // 4, 14, 14, 4)], small=256
    ),
}  # fmt: skip

APART = {"nearest", "blocks", "retrieval_metrics", "rerank", "anchors", "nms", "crop_and_resize",
         "peaks", "part_centers", "refined_centers", "softmax", "largest_region"}  # fmt: skip
# No program of XLA is in these; what they call is tested by itself.
BY_NUMPY = {
    "accuracies", "anchors", "area", "around", "cam_box", "centers", "class_similarities",
    "classification_metrics", "contains", "find_neighbours", "flip", "from_window", "fuse",
    "group_channels", "iou", "largest_component", "most_confused", "normalize_rows", "rescore",
    "scda_box", "search_thresholds", "search_weights", "simplex", "to_pixels", "to_window",
    "expand_queries", "expected_calibration_error", "fit_temperature", "k_reciprocal",
    "negative_log_likelihood", "paired_bootstrap", "pool", "ranked_metrics", "reliability",
    "stack_weights", "wilson_interval", "auroc", "density", "false_accepts", "false_accepts_at",
    "largest_logits", "mass", "square_of",
}  # fmt: skip
# They check, or a public function above consists of them.
INSIDE = {"as_float", "safe_sqrt", "check_batch", "check_embeddings", "check_labels",
          "check_not_negative", "check_rank", "predict_logits"}  # fmt: skip


def test_every_public_function_is_covered():
    functions = {name.rsplit(".", 1)[1] for name in public(lambda v: callable(v) and
                 not isinstance(v, type)) if "training" not in name}  # fmt: skip
    offered = {*losses.__all__, *evaluation.__all__, *localization.__all__}
    offered -= {"MarginStatistics", "PairMargins"}
    covered = CASES.keys() | APART | BY_NUMPY | INSIDE
    assert not (functions | offered) - covered, "add a case"
    assert not covered - (functions | offered)


def close(found, wanted, tolerance):
    """Largest difference, as a share of the largest value."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted)
    assert found.shape == wanted.shape and np.abs(wanted).max() > 1e-6
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < tolerance, f"off by {error:.1e}"


@slow
@pytest.mark.parametrize("name", CASES)
def test_values(name):
    case = CASES[name]
    floats, integers = case.floats(case.batch), case.integers(case.batch)
    found = compilation.jit(case.call)(*floats, *integers)
    close(found, case.oracle(*(x.astype(np.float64) for x in floats), *integers), case.tolerance)


@slow
@pytest.mark.parametrize("name", [n for n in CASES if n in losses.__all__])
def test_losses_of_bfloat16(name):
    """Features and logits of half precision: sums and roots are float32's all the same."""
    case = CASES[name]
    batch = case.small or 256
    floats = [jnp.asarray(x, jnp.bfloat16) for x in case.floats(batch)]
    integers = case.integers(batch)
    found = compilation.jit(case.call)(*floats, *integers)
    wanted = case.oracle(*(np.asarray(x, np.float64) for x in floats), *integers)
    assert found.dtype == jnp.float32
    close(found, wanted, 1e-3)


@slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.small])
def test_gradients(name):
    """The other side runs one operation after another, in float64 where the function keeps it."""
    case = CASES[name]
    floats, integers = case.floats(case.small), case.integers(case.small)
    weights = np.random.default_rng(3).random(jax.eval_shape(case.call, *floats, *integers).shape)

    def total(floats):
        value = case.call(*floats, *integers)
        return jnp.sum(value * jnp.asarray(weights, value.dtype))

    found = compilation.jit(jax.grad(total))(floats)
    standard = jax.numpy_dtype_promotion("standard")
    with jax.enable_x64(True), jax.disable_jit(), standard:
        wanted = jax.grad(total)([jnp.asarray(x, jnp.float64) for x in floats])
        assert all(x.dtype == np.float64 for x in wanted)
    largest = max(float(np.abs(x).max()) for x in wanted)
    for one, other in zip(found, wanted):
        assert np.abs(np.asarray(one) - np.asarray(other)).max() < 2e-3 * largest


def clustered(count=B):
    """Features whose classes overlap, and their classes."""
    rng, y = np.random.default_rng(0), labels_of(count)
    centers = rng.standard_normal((count // 4, D))
    return (centers[y] + 2.5 * rng.standard_normal((count, D))).astype(np.float32), y


@slow
def test_search_finds_the_nearest():
    unit = retrieval.normalize_rows(clustered()[0])
    scores, indices = evaluation.nearest(unit, unit, count=33, own=np.arange(B))
    exact = unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(exact, -np.inf)
    close(scores, -np.sort(-exact, axis=1)[:, :33], 1e-5)
    close(scores, np.take_along_axis(exact, indices, axis=1), 1e-5)


@slow
def test_measures_of_a_retrieval():
    x, y = clustered()
    exact = large.unit(x.astype(np.float64)) @ large.unit(x.astype(np.float64)).T
    np.fill_diagonal(exact, -np.inf)
    hits = y[np.argsort(-exact, axis=1)[:, :32]] == y[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, 33)
    wanted = {"recall@1": hits[:, 0].mean(), "recall@32": hits.any(axis=1).mean(),
              "precision@10": hits[:, :10].mean(), "r_precision": hits[:, :3].mean(),
              "map@r": (precision * hits)[:, :3].sum(axis=1).mean() / 3}  # fmt: skip
    found = evaluation.retrieval_metrics(x, y)
    assert 0.2 < wanted["recall@1"] < 0.95
    for name, value in wanted.items():
        assert abs(found[name] - value) < 1e-3, name


@slow
def test_reranking():
    x, y = clustered()
    p = large.softmax(np.random.default_rng(1).standard_normal((256, B // 4)))
    exact = large.unit(x[:256].astype(np.float64)) @ large.unit(x.astype(np.float64)).T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :50]
    known = Neighbours(np.take_along_axis(exact, order, axis=1), y[order], order)
    chosen = {"top_n": 20, "similarity_threshold": 0.05}
    close(evaluation.rerank(p, x[:256], x, y, **chosen), rescore(p, known, **chosen), 1e-4)


@slow
def test_suppression():
    rng = np.random.default_rng(0)
    given, scores = boxes(rng, (B, 4)).astype(np.float32), rng.permutation(B).astype(np.float32)
    found, valid = compilation.jit(lambda b, s: localization.nms(b, s, count=6))(given, scores)
    assert np.asarray(valid).all()
    np.testing.assert_array_equal(found, large.nms(given.astype(np.float64), scores, 0.25, 6))


@slow
def test_crops():
    rng = np.random.default_rng(0)
    images, where = rng.random((32, 112, 112, 16), np.float32), boxes(rng, (32, 6, 4))
    where = where.astype(np.float32)
    found = compilation.jit(lambda i, b: localization.crop_and_resize(i, b, size=56))(images, where)
    close(found, large.crops(images.astype(np.float64), where.astype(np.float64), 56), 1e-4)


@slow
def test_peaks():
    features = np.random.default_rng(0).standard_normal((128, 14, 14, D)).astype(np.float32)
    flat = features.reshape(128, 196, D)
    (centers, strengths), parts = compilation.jit(
        lambda f: (grouping.peaks(f), grouping.part_centers(f))
    )(features)
    row, column = np.divmod(flat.argmax(axis=1), 14)
    close(centers, (np.stack([row, column], axis=-1) + 0.5) / 14, 1e-6)
    close(strengths, flat.max(axis=1), 1e-6)
    np.testing.assert_array_equal(centers, parts)


@slow
def test_refined_centers():
    scores = np.random.default_rng(0).standard_normal((1024, 14, 14, 4)).astype(np.float32)
    shares = large.attention(scores.astype(np.float64))
    flat = scores.reshape(1024, 196, 4).argmax(axis=1)
    row, column = (x[:, None, None] for x in np.divmod(flat, 14))
    y, x = (np.arange(14).reshape(shape) for shape in ((1, 14, 1, 1), (1, 1, 14, 1)))
    near = shares * ((abs(y - row) <= 1) & (abs(x - column) <= 1))
    places = ((axis + 0.5) / 14 for axis in (y, x))
    wanted = [(near * place).sum(axis=(1, 2)) / near.sum(axis=(1, 2)) for place in places]
    found = compilation.jit(grouping.refined_centers)(scores)
    close(found, np.stack(wanted, axis=-1), 1e-5)


@slow
def test_probabilities():
    given = np.random.default_rng(0).standard_normal((B, D)).astype(np.float32) * 5
    close(classification.softmax(given), large.softmax(given.astype(np.float64)), 1e-5)
