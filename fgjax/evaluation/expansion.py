"""Better neighbours from the neighbours found: query expansion and k-reciprocal re-ranking.

Both work on a retrieval that is there, and beside the papers' own re-ranking (`rerank`). Nothing
grows with N²: each row keeps a list of its nearest ones.
"""

from typing import Any

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Int32, Integer

from fgjax.errors import UserError
from fgjax.evaluation.retrieval import nearest, normalize_rows


def expand_queries(
    queries: Float[ArrayLike, "Q D"],
    database: Float[ArrayLike, "N D"],
    *,
    count: int = 5,
    alpha: float = 3.0,
    own: Integer[ArrayLike, " Q"] | None = None,
) -> Float32[np.ndarray, "Q D"]:
    """α query expansion (Radenović et al. 2019): unit vectors along q + Σ_i s(q, x_i)^α x_i.

    The x_i are the query's nearest rows, s the cosine where it is positive.

    Args:
      queries: of any length.
      database: rows that are searched.
      count: how many neighbours, at least 1.
      alpha: α, 0 or more; with 0 all of them weigh the same.
      own: the query's own row of the database, which is none of its neighbours, or −1.

    Raises:
      UserError: the depths differ, or count or alpha cannot be.
    """
    if alpha < 0:
        raise UserError(f"alpha is {alpha}, but must be 0 or more.")
    unit, found_in = normalize_rows(queries, "queries"), normalize_rows(database, "database")
    scores, rows = nearest(unit, found_in, count=min(count, len(found_in)), own=own)
    near = (rows >= 0) & (scores > 0)
    weights = np.where(near, np.where(near, scores, 1) ** alpha, 0).astype(np.float32)
    added = np.einsum("qk,qkd->qd", weights, found_in[np.maximum(rows, 0)])
    return normalize_rows(unit + added)


def k_reciprocal(
    embeddings: Float[ArrayLike, "N D"],
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    count: int = 100,
) -> tuple[Float32[np.ndarray, "N {count}"], Int32[np.ndarray, "N {count}"]]:
    """Neighbours of each row among the others, re-ranked by what their neighbourhoods share.

    Zhong et al. 2017. R(p, k) are the rows among the k nearest of p that have p among theirs. It is
    enlarged by R(q, k/2) of its members q where two thirds of that lie in it already. p becomes a
    vector V_p of e^{−d(p, g)} over its rows g, with sum 1; the V of its `k2` nearest rows are
    averaged. The distance is (1 − λ) d_J + λ d, d_J the Jaccard distance 1 − Σ min / Σ max of two
    such vectors, d = 2 − 2 cos the squared one of the embeddings, as a share of the largest in the
    row's list.

    Args:
      embeddings: of any length; each row searches among the others.
      k1: size of the neighbourhoods.
      k2: of the average; 1 for none.
      weight: λ in [0, 1]; with 1 nothing changes.
      count: neighbours that are re-ranked; the others are not returned.

    Returns:
      Scores (1 − distance), best first, and rows.

    Raises:
      UserError: there are too few rows, or a number cannot be.
    """
    unit = normalize_rows(embeddings)
    total = len(unit)
    for name, value, most in (("k1", k1, total - 1), ("count", count, total - 1), ("k2", k2, k1)):
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}, but must be in 1 … {most}.")
    if not 0 <= weight <= 1:
        raise UserError(f"weight is {weight}, but must be in [0, 1].")
    width = max(count, k1)
    scores, rows = nearest(unit, unit, count=width, own=np.arange(total))
    squared = np.maximum(2 - 2 * scores, 0)
    # As in the paper, a row stands first in its own list.
    lists = np.concatenate([np.arange(total, dtype=rows.dtype)[:, None], rows], axis=1)
    largest = np.maximum(squared[:, -1:], 1e-12)
    scaled = np.concatenate([np.zeros((total, 1)), squared / largest], axis=1)
    vectors = _encodings(lists, scaled, k1)
    if k2 > 1:
        near = lists[:, :k2]
        average: Any = scipy.sparse.csr_matrix(
            (np.full(near.size, 1 / k2), (np.repeat(np.arange(total), k2), near.ravel())),
            shape=(total, total),
        )
        vectors = (average @ vectors).tocsr()
    jaccard = _jaccard(vectors, rows[:, :count])
    distances = (1 - weight) * jaccard + weight * scaled[:, 1 : count + 1]
    order = np.argsort(distances, axis=1, kind="stable")
    found = 1 - np.take_along_axis(distances, order, axis=1)
    return found.astype(np.float32), np.take_along_axis(rows[:, :count], order, axis=1)


def _encodings(lists: np.ndarray, scaled: np.ndarray, k1: int) -> Any:
    """V [N, N]: the weights of the rows in each row's enlarged reciprocal neighbourhood."""
    total = len(lists)
    reciprocal = [_mutual(lists, row, k1) for row in range(total)]
    halves = [_mutual(lists, row, max(round(k1 / 2), 1)) for row in range(total)]
    columns, values, starts = [], [], [0]
    for row in range(total):
        members = set(reciprocal[row].tolist())
        enlarged = set(members)
        for member in reciprocal[row]:
            other = set(halves[member].tolist())
            if len(other & members) > 2 / 3 * len(other):
                enlarged |= other
        place = {int(g): i for i, g in enumerate(lists[row])}
        # Rows beyond the list are farther than its last; they weigh as much as that one.
        own = np.array(sorted(enlarged))
        distance = np.array([scaled[row, place[g]] if g in place else 1.0 for g in own.tolist()])
        weights = np.exp(-distance)
        columns.append(own)
        values.append(weights / weights.sum())
        starts.append(starts[-1] + len(own))
    return scipy.sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), starts), shape=(total, total)
    )


def _mutual(lists: np.ndarray, row: int, k: int) -> np.ndarray:
    """R(row, k), with the row itself."""
    forward = lists[row, : k + 1]
    backward = lists[forward, : k + 1]
    return forward[(backward == row).any(axis=1)]


def _jaccard(vectors: Any, rows: np.ndarray) -> np.ndarray:
    """1 − Σ min / Σ max of each row's vector and those of its candidates [N, C]."""
    total = len(rows)
    distances = np.empty(rows.shape)
    dense = np.zeros(vectors.shape[1])
    for row in range(total):
        own = slice(vectors.indptr[row], vectors.indptr[row + 1])
        dense[vectors.indices[own]] = vectors.data[own]
        candidates = vectors[rows[row]]
        smaller = np.minimum(candidates.data, dense[candidates.indices])
        shared = np.add.reduceat(
            np.append(smaller, 0.0), np.minimum(candidates.indptr[:-1], len(smaller))
        ) * (np.diff(candidates.indptr) > 0)  # fmt: skip
        distances[row] = 1 - shared / np.maximum(2 - shared, 1e-12)  # each sums to 1
        dense[vectors.indices[own]] = 0
    return distances
