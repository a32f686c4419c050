"""GHNS's generator of hard negatives against plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgjax.errors import UserError
from fgjax.methods.ghns import hard_negatives

LABELS = np.repeat(np.arange(4), [6, 2, 7, 5])


def world(seed=0, parts=3, width=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(LABELS), parts, width)).astype(np.float32)
    kernel = rng.normal(size=(parts * width, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    return features, kernel, bias


def probability(features, kernel, bias, rows, label):
    """FilterNet's, in float64 on the concatenated features."""
    joined = np.concatenate([features[row, part] for part, row in enumerate(rows)])
    logits = joined.astype(np.float64) @ kernel + bias
    p = np.exp(logits - logits.max())
    return (p / p.sum())[label], logits.argmax() == label


def make(indices=None, **options):
    features, kernel, bias = world()
    indices = np.arange(len(LABELS)) if indices is None else indices
    options = {"wanted": 20, "threshold": 0.6, "max_attempts": 20_000, "per_round": 64, **options}
    made = hard_negatives.generate(
        jax.random.key(0), features, LABELS, indices, jnp.asarray(kernel), jnp.asarray(bias),
        **options,
    )  # fmt: skip
    return made, (features, kernel, bias)


def test_every_kept_sample_is_what_the_paper_says():
    """One or two parts replaced, by other classes' images, and FilterNet takes it for the class."""
    made, net = make()
    masks = hard_negatives.replacement_masks(3)
    kept = made.kept
    assert np.bincount(kept.label, minlength=4).tolist() == [20] * 4
    for rows, reference, mask, label, p in zip(*vars(kept).values()):
        assert LABELS[reference] == label
        for row, replaced in zip(rows, masks[mask]):
            assert (LABELS[row] != label) if replaced else (row == reference)
        wanted, first = probability(*net, rows, label)
        assert first and wanted >= 0.6 - 1e-5
        assert p == pytest.approx(wanted, abs=1e-5)
    recipes = {(*rows.tolist(), int(mask)) for rows, mask in zip(kept.rows, kept.mask)}
    assert len(recipes) == len(kept)  # no doubles


def test_candidates_are_uniform_over_references_masks_and_donors():
    order = np.argsort(LABELS, kind="stable").astype(np.int32)
    counts = np.bincount(LABELS).astype(np.int32)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    masks = hard_negatives.replacement_masks(3)
    rows, reference, mask = map(np.asarray, hard_negatives.draw_candidates(
        jax.random.key(1), jnp.asarray(order), jnp.asarray(starts), jnp.asarray(counts),
        jnp.asarray(masks), per_class=6000,
    ))  # fmt: skip
    for k in range(4):
        seen = np.bincount(reference[k], minlength=len(LABELS))
        assert (seen[k != LABELS] == 0).all()
        np.testing.assert_allclose(seen[k == LABELS] / 6000, 1 / counts[k], atol=0.03)
        np.testing.assert_allclose(np.bincount(mask[k]) / 6000, 1 / 6, atol=0.03)
        donors = rows[k][masks[mask[k]]]
        share = np.bincount(donors, minlength=len(LABELS)) / len(donors)
        assert (share[k == LABELS] == 0).all()
        np.testing.assert_allclose(share[k != LABELS], 1 / (len(LABELS) - counts[k]), atol=0.02)


def test_counts_of_the_generator_add_up_and_repeat():
    made, _ = make()
    assert (made.accepted <= made.tried).all() and made.tried.sum() % 64 == 0
    again, _ = make()
    for one, two in zip(vars(made.kept).values(), vars(again.kept).values()):
        np.testing.assert_array_equal(one, two)


def test_held_out_rows_are_never_used():
    allowed = np.flatnonzero(np.arange(len(LABELS)) % 3 > 0)
    made, _ = make(indices=allowed)
    assert set(made.kept.rows.ravel()) <= set(allowed) and len(made.kept)


def test_a_higher_threshold_keeps_less_and_the_cap_ends_the_search():
    loose, _ = make(threshold=0.3, wanted=1000, max_attempts=640)
    strict, _ = make(threshold=0.9, wanted=1000, max_attempts=640)
    assert loose.tried.sum() == strict.tried.sum() == 4 * 640
    assert strict.accepted.sum() < loose.accepted.sum()
    none, _ = make(threshold=1.1, max_attempts=128)
    assert len(none.kept) == 0 and none.tried.sum() == 4 * 128
    assert len(make(wanted=0)[0].kept) == 0


def test_one_class_only_is_refused():
    features, kernel, bias = world()
    with pytest.raises(UserError, match="only one class trains"):
        hard_negatives.generate(
            jax.random.key(0), features, np.zeros(len(LABELS), int), np.arange(len(LABELS)),
            jnp.asarray(kernel), jnp.asarray(bias), wanted=1, threshold=0.5, max_attempts=10,
        )  # fmt: skip


def test_distances_by_loops_and_their_draws():
    made, (features, _, _) = make()
    indices = np.arange(len(LABELS))
    found = hard_negatives.distances_to_reference(
        features, LABELS, indices, made.kept, made.examples, seed=0
    )
    unit = lambda rows: (  # noqa: E731
        lambda x: x / np.linalg.norm(x)
    )(np.concatenate([features[row, p] for p, row in enumerate(rows)]))
    candidates = made.examples
    for number in range(0, len(candidates), 7):
        reference = unit([candidates.reference[number]] * 3)
        wanted = np.linalg.norm(reference - unit(candidates.rows[number]))
        assert found["candidate"][number] == pytest.approx(wanted, rel=1e-5)
    order = np.random.default_rng(0).permutation(len(made.kept))
    for number, row in enumerate(order):
        reference = unit([made.kept.reference[row]] * 3)
        wanted = np.linalg.norm(reference - unit(made.kept.rows[row]))
        assert found["hard_negative"][number] == pytest.approx(wanted, rel=1e-5)
        same = made.kept.label[row] == LABELS
        same[made.kept.reference[row]] = False
        for name, allowed in (("positive", same), ("negative", made.kept.label[row] != LABELS)):
            choices = [np.linalg.norm(reference - unit([i] * 3)) for i in np.flatnonzero(allowed)]
            assert np.isclose(choices, found[name][number], rtol=1e-4).any()


def test_replaced_parts_leave_the_set_nearer_than_another_image():
    """Features that share parts are nearer by construction: the report must see it."""
    made, (features, _, _) = make()
    found = hard_negatives.distances_to_reference(
        features, LABELS, np.arange(len(LABELS)), made.kept, made.examples, seed=0
    )
    report = hard_negatives.report(made, found)
    assert report["hard_negatives_are_nearer"] is True
    assert report["distance_hard_negative"] < report["distance_negative"]
    halves = {**found, "hard_negative": np.array([1.0, 5.0]), "negative": np.array([6.0, 6.0]),
              "candidate": np.array([2.0, 1.0, 3.0, 4.0])}  # fmt: skip
    assert hard_negatives.report(made, halves)["share_nearer_than_a_candidate"] == 3 / 8
    far = {**found, "hard_negative": found["negative"] + 1}
    assert hard_negatives.report(made, far)["hard_negatives_are_nearer"] is False


def test_none_may_be_wanted():
    """A row of a study trains without them: nothing is measured, and nothing divides by it."""
    made, (features, _, _) = make()
    kept = hard_negatives.HardNegatives(**{k: v[:0] for k, v in vars(made.kept).items()})
    found = hard_negatives.distances_to_reference(
        features, LABELS, np.arange(len(LABELS)), kept, made.examples, seed=0
    )
    assert [len(found[name]) for name in ("positive", "hard_negative", "negative")] == [0, 0, 0]
    none = dataclasses.replace(made, kept=kept)
    assert hard_negatives.report(none, found)["kept"] == 0


def test_random_images_stand_beside_what_was_made():
    made, _ = make()
    indices = np.arange(0, len(LABELS), 2)
    other = hard_negatives.with_random_images(made, LABELS, indices, seed=0).kept
    assert (other.rows == other.rows[:, :1]).all() and set(other.rows.ravel()) <= set(indices)
    assert (LABELS[other.rows[:, 0]] != other.label).all()
    np.testing.assert_array_equal(other.reference, made.kept.reference)
    assert len(set(other.rows[:, 0].tolist())) > 3


# Stage 3
