"""What stands on the features, and how its one free number is chosen.

linear   multinomial logistic regression; how strongly it is regularised
cosine   the cosine to each class's mean; nothing is free
knn      a vote of the nearest training images; how many of them

`attention` looks at the map instead, and begins as `linear` (`probe.attention`).
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgjax.evaluation import nearest

HEADS = ("linear", "cosine", "knn", "attention")
NEVER = -1e4  # the logit of a class without an image, which is never the answer
_SCALE = 100.0  # of cosines, so that a temperature near 1 fits
_SHARPNESS = 0.07  # of the votes, by similarity (DINO's)
# Share of a class that nobody votes for. With 1e-6 the few images whose class gets no vote decide
# the temperature, and the calibration error of 100 birds is 0.10 on the folds; with 0.01, 0.026.
_LEAST = 0.01
NO_VIEWS = np.zeros((0, 0, 0), np.float32)
_CLASS_FOLDS = 5  # in which classes are left out, to see what a head says of unknown things

Arrays = dict[str, np.ndarray]


class Fitted(NamedTuple):
    """A head, and how it came about.

    Attributes:
      chosen: the free number; 0 where there is none.
      arrays: `weights` [D, K] and `bias` [K]; of knn `memory` [N, D], `labels` [N] and `count`.
      outside: logits [N, K] of each training image by a head that was fitted without it; [0, K]
        where no class has two images.
    """

    chosen: float
    arrays: Arrays
    outside: np.ndarray


def fit(
    head: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    candidates: Sequence[float],
    folds: int,
    iterations: int,
    seed: int,
    further: np.ndarray = NO_VIEWS,
) -> Fitted:
    """A head with the candidate that has the highest accuracy over the folds.

    Among equals the first wins. There are no more folds than the largest class has images; where
    it has one, a candidate in the middle is taken. Further views of the images [V, N, D] are fitted
    with them, and judge nothing.
    """
    divided = divide(labels, folds, seed)
    accuracies = np.zeros((max(len(divided), 1), len(candidates)))
    outside = np.full((len(candidates), len(labels), classes), NEVER, np.float32)
    with warnings.catch_warnings():
        # Small classes: a fold then lacks them. Few iterations: what is reached is what is meant.
        warnings.simplefilter("ignore")
        for fold, (own, judged) in enumerate(divided):
            seen = with_views(features[own], of_rows(further, own), labels[own])
            found = _heads(head, *seen, classes, candidates, iterations)
            for position, arrays in enumerate(found):
                logits = outside[position, judged] = logits_of(arrays, features[judged], classes)
                accuracies[fold, position] = np.mean(logits.argmax(axis=1) == labels[judged])
    best = int(np.argmax(accuracies.mean(axis=0))) if divided else len(candidates) // 2
    chosen = candidates[best]
    seen = with_views(features, further, labels)
    arrays = fit_one(head, *seen, classes=classes, chosen=chosen, iterations=iterations)
    return Fitted(float(chosen), arrays, outside[best][: len(labels) * bool(divided)])


def with_views(
    features: np.ndarray, further: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, D] with those of further views [V, N, D] below, and the labels of all."""
    if not len(further):
        return features, labels
    return np.concatenate([features, *further]), np.tile(labels, 1 + len(further))


def of_rows(further: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Further views [V, N, D] of some images; V may be 0."""
    return further[:, rows] if len(further) else further


def divide(labels: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows that fit, rows that are judged) of each fold; none where no class has two images."""
    from sklearn.model_selection import StratifiedKFold

    count = min(folds, int(np.bincount(labels).max()))
    if count < 2:
        return []
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small classes: a fold then lacks them
        return list(splitter.split(labels, labels))


def fit_one(
    head: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    chosen: float,
    iterations: int,
) -> Arrays:
    """A head with a given free number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (arrays,) = _heads(head, features, labels, classes, (chosen,), iterations)
    return arrays


def strangers(
    head: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    chosen: float,
    iterations: int,
    seed: int,
    further: np.ndarray = NO_VIEWS,
) -> np.ndarray | None:
    """Largest logit of each image [N] by a head that was fitted without its class.

    A fifth of the classes is left out at a time, at random. None where there are fewer than three:
    what is left would be no choice.
    """
    present = np.random.default_rng(seed).permutation(np.unique(labels))
    if len(present) < 3:
        return None
    scores = np.zeros(len(labels), np.float32)
    for unseen in np.array_split(present, min(_CLASS_FOLDS, len(present))):
        judged = np.isin(labels, unseen)
        seen = with_views(features[~judged], of_rows(further, ~judged), labels[~judged])
        arrays = fit_one(head, *seen, classes=classes, chosen=chosen, iterations=iterations)
        scores[judged] = logits_of(arrays, features[judged], classes).max(axis=1)
    return scores


def _heads(
    head: str,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    candidates: Sequence[float],
    iterations: int,
) -> Iterator[Arrays]:
    """A head for each candidate; the linear ones each from where the one before ended."""
    if head == "knn":
        for candidate in candidates:
            count = np.asarray(min(int(candidate), len(labels)), np.int32)
            yield {"memory": features, "labels": labels.astype(np.int32), "count": count}
    elif head == "cosine":
        for _ in candidates:
            yield _class_means(features, labels, classes)
    else:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(max_iter=iterations, warm_start=True)
        for candidate in candidates:
            model.set_params(C=candidate).fit(features, labels)
            yield _of_all_classes(model, classes)


def _class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> Arrays:
    """Unit vectors along the classes' means, as the weights of a linear head."""
    sums = np.zeros((classes, features.shape[1]), np.float64)
    np.add.at(sums, labels, features)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    weights = _SCALE * (sums / np.maximum(norms, 1e-12)).T
    known = np.bincount(labels, minlength=classes) > 0
    bias = np.where(known, 0, NEVER)
    return {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}


def _of_all_classes(model: Any, classes: int) -> Arrays:
    """Weights and bias of a fitted model for all classes, seen or not."""
    rows, offsets = model.coef_, model.intercept_
    if len(rows) == 1:  # of two classes there is one row, the difference of their logits
        rows, offsets = (np.concatenate([-each, each]) / 2 for each in (rows, offsets))
    arrays = empty("linear", rows.shape[1], classes)
    arrays["bias"][:] = NEVER
    arrays["weights"][:, model.classes_], arrays["bias"][model.classes_] = rows.T, offsets
    return arrays


def empty(head: str, width: int, classes: int, images: int = 1) -> Arrays:
    """Zeros of a head's shapes."""
    if head != "knn":
        return {"weights": np.zeros((width, classes), np.float32),
                "bias": np.zeros(classes, np.float32)}  # fmt: skip
    return {"memory": np.zeros((images, width), np.float32),
            "labels": np.zeros(images, np.int32), "count": np.asarray(1, np.int32)}  # fmt: skip


def logits_of(arrays: Arrays, features: np.ndarray, classes: int) -> np.ndarray:
    """Logits [N, K] of unit features [N, D]."""
    if "memory" not in arrays:
        return features @ arrays["weights"] + arrays["bias"]
    scores, rows = nearest(features, arrays["memory"], count=int(arrays["count"]))
    found = votes(jnp.asarray(scores), jnp.asarray(arrays["labels"][rows]), classes=classes)
    logits = np.array(found)
    logits[:, np.bincount(arrays["labels"], minlength=classes) == 0] = NEVER
    return logits


def votes(scores: jax.Array, labels: jax.Array, *, classes: int) -> jax.Array:
    """Logits [B, K] of the neighbours' classes: log Σ_{i of the class} exp(s_i / 0.07).

    Their softmax are the shares of the votes; how large they are says how near the images lie.

    Args:
      scores: cosines [B, k] of the nearest images.
      labels: their classes [B, k].
      classes: K. Who gets no vote counts as if it had a hundredth of them.
    """
    sharp = scores / _SHARPNESS
    weights = jax.nn.softmax(sharp, axis=-1)
    rows = jnp.arange(scores.shape[0])[:, None]
    shares = jnp.zeros((scores.shape[0], classes), weights.dtype).at[rows, labels].add(weights)
    total = jax.scipy.special.logsumexp(sharp, axis=-1, keepdims=True)
    return jnp.log(jnp.maximum(shares, _LEAST)) + total
