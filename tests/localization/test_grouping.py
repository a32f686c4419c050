"""Channels' peaks, their groups, and the parts' attention, by hand and by loops."""

import numpy as np
import pytest

from fgjax.localization import grouping


def test_part_scores_and_centers_by_loops():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 4, 5)).astype(np.float16)
    gates = rng.uniform(size=(2, 3, 5)).astype(np.float32)
    found = grouping.part_scores(features, gates)
    assert found.shape == (2, 3, 4, 3) and found.dtype == np.float32
    for b, n in np.ndindex(2, 3):
        wanted = sum(gates[b, n, c] * np.float64(features[b, ..., c]) for c in range(5))
        np.testing.assert_allclose(found[b, ..., n], wanted, rtol=1e-4, atol=1e-5)
    for b, n in np.ndindex(2, 3):
        y, x = np.unravel_index(np.argmax(found[b, ..., n]), (3, 4))
        wanted = [(y + 0.5) / 3, (x + 0.5) / 4]
        np.testing.assert_allclose(grouping.part_centers(found)[b, n], wanted, rtol=1e-6)


def test_refined_centers_are_means_of_the_attention_around_the_peak():
    scores = np.random.default_rng(2).normal(size=(4, 5, 6, 3)).astype(np.float32)
    scores[0, 0, 5, 0] = 9  # in a corner there are three neighbours
    scores[1, :, :, 1] = 2  # a constant map has its peak in the first cell
    found = grouping.refined_centers(scores)
    attention = np.asarray(grouping.attention(scores), np.float64)
    for b, n in np.ndindex(4, 3):
        y, x = np.unravel_index(np.argmax(scores[b, ..., n]), (5, 6))
        total, place = 0.0, np.zeros(2)
        for v in range(max(y - 1, 0), min(y + 2, 5)):
            for u in range(max(x - 1, 0), min(x + 2, 6)):
                total += attention[b, v, u, n]
                place += attention[b, v, u, n] * np.array([(v + 0.5) / 5, (u + 0.5) / 6])
        np.testing.assert_allclose(found[b, n], place / total, rtol=1e-5)


def test_a_part_between_two_cells_is_found_there():
    """Two cells that are alike: the first would win, by half a cell."""
    scores = np.zeros((1, 4, 4, 1), np.float32)
    scores[0, 1, 1:3] = 5
    np.testing.assert_allclose(grouping.part_centers(scores)[0, 0], [0.375, 0.375])
    np.testing.assert_allclose(grouping.refined_centers(scores)[0, 0], [0.375, 0.5], atol=1e-3)


def test_peaks_name_the_strongest_cell():
    features = np.zeros((1, 4, 5, 2), np.float32)
    features[0, 1, 3, 0] = 7
    centers, strengths = grouping.peaks(features)
    np.testing.assert_allclose(centers[0, 0], [1.5 / 4, 3.5 / 5])
    np.testing.assert_allclose(strengths, [[7, 0]])


def test_attention_sums_to_one_and_keeps_the_peak():
    scores = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32) * 50
    attention = np.asarray(grouping.attention(scores))
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_array_equal(
        attention.reshape(2, 36, 3).argmax(1), scores.reshape(2, 36, 3).argmax(1)
    )


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_channels_that_peak_together_form_a_part(share):
    """Three places in every image, eight channels at each; at share 0.5 as many that wander."""
    rng = np.random.default_rng(0)
    images, places = 60, np.array([[0.5, 0.1], [0.7, 0.5], [0.3, 0.9]])
    centers = [places[c // 8] + rng.normal(0, 0.02, (images, 2)) for c in range(24)]
    if share < 1:
        centers += [rng.uniform(size=(images, 2)) for _ in range(24)]
    centers = np.stack(centers, axis=1)
    membership = grouping.group_channels(
        centers, np.ones(centers.shape[:2]), num_parts=3, compact_share=share
    )
    for part in range(3):  # ordered from left to right
        assert np.flatnonzero(membership[part]).tolist() == list(range(8 * part, 8 * part + 8))


@pytest.mark.parametrize(("share", "at_least", "at_most"), [(1.0, 0.95, 1.0), (0.7, 0.0, 0.6)])
def test_parts_are_told_apart_where_objects_face_both_ways(share, at_least, at_most):
    """MA-CNN's way sees each image's peaks; their means all lie in the middle."""
    rng = np.random.default_rng(0)
    images, parts = 80, np.repeat(np.arange(3), 60)
    places = np.array([[0.5, 0.1], [0.5, 0.5], [0.5, 0.9]])
    centers = places[parts][None] + rng.normal(0, 0.06, (images, 180, 2))
    turned = np.arange(images) % 2 == 1
    centers[turned, :, 1] = 1 - centers[turned, :, 1]
    found = grouping.group_channels(
        centers, np.ones((images, 180)), num_parts=3, compact_share=share
    )
    right = sum(np.bincount(parts[row], minlength=3).max() for row in found if row.any())
    assert at_least <= right / found.sum() <= at_most


def test_peaks_are_the_first_of_the_strongest_cells():
    features = np.zeros((2, 2, 3, 3), np.float16)
    features[0, 0, 2, 0] = features[0, 1, 0, 0] = 2  # a tie
    features[0, 1, 1, 1], features[0, 0, 0, 1] = 5, 4
    features[1] = -1
    features[1, 1, 2, 2] = -0.5
    centers, strengths = grouping.peaks(features)
    assert strengths.tolist() == [[2, 5, 0], [-1, -1, -0.5]]
    wanted = [[[1 / 4, 5 / 6], [3 / 4, 1 / 2], [1 / 4, 1 / 6]],
              [[1 / 4, 1 / 6], [1 / 4, 1 / 6], [3 / 4, 5 / 6]]]  # fmt: skip
    np.testing.assert_allclose(centers, wanted, rtol=1e-6)


def test_attention_in_float64():
    """softplus(tanh(2 u − 1))⁸ over its sum, u the scores brought to [0, 1]."""
    scores = np.random.default_rng(2).normal(size=(2, 3, 5, 2)) * 7 + 4
    scores[1, ..., 1] = 3  # a flat map
    low, high = scores.min(axis=(1, 2), keepdims=True), scores.max(axis=(1, 2), keepdims=True)
    unit = (scores - low) / np.maximum(high - low, 1e-6)
    sharp = np.log1p(np.exp(np.tanh(2 * unit - 1))) ** 8
    wanted = sharp / sharp.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(grouping.attention(np.float32(scores)), wanted, rtol=1e-4)
    faint = np.zeros((1, 1, 2, 1))
    faint[0, 0, 0, 0] = 1e-7  # a tenth of what counts as a range
    sharp = np.log1p(np.exp(np.tanh([2 * 0.1 - 1, -1.0]))) ** 8
    found = grouping.attention(np.float32(faint))
    np.testing.assert_allclose(found[0, 0, :, 0], sharp / sharp.sum(), rtol=1e-4)


def channels(*places, images=40, wander=()):
    """Peaks of channels at fixed places; those in `wander` are anywhere in every image."""
    rng = np.random.default_rng(0)
    centers = np.tile(np.array(places, float), (images, 1, 1))
    centers += rng.normal(0, 0.01, centers.shape)
    for channel in wander:
        centers[:, channel] = rng.uniform(size=(images, 2))
    return centers, np.ones(centers.shape[:2])


def groups(membership):
    return [np.flatnonzero(part).tolist() for part in membership]


def test_channels_that_wander_or_are_dead_belong_to_no_part():
    """Of six channels 0.7 are round(4.2): the wandering one and the dead one are left out."""
    centers, strengths = channels(
        (0.2, 0.9), (0.5, 0.5), (0.5, 0.1), (0.8, 0.1), (0.5, 0.5), (0.2, 0.9), wander=[1]
    )
    strengths[:, 4] = 0
    found = grouping.group_channels(centers, strengths, num_parts=2)
    assert groups(found) == [[2, 3], [0, 5]]
    assert found.dtype == bool and found.shape == (2, 6)


def test_where_a_channel_is_dead_its_peak_means_nothing():
    """Channel 0 is dead in half of the images and would wander there; channel 3 does wander."""
    centers, strengths = channels((0.2, 0.9), (0.2, 0.9), (0.5, 0.1), (0.2, 0.1), wander=[3])
    noise = np.random.default_rng(1).uniform(size=(20, 2))
    centers[::2, 0], strengths[::2, 0] = noise, 0
    for share in (0.75, 1.0):
        found = grouping.group_channels(
            centers[:, : 3 if share == 1 else 4], strengths[:, : 3 if share == 1 else 4],
            num_parts=2, compact_share=share,
        )  # fmt: skip
        assert groups(found) == [[2], [0, 1]]


def test_channels_of_one_mean_are_told_apart_by_their_peaks_in_every_image():
    """MA-CNN's: two channels that move together, two that move the other way, one mean for all."""
    moving = np.random.default_rng(3).uniform(-0.4, 0.4, 30)
    centers = np.full((30, 4, 2), 0.5)
    centers[:, [0, 2], 1] += moving[:, None]
    centers[:, [1, 3], 1] -= moving[:, None] - 0.01
    found = grouping.group_channels(centers, np.ones((30, 4)), num_parts=2, compact_share=1)
    assert groups(found) == [[0, 2], [1, 3]]


def test_parts_have_a_channel_each_however_few_are_compact():
    centers, strengths = channels(*[(0.5, x / 10) for x in range(10)])
    found = grouping.group_channels(centers, strengths, num_parts=3, compact_share=0.1)
    assert [len(part) for part in groups(found)] == [1, 1, 1]
    assert groups(found) == sorted(groups(found))


def test_k_means_starts_ten_times_from_the_seed(monkeypatch):
    asked = []

    class KMeans:
        def __init__(self, *given, **options):
            asked.append((given, options))

        def fit(self, rows):
            self.labels_ = np.arange(len(rows)) % 2
            asked.append(rows.shape)
            return self

    monkeypatch.setattr("sklearn.cluster.KMeans", KMeans)
    centers, strengths = channels((0.5, 0.2), (0.5, 0.8), (0.5, 0.3), images=4)
    grouping.group_channels(centers, strengths, num_parts=2, compact_share=1, seed=7)
    grouping.group_channels(centers, strengths, num_parts=2)
    grouping.group_channels(centers[:, :2], strengths[:, :2], num_parts=2, compact_share=0.99)
    start = lambda seed: ((2,), {"n_init": 10, "random_state": seed})  # noqa: E731
    assert asked == [start(7), (3, 8), start(0), (2, 2), start(0), (2, 2)]


def test_of_channels_that_wander_alike_the_first_take_part():
    """Twenty dead ones among twenty at rest, of which half of all and two more are asked for."""
    centers = np.full((3, 40, 2), 0.5)
    centers[:, 20:, 1] = 0.9
    strengths = np.tile([1.0, 0.0], (3, 20))
    found = grouping.group_channels(centers, strengths, num_parts=2, compact_share=0.55)
    assert np.flatnonzero(found.any(axis=0)).tolist() == [0, 1, 2, 3, *range(4, 40, 2)]


def test_a_channel_that_is_alive_once_peaks_there():
    centers, strengths = channels((0.5, 0.1), (0.5, 0.1), (0.5, 0.8), (0.5, 0.8))
    strengths[1:, 3] = 0
    found = grouping.group_channels(centers, strengths, num_parts=2, compact_share=0.99)
    assert groups(found) == [[0, 1], [2, 3]]
