"""Exact nearest neighbours by blocks, and the measures of a retrieval.

The whole N × N table of similarities exists nowhere: queries come in blocks, split over the devices
by rows, and each meets the database block by block with a running list of its best matches. Where
the devices are the host's own cores, `host_search` does it.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Int32, Integer

from fgjax import compilation, hosts
from fgjax.errors import UserError
from fgjax.evaluation import host_search
from fgjax.training import sharding

_DATABASE_BLOCK = 8192
_QUERY_BLOCK = 1024
_SCORES = 2**25  # entries of the lists and scores that a block of queries may have at once


def normalize_rows(
    embeddings: Float[ArrayLike, "N D"], title: str = "embeddings"
) -> Float32[np.ndarray, "N D"]:
    """Unit rows; zero rows stay zero.

    Raises:
      UserError: the array is not of rank 2 or empty, or has rows that are not finite (says how
        many, and the first).
    """
    rows = np.asarray(embeddings, np.float32)
    if rows.ndim != 2 or not rows.size:
        raise UserError(f"{title} have shape {rows.shape}, but must be [N, D] and not empty.")
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        raise UserError(
            f"{int(broken.sum())} of {len(rows)} {title} are not finite, the first at index "
            f"{int(np.argmax(broken))}: the model that made them has diverged."
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, 1e-12)


def nearest(
    queries: Float[ArrayLike, "Q D"],
    database: Float[ArrayLike, "N D"],
    *,
    count: int,
    own: Integer[ArrayLike, " Q"] | None = None,
) -> tuple[Float32[np.ndarray, "Q {count}"], Int32[np.ndarray, "Q {count}"]]:
    """The most similar rows of a database by inner product, best first; ties by lower index.

    Args:
      queries: rows that search.
      database: rows that are searched.
      count: matches for each query.
      own: a row of the database that a query must not find (itself), or −1.

    Returns:
      Scores and indices; −inf and −1 where there are no more.

    Raises:
      UserError: the depths differ or count is not positive.
    """
    scores, indices = zip(*_blocks(np.asarray(queries), np.asarray(database), count, own))
    return np.concatenate(scores), np.concatenate(indices)


def _blocks(
    queries: Float[np.ndarray, "Q D"],
    database: Float[np.ndarray, "N D"],
    count: int,
    own: Integer[ArrayLike, " Q"] | None,
) -> Iterator[tuple[Float32[np.ndarray, "B {count}"], Int32[np.ndarray, "B {count}"]]]:
    """`nearest`, a block of queries at a time."""
    if queries.shape[1] != database.shape[1]:
        raise UserError(
            f"queries of depth {queries.shape[1]} cannot be searched in a database of depth "
            f"{database.shape[1]}: they come from different models."
        )
    if count < 1:
        raise UserError(f"{count} nearest neighbours were asked for, but at least 1 is needed.")
    own = np.full(len(queries), -1) if own is None else np.asarray(own)
    search = host_search.blocks if _on_host() else _on_devices
    return search(queries, database, count, own)


def _on_host() -> bool:
    """Whether devices would only be another name for this process's cores."""
    return jax.default_backend() == "cpu" and hosts.count() == 1


def _on_devices(
    queries: Float[np.ndarray, "Q D"],
    database: Float[np.ndarray, "N D"],
    count: int,
    own: Integer[np.ndarray, " Q"],
) -> Iterator[tuple[Float32[np.ndarray, "B {count}"], Int32[np.ndarray, "B {count}"]]]:
    """`_blocks` by JAX."""
    size, depth = database.shape
    width = min(_DATABASE_BLOCK, size)
    padded = -(-size // width) * width
    tiles = np.asarray(database, np.float32)
    if padded > size:
        tiles = np.pad(tiles, [(0, padded - size), (0, 0)])
    tiles = sharding.replicate(tiles.reshape(-1, width, depth))
    limit = max(_SCORES // (width + 2 * count), 1)
    rows = sharding.divisible(min(_QUERY_BLOCK, limit, len(queries)))
    step = _step(count, size, sharding.data_mesh())
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows].astype(np.float32, copy=False)
        mine = own[start : start + rows].astype(np.int32)
        missing = rows - len(block)
        if missing:
            block = np.pad(block, [(0, missing), (0, 0)])
        batch = (block, np.pad(mine, (0, missing)))
        scores, indices = sharding.fetch(step(*sharding.shard(sharding.own(batch)), tiles))
        yield scores[: rows - missing], indices[: rows - missing]


@functools.lru_cache(maxsize=32)
def _step(count: int, size: int, mesh: Mesh):
    """The compiled search of one block; a device sees its own rows alone."""

    def local(queries, own, tiles):
        width = tiles.shape[1]

        def merge(best, numbered):
            number, tile = numbered
            scores = jnp.matmul(queries, tile.T, precision=jax.lax.Precision.HIGHEST)
            columns = number * width + jnp.arange(width, dtype=jnp.int32)
            hidden = (columns[None] == own[:, None]) | (columns >= size)[None]
            scores = jnp.where(hidden, -jnp.inf, scores)
            # top_k prefers the lower index among equals, and earlier blocks stand first.
            top, places = jax.lax.top_k(scores, min(count, width))
            values = jnp.concatenate([best[0], top], axis=1)
            rows = jnp.concatenate([best[1], columns[places]], axis=1)
            top, places = jax.lax.top_k(values, count)
            return (top, jnp.take_along_axis(rows, places, axis=1)), None

        shape = (len(queries), count)
        nothing = (jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32))
        numbers = jnp.arange(len(tiles), dtype=jnp.int32)
        (scores, indices), _ = jax.lax.scan(merge, nothing, (numbers, tiles))
        return scores, jnp.where(jnp.isneginf(scores), -1, indices)

    split, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(split, split, whole),
        out_specs=(split, split),
        check_vma=False,
    )
    return compilation.jit(mapped, products=True)


def retrieval_metrics(
    embeddings: Float[ArrayLike, "Q D"],
    labels: Integer[ArrayLike, " Q"],
    *,
    database: Float[ArrayLike, "N D"] | None = None,
    database_labels: Integer[ArrayLike, " N"] | None = None,
    recall_ks: Sequence[int] = (1, 2, 4, 8, 16, 32),
    precision_ks: Sequence[int] = (1, 5, 10),
    map_ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """How well images of a class find each other, by cosine similarity.

    For a query, rel(k) says whether its k-th match has its class, P(k) is the share of such matches
    among the first k, and R is how many there are in the database.

    | key | mean over all queries of |
    |---|---|
    | recall@K | whether any of the first K matches is relevant (HDCL section 4.1) |
    | precision@K | P(K) |
    | map@K | Σ_{k ≤ K} P(k) rel(k) / Σ_{k ≤ K} rel(k), 0 if none (HDCL Tables 3-6) |
    | map@r | Σ_{k ≤ R} P(k) rel(k) / R |
    | r_precision | P(R) |

    map@K divides by what was found, not by what there is: a single hit at rank 1 scores 1, so that
    it can fall when a retrieval gets better. map@r has no such fault. Queries for which the
    database holds nothing relevant score 0 everywhere and are counted.

    Args:
      embeddings: queries; normalised here.
      labels: classes of the queries.
      database: what is searched; without one, the queries themselves, each without itself.
      database_labels: classes of the database.
      recall_ks: the Ks of recall@K.
      precision_ks: the Ks of precision@K.
      map_ks: the Ks of map@K.

    Returns:
      Fractions by name, and `queries` and `queries_without_relevant` as counts.

    Raises:
      UserError: embeddings are not finite, shapes do not fit, or a K is not positive.
    """
    queries, labels = normalize_rows(embeddings), np.asarray(labels)
    own = None
    if database is None:
        found_in, found_labels, own = queries, labels, np.arange(len(queries))
    else:
        found_in = normalize_rows(database, "database embeddings")
        found_labels = np.asarray(database_labels)
    for title, rows, given in (
        ("labels", queries, labels),
        ("database_labels", found_in, found_labels),
    ):
        if given.shape != (len(rows),):
            raise UserError(f"{title} have shape {given.shape}, but must be [{len(rows)}].")
    ks = {"recall": recall_ks, "precision": precision_ks, "map": map_ks}
    if min((k for values in ks.values() for k in values), default=1) < 1:
        raise UserError("recall_ks, precision_ks and map_ks must be positive.")
    classes, counts = np.unique(found_labels, return_counts=True)
    size_of = dict(zip(classes.tolist(), counts.tolist()))
    relevant = np.array([size_of.get(label, 0) for label in labels.tolist()])
    relevant -= own is not None
    deepest = max([*(k for values in ks.values() for k in values), int(relevant.max()), 1])
    totals: dict[str, float] = {}
    start = 0
    for scores, indices in _blocks(queries, found_in, deepest, own):
        rows = slice(start, start + len(scores))
        start += len(scores)
        hits = (found_labels[indices] == labels[rows, None]) & (indices >= 0)
        for name, value in _sums(hits, relevant[rows], ks).items():
            totals[name] = totals.get(name, 0.0) + value
    means = {name: value / len(queries) for name, value in totals.items()}
    return {
        **means,
        "queries": len(queries),
        "queries_without_relevant": int((relevant == 0).sum()),
    }


def ranked_metrics(
    ranked: Integer[ArrayLike, "N K"],
    labels: Integer[ArrayLike, " N"],
    *,
    recall_ks: Sequence[int] = (1, 2, 4, 8, 16, 32),
    precision_ks: Sequence[int] = (1, 5, 10),
    map_ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """`retrieval_metrics` of images that search each other, from lists that are there already.

    Args:
      ranked: for each image the others, best first; −1 where there are no more.
      labels: classes of the images.
      recall_ks: the Ks of recall@K.
      precision_ks: the Ks of precision@K.
      map_ks: the Ks of map@K.

    Raises:
      UserError: a list is shorter than the largest class needs, or than a K.
    """
    rows, labels = np.asarray(ranked), np.asarray(labels)
    ks = {"recall": recall_ks, "precision": precision_ks, "map": map_ks}
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    relevant = counts[inverse] - 1
    deepest = max([*(k for values in ks.values() for k in values), int(relevant.max()), 1])
    if rows.ndim != 2 or len(rows) != len(labels) or rows.shape[1] < deepest:
        raise UserError(
            f"ranked has shape {rows.shape}, but must be [{len(labels)}, {deepest} or more]: so "
            "many matches are measured."
        )
    hits = (labels[rows[:, :deepest]] == labels[:, None]) & (rows[:, :deepest] >= 0)
    means = {name: value / len(rows) for name, value in _sums(hits, relevant, ks).items()}
    nothing = int((relevant == 0).sum())
    return {**means, "queries": len(rows), "queries_without_relevant": nothing}


def _sums(
    hits: Bool[np.ndarray, "B K"], relevant: Integer[np.ndarray, " B"], ks: dict
) -> dict[str, float]:
    """Each measure, summed over the rows of `hits`; `relevant` is R."""
    found = np.cumsum(hits, axis=1)
    ranks = np.arange(1, hits.shape[1] + 1)
    gained = np.cumsum(hits * (found / ranks), axis=1)  # Σ P(k) rel(k)
    sums = {f"recall@{k}": float((found[:, k - 1] > 0).sum()) for k in ks["recall"]}
    sums |= {f"precision@{k}": float(found[:, k - 1].sum() / k) for k in ks["precision"]}
    for k in ks["map"]:
        sums[f"map@{k}"] = float((gained[:, k - 1] / np.maximum(found[:, k - 1], 1)).sum())
    last = np.maximum(relevant, 1)
    at_r = (np.arange(len(hits)), last - 1)
    some = relevant > 0
    sums["map@r"] = float((some * gained[at_r] / last).sum())
    sums["r_precision"] = float((some * found[at_r] / last).sum())
    return sums
