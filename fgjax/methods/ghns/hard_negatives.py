"""GHNS's stage 2: sets of parts that are of one class but for a part or two, and pass for it.

Parts shuffle module: some of a reference's parts are replaced by those of other classes' images.
Filtering module: FilterNet, one linear layer on the concatenated features, keeps what it takes for
the reference's class. Because it is linear, a candidate's logits are a sum of one row per part, and
a round of candidates for all classes is three gathers on the device.
"""

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgjax import compilation
from fgjax.errors import UserError
from fgjax.methods.ghns.part_sets import replacement_masks

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class HardNegatives:
    """Recipes of the kept sets, from which their features can be computed at any time.

    Attributes:
      rows: int32 [M, P], the row of the features that each part comes from: an image of the split,
        or a view of it (`part_sets.Views`).
      reference: int32 [M], likewise, the one whose class the set passes for.
      mask: int32 [M], which parts are replaced: a row of `replacement_masks`.
      label: int32 [M], the reference's class.
      probability: float32 [M], FilterNet's for that class.
    """

    rows: np.ndarray
    reference: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclasses.dataclass(frozen=True)
class Generation:
    """What was kept, and what it took.

    Attributes:
      kept: the recipes, at most the wanted number of each class.
      tried: int [K, masks], candidates of each class and mask.
      accepted: int [K, masks], those that FilterNet let through.
      examples: the first round's candidates, some of them rejected, for pictures.
    """

    kept: HardNegatives
    tried: np.ndarray
    accepted: np.ndarray
    examples: HardNegatives


def partial_logits(features: jax.Array, kernel: jax.Array) -> jax.Array:
    """What each part adds to FilterNet's logits: [N, P, D] and [P·D, K] to [N, P, K]."""
    parts, width = features.shape[1:]
    return jnp.einsum("npd,pdk->npk", features, kernel.reshape(parts, width, -1))


@functools.partial(compilation.jit, static_argnames=("per_class",))
def draw_candidates(
    key: jax.Array, sorted_rows: jax.Array, starts: jax.Array, counts: jax.Array, masks: jax.Array,
    *, per_class: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """The parts shuffle module: `per_class` random sets for every class.

    References are uniform over the class, masks over all, and donors over all images of other
    classes, each part's for itself.

    Args:
      key: of this round.
      sorted_rows: int32 [N], images by class.
      starts: int32 [K], where each class begins in them.
      counts: int32 [K], how many it has; at least 1.
      masks: bool [masks, P], which parts are replaced.
      per_class: candidates for each class.

    Returns:
      rows int32 [K, per_class, P], reference [K, per_class], mask [K, per_class].
    """
    classes, parts, total = len(counts), masks.shape[1], len(sorted_rows)
    for_reference, for_mask, for_donors = jax.random.split(key, 3)
    low = starts[:, None]
    own = jax.random.randint(for_reference, (classes, per_class), low, low + counts[:, None])
    mask = jax.random.randint(for_mask, (classes, per_class), 0, len(masks))
    # Uniform over the others: draw below their number and step over the class.
    others = (total - counts)[:, None, None]
    donor = jax.random.randint(for_donors, (classes, per_class, parts), 0, others)
    donor = jnp.where(donor >= starts[:, None, None], donor + counts[:, None, None], donor)
    places = jnp.where(masks[mask], donor, own[..., None])
    return sorted_rows[places], sorted_rows[own], mask


@compilation.jit
def filter_candidates(
    partial: jax.Array, bias: jax.Array, rows: jax.Array, classes: jax.Array, threshold: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The filtering module: which candidates FilterNet takes for the reference's class.

    Args:
      partial: `partial_logits`, [N, P, K'].
      bias: [K'].
      rows: int [K, C, P], the image of each part.
      classes: int [K], the class that the candidates of a row are to pass for.
      threshold: τ; a probability below it is not enough.

    Returns:
      kept bool [K, C] and the class's probability [K, C].
    """
    parts = jnp.arange(partial.shape[1])
    logits = jnp.sum(partial[rows, parts], axis=2) + bias
    probabilities = jax.nn.softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(probabilities, classes[:, None, None], axis=2)[..., 0]
    first = jnp.argmax(logits, axis=-1) == classes[:, None]
    return first & (chosen >= threshold), chosen


def generate(
    key: jax.Array,
    features: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    wanted: int,
    threshold: float,
    max_attempts: int,
    per_round: int = 256,
) -> Generation:
    """Candidates by rounds until every class has enough or the attempts are used up.

    Args:
      key: decides everything.
      features: frozen part features of the split's images [N, P, D].
      labels: int [N].
      indices: rows of the split that references and donors may be.
      kernel: FilterNet's, [P·D, K].
      bias: likewise, [K].
      wanted: samples of each class; 150 or 200 in the paper, 0 for none.
      threshold: τ, 0.95 in the paper.
      max_attempts: candidates of a class after which it goes with fewer.
      per_round: candidates of a class at once.

    Raises:
      UserError: there is one class only.
    """
    classes, counts = np.unique(labels[indices], return_counts=True)
    if len(classes) < 2:
        raise UserError("hard negatives need parts of other classes, but only one class trains.")
    masks = replacement_masks(features.shape[1])
    order = indices[np.argsort(labels[indices], kind="stable")].astype(np.int32)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    partial = compilation.jit(partial_logits)(jnp.asarray(features), kernel)
    tried = np.zeros((len(classes), len(masks)), int)
    accepted = np.zeros_like(tried)
    store = _Store(classes, features.shape[1], wanted)
    examples, number = None, 0
    while examples is None or (wanted and not store.full and number * per_round < max_attempts):
        drawn = draw_candidates(
            jax.random.fold_in(key, number), jnp.asarray(order), jnp.asarray(starts),
            jnp.asarray(counts, jnp.int32), jnp.asarray(masks), per_class=per_round,
        )  # fmt: skip
        found = filter_candidates(
            partial, bias, drawn[0], jnp.asarray(classes, jnp.int32), jnp.float32(threshold)
        )
        rows, reference, mask, kept, probability = jax.device_get((*drawn, *found))
        if examples is None:
            examples = _flat(rows, reference, mask, classes, probability)
        open_classes = ~store.filled()
        for which, table in ((np.ones_like(kept), tried), (kept, accepted)):
            k, c = np.nonzero(which & open_classes[:, None])
            np.add.at(table, (k, mask[k, c]), 1)
        store.add(rows, reference, mask, kept, probability)
        number += 1
    return Generation(store.recipes(), tried, accepted, examples)


def with_random_images(
    made: Generation, labels: np.ndarray, indices: np.ndarray, *, seed: int
) -> Generation:
    """The same references, but each recipe is one whole image of another class."""
    rng, kept = np.random.default_rng(seed), made.kept
    rows = np.empty(len(kept), np.int32)
    for label in np.unique(kept.label):
        own = kept.label == label
        rows[own] = rng.choice(indices[labels[indices] != label], int(own.sum()))
    parts = kept.rows.shape[1]
    other = dataclasses.replace(kept, rows=np.repeat(rows[:, None], parts, axis=1))
    return dataclasses.replace(made, kept=other)


def as_many_as_wanted(labels: np.ndarray, parts: int, wanted: int) -> Generation:
    """What a generator leaves that finds all it looks for, without looking."""
    classes = np.unique(labels)
    label = np.repeat(classes, wanted).astype(np.int32)
    nothing = np.zeros(len(label), np.int32)
    kept = HardNegatives(
        rows=np.zeros((len(label), parts), np.int32),
        reference=nothing,
        mask=nothing,
        label=label,
        probability=np.ones(len(label), np.float32),
    )
    counts = np.zeros((len(classes), len(replacement_masks(parts))), int)
    return Generation(kept, tried=counts, accepted=counts, examples=kept)


class _Store:
    """The kept recipes of each class, without doubles."""

    def __init__(self, classes: np.ndarray, parts: int, wanted: int):
        self._classes, self._wanted = classes, wanted
        self._columns = parts + 3  # rows, reference, mask, probability
        self._tables = [np.zeros((0, self._columns), np.float64) for _ in classes]

    def filled(self) -> np.ndarray:
        """Which classes have enough, bool [K]."""
        return np.array([len(table) >= self._wanted for table in self._tables])

    @property
    def full(self) -> bool:
        """Whether all have."""
        return bool(self.filled().all())

    def add(self, rows, reference, mask, kept, probability) -> None:
        """Append a round's accepted candidates in their order."""
        every = np.concatenate(
            [rows, reference[..., None], mask[..., None], probability[..., None]],
            axis=-1, dtype=np.float64,
        )  # fmt: skip
        for k, chosen in enumerate(kept):
            table = np.concatenate([self._tables[k], every[k][chosen]])
            _, first = np.unique(table[:, :-1], axis=0, return_index=True)
            self._tables[k] = table[np.sort(first)][: self._wanted]

    def recipes(self) -> HardNegatives:
        """All classes' in one."""
        joined = np.concatenate(self._tables)
        labels = np.repeat(self._classes, [len(table) for table in self._tables])
        whole = joined.astype(np.int32)
        return HardNegatives(
            rows=whole[:, :-3],
            reference=whole[:, -3],
            mask=whole[:, -2],
            label=labels.astype(np.int32),
            probability=joined[:, -1].astype(np.float32),
        )


def _flat(rows, reference, mask, classes, probability, *, per_class: int = 32) -> HardNegatives:
    """The first candidates of each class as recipes."""
    cut = slice(None), slice(per_class)
    label = np.broadcast_to(classes[:, None], reference[cut].shape)
    return HardNegatives(
        rows=rows[cut].reshape(-1, rows.shape[-1]),
        reference=reference[cut].ravel(),
        mask=mask[cut].ravel(),
        label=label.ravel().astype(np.int32),
        probability=probability[cut].ravel(),
    )


def distances_to_reference(
    features: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    kept: HardNegatives,
    candidates: HardNegatives,
    *,
    seed: int,
    most: int = 2000,
) -> dict[str, np.ndarray]:
    """‖f(r) − f(x)‖₂ of unit features, for x = n⁺ and a random p and n of each reference.

    n⁺ keeps a part or two of its reference, and so is nearer than n whatever it is. What filtering
    did shows beside `candidates`, which nothing has filtered.

    Args:
      features: part features [N, P, D].
      labels: int [N].
      indices: rows that p and n may be.
      kept: recipes.
      candidates: sets as the parts shuffle module makes them, each with its own reference.
      seed: of the random positives, negatives and of which recipes are looked at.
      most: recipes to look at.

    Returns:
      {"positive", "hard_negative", "negative": float [M], "candidate": float [C]}, M ≤ `most`;
      where a class has one image, it is its own positive.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(kept))[:most]
    reference, parts = kept.reference[chosen], np.arange(features.shape[1])
    order = indices[np.argsort(labels[indices], kind="stable")]
    place = np.zeros(len(labels), int)
    place[order] = np.arange(len(order))
    start = np.searchsorted(labels[order], labels[reference], side="left")
    count = np.searchsorted(labels[order], labels[reference], side="right") - start
    # Uniform over the class without the reference, and over everything but the class.
    own = place[reference] - start
    other = rng.integers(0, np.maximum(count - 1, 1))
    positive = start + np.where(count > 1, other + (other >= own), own)
    outside = rng.integers(0, len(order) - count)
    negative = outside + np.where(outside >= start, count, 0)

    def unit(rows: np.ndarray) -> np.ndarray:
        x = features[rows, parts].reshape(len(rows), features.shape[1] * features.shape[2])
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    rows = {
        "positive": order[positive][:, None],
        "hard_negative": kept.rows[chosen],
        "negative": order[negative][:, None],
    }
    r = unit(reference[:, None])
    found = {name: np.linalg.norm(r - unit(x), axis=1) for name, x in rows.items()}
    theirs = unit(candidates.reference[:, None]) - unit(candidates.rows)
    return {**found, "candidate": np.linalg.norm(theirs, axis=1)}


def report(made: Generation, distances: dict[str, np.ndarray]) -> dict[str, Any]:
    """Acceptance by class and mask, attempts, and whether n⁺ lie nearer than other negatives."""
    tried, accepted, kept = made.tried, made.accepted, len(made.kept)
    metrics: dict[str, Any] = {
        "kept": kept,
        "attempts": int(tried.sum()),
        "acceptance": float(accepted.sum() / max(tried.sum(), 1)),
        "acceptance_by_class": (accepted.sum(1) / np.maximum(tried.sum(1), 1)).tolist(),
        "acceptance_by_mask": (accepted.sum(0) / np.maximum(tried.sum(0), 1)).tolist(),
        "masks": replacement_masks(made.examples.rows.shape[1]).astype(int).tolist(),
    }
    if not kept:
        return metrics
    means = {name: float(values.mean()) for name, values in distances.items()}
    metrics |= {f"distance_{name}": mean for name, mean in means.items()}
    nearer = means["hard_negative"] < means["negative"]
    metrics["hard_negatives_are_nearer"] = nearer
    metrics["share_nearer_than_a_negative"] = float(
        np.mean(distances["hard_negative"] < distances["negative"])
    )
    unfiltered = np.sort(distances["candidate"])
    beyond = len(unfiltered) - np.searchsorted(unfiltered, distances["hard_negative"], "right")
    metrics["share_nearer_than_a_candidate"] = float(np.mean(beyond) / max(len(unfiltered), 1))
    log.info(
        "hard negatives: %d kept of %d candidates (%.1f %%); mean distance to the reference %.3f, "
        "of candidates that nothing filtered %.3f, of other negatives %.3f%s", kept, tried.sum(),
        100 * metrics["acceptance"], means["hard_negative"], means["candidate"], means["negative"],
        "" if nearer else ": THEY ARE NOT NEARER",
    )  # fmt: skip
    return metrics
