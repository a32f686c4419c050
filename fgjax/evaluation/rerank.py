"""Fine re-ranking of a coarse classification by retrieval (CCFR Eq. 8, 9)."""

import numpy as np
from numpy.typing import ArrayLike

from fgjax.errors import UserError
from fgjax.evaluation.retrieval import nearest, normalize_rows


def rerank(
    probabilities: ArrayLike,
    queries: ArrayLike,
    database: ArrayLike,
    database_labels: ArrayLike,
    *,
    top_n: int = 5,
    top_m: int = 50,
    probability_threshold: float = 0.7,
    similarity_threshold: float = 0.7,
    alpha: float = 0.0,
    beta: float = 1.0,
    per_class: bool = False,
) -> np.ndarray:
    """Scores in which unsure queries are decided by their nearest training images (CCFR 3.3).

    Of the top m training images, those with sim > T_sc count: Sc(q, c) = Σ_{k ∈ c} sim(q, x_k) /
    Σ_{c' ∈ top n} Σ_{k ∈ c'} sim(q, x_k) (Eq. 9). A query whose highest probability S_f reaches
    T_sf keeps its scores; of any other, the top n classes get α S_f + β Sc (Eq. 8). A query that
    finds nothing of its top n classes keeps its scores, too.

    The classes outside the top n keep their order below the others, so that top-n accuracy cannot
    change; ties keep the order of the probabilities.

    Args:
      probabilities: S_f, [Q, C].
      queries: features [Q, D], of any length; the cosine with a zero vector is 0.
      database: features of the training images [N, D].
      database_labels: int [N].
      top_n: classes that are re-ranked.
      top_m: training images that are looked at.
      probability_threshold: T_sf.
      similarity_threshold: T_sc.
      alpha: weight of the probability.
      beta: weight of the similarity.
      per_class: Eq. 8 taken literally: each class of the top n whose own probability reaches T_sf
        keeps it.

    Returns:
      float64 [Q, C]; probabilities where nothing changed.

    Raises:
      UserError: top_n exceeds the classes, top_m the database, or features are not finite.
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(database_labels)
    classes = probabilities.shape[1]
    if not 1 <= top_n <= classes:
        raise UserError(f"top_n is {top_n}, but must be in 1 … {classes}, the number of classes.")
    if not 1 <= top_m <= len(labels):
        raise UserError(
            f"top_m is {top_m}, but must be in 1 … {len(labels)}, the images of the database."
        )
    similarities, rows = nearest(
        normalize_rows(queries, "queries"), normalize_rows(database, "the database"), count=top_m
    )
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_n]
    first = np.take_along_axis(probabilities, order, axis=1)
    counted = np.where(similarities > similarity_threshold, similarities, 0.0).astype(np.float64)
    own = labels[rows][:, None] == order[..., None]  # [Q, n, m]
    sums = np.sum(own * counted[:, None], axis=2)
    total = sums.sum(axis=1, keepdims=True)
    found = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    mixed = alpha * first + beta * found
    if per_class:
        mixed = np.where(first >= probability_threshold, first, mixed)
        changes = total[:, 0] > 0
    else:
        changes = (total[:, 0] > 0) & (first[:, 0] < probability_threshold)
    scores = probabilities.copy()
    scores[changes] -= 1 + classes  # below whatever the top n get
    for query in np.flatnonzero(changes):
        place = np.argsort(-mixed[query], kind="stable")  # among equals, the more probable
        scores[query, order[query, place]] = _descending(mixed[query, place])
    return scores


def _descending(values: np.ndarray) -> np.ndarray:
    """Sorted values made strictly descending by the smallest steps that there are."""
    values = values.copy()
    for place in range(1, len(values)):
        values[place] = min(values[place], np.nextafter(values[place - 1], -np.inf))
    return values
