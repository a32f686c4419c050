"""Fine re-ranking of a coarse classification by retrieval (CCFR Eq. 8, 9)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Integer

from fgjax.errors import UserError
from fgjax.evaluation.retrieval import nearest, normalize_rows


def rerank(
    probabilities: Float[ArrayLike, "Q C"],
    queries: Float[ArrayLike, "Q D"],
    database: Float[ArrayLike, "N D"],
    database_labels: Integer[ArrayLike, " N"],
    *,
    top_n: int = 5,
    top_m: int = 50,
    probability_threshold: float = 0.7,
    similarity_threshold: float = 0.7,
    alpha: float = 0.0,
    beta: float = 1.0,
    per_class: bool = False,
) -> Float64[np.ndarray, "Q C"]:
    """Scores in which unsure queries are decided by their nearest training images (CCFR 3.3).

    Of the top m training images, those with sim > T_sc count: Sc(q, c) = Σ_{k ∈ c} sim(q, x_k) /
    Σ_{c' ∈ top n} Σ_{k ∈ c'} sim(q, x_k) (Eq. 9). A query whose highest probability S_f reaches
    T_sf keeps its scores; of any other, the top n classes get α S_f + β Sc (Eq. 8). A query that
    finds nothing of its top n classes keeps its scores, too.

    The classes outside the top n keep their order below the others, so that top-n accuracy cannot
    change; ties keep the order of the probabilities.

    Args:
      probabilities: S_f.
      queries: features of any length; the cosine with a zero vector is 0.
      database: features of the training images.
      database_labels: classes of the training images.
      top_n: classes that are re-ranked.
      top_m: training images that are looked at.
      probability_threshold: T_sf.
      similarity_threshold: T_sc.
      alpha: weight of the probability.
      beta: weight of the similarity.
      per_class: Eq. 8 taken literally: each class of the top n whose own probability reaches T_sf
        keeps it.

    Returns:
      Scores; the probabilities where nothing changed.

    Raises:
      UserError: top_n exceeds the classes, top_m the database, or features are not finite.
    """
    neighbours = find_neighbours(queries, database, database_labels, count=top_m)
    return rescore(
        probabilities, neighbours, top_n=top_n, top_m=top_m,
        probability_threshold=probability_threshold, similarity_threshold=similarity_threshold,
        alpha=alpha, beta=beta, per_class=per_class,
    )  # fmt: skip


class Neighbours(NamedTuple):
    """The nearest training images of queries, best first.

    Attributes:
      similarities: cosines.
      labels: their classes.
      rows: of the database.
    """

    similarities: Float[np.ndarray, "Q M"]
    labels: Integer[np.ndarray, "Q M"]
    rows: Integer[np.ndarray, "Q M"]


def find_neighbours(
    queries: Float[ArrayLike, "Q D"],
    database: Float[ArrayLike, "N D"],
    database_labels: Integer[ArrayLike, " N"],
    *,
    count: int,
) -> Neighbours:
    """The `count` nearest rows by cosine, found once for any number of `rescore`.

    Raises:
      UserError: count exceeds the database, or features are not finite.
    """
    labels = np.asarray(database_labels)
    if not 1 <= count <= len(labels):
        raise UserError(
            f"top_m is {count}, but must be in 1 … {len(labels)}, the images of the database."
        )
    similarities, rows = nearest(
        normalize_rows(queries, "queries"), normalize_rows(database, "the database"), count=count
    )
    return Neighbours(similarities, labels[rows], rows)


def rescore(
    probabilities: Float[ArrayLike, "Q C"],
    neighbours: Neighbours,
    *,
    top_n: int = 5,
    top_m: int = 50,
    probability_threshold: float = 0.7,
    similarity_threshold: float = 0.7,
    alpha: float = 0.0,
    beta: float = 1.0,
    per_class: bool = False,
) -> Float64[np.ndarray, "Q C"]:
    """`rerank` with neighbours that are known, of which the first top m are used."""
    probabilities = np.asarray(probabilities, np.float64)
    classes = probabilities.shape[1]
    if not 1 <= top_n <= classes:
        raise UserError(f"top_n is {top_n}, but must be in 1 … {classes}, the number of classes.")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_n]
    first = np.take_along_axis(probabilities, order, axis=1)
    found, total = class_similarities(
        neighbours, order, top_m=top_m, similarity_threshold=similarity_threshold
    )
    mixed = alpha * first + beta * found
    if per_class:
        mixed = np.where(first >= probability_threshold, first, mixed)
        changes = total > 0
    else:
        changes = (total > 0) & (first[:, 0] < probability_threshold)
    place = np.argsort(-mixed, axis=1, kind="stable")  # among equals, the more probable
    renewed = probabilities - (1 + classes)  # below whatever the top n get
    np.put_along_axis(
        renewed,
        np.take_along_axis(order, place, axis=1),
        _descending(np.take_along_axis(mixed, place, axis=1)),
        axis=1,
    )
    return np.where(changes[:, None], renewed, probabilities)


def class_similarities(
    neighbours: Neighbours,
    classes: Integer[np.ndarray, "Q n"],
    *,
    top_m: int,
    similarity_threshold: float,
) -> tuple[Float64[np.ndarray, "Q n"], Float64[np.ndarray, " Q"]]:
    """Sc of Eq. 9 for n classes of each query, and its denominator; Sc is 0 where that is."""
    similarities = neighbours.similarities[:, :top_m].astype(np.float64)
    counted = np.where(similarities > similarity_threshold, similarities, 0.0)
    own = neighbours.labels[:, None, :top_m] == classes[..., None]  # [Q, n, m]
    sums = np.sum(own * counted[:, None], axis=2)
    total = sums.sum(axis=1)
    share = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
    return share, total


class Thresholds(NamedTuple):
    """What Eq. 8 and 9 leave to choose."""

    top_n: int
    top_m: int
    probability_threshold: float
    similarity_threshold: float


def search_thresholds(
    probabilities: Float[ArrayLike, "Q C"],
    labels: Integer[ArrayLike, " Q"],
    neighbours: Neighbours,
    candidates: Sequence[Thresholds],
    **options: Any,
) -> tuple[Thresholds, float]:
    """The first candidate with the highest top-1 accuracy, and that; `options` as `rescore` takes.

    Args:
      probabilities: of images that neither trained the network nor test it.
      labels: true classes of these images.
      neighbours: of the same images.
      candidates: the preferred ones first, so that chance does not move the choice.
      **options: alpha, beta, per_class.
    """
    labels = np.asarray(labels)
    accuracies = [
        np.mean(rescore(probabilities, neighbours, **c._asdict(), **options).argmax(1) == labels)
        for c in candidates
    ]
    best = int(np.argmax(accuracies))
    return candidates[best], float(accuracies[best])


def _descending(values: Float64[np.ndarray, "Q n"]) -> Float64[np.ndarray, "Q n"]:
    """Sorted rows made strictly descending by the smallest steps that there are."""
    values = values.copy()
    for place in range(1, values.shape[1]):
        lower = np.nextafter(values[:, place - 1], -np.inf)
        values[:, place] = np.minimum(values[:, place], lower)
    return values
