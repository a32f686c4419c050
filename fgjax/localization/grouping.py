"""Channel grouping of MA-CNN (Zheng et al. 2017): which channels of a map fire on which part.

A channel that peaks at the nose in one image peaks at the nose in others. Channels with the same
peaks form a part; a part's map is the sum of its channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32


def peaks(
    features: Float[ArrayLike, "B H W C"],
) -> tuple[Float32[jax.Array, "B C 2"], Float32[jax.Array, "B C"]]:
    """Where each channel of a map is strongest, and how strong.

    Returns:
      Centres (y, x) in [0, 1] of the strongest cell (the first in raster order), and the strengths;
      a dead channel has strength 0 and a meaningless centre.
    """
    features = jnp.asarray(features, jnp.float32)
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, height * width, channels)
    cell = jnp.argmax(flat, axis=1).astype(jnp.float32)
    row = jnp.floor((cell + 0.5) / width)  # remainders of integers cannot be written as ONNX
    column = cell - row * width
    centers = jnp.stack([(row + 0.5) / height, (column + 0.5) / width], axis=-1)
    return centers, jnp.max(flat, axis=1)


def part_centers(scores: Float[ArrayLike, "B H W N"]) -> Float32[jax.Array, "B N 2"]:
    """Part centres from part scores Σ_j d_j X_j, before any activation.

    A sigmoid of these sums saturates to 1 in float32, so the peak is taken here.
    """
    return peaks(scores)[0]


def refined_centers(scores: Float[ArrayLike, "B H W N"]) -> Float32[jax.Array, "B N 2"]:
    """Part centres between the cells of the map: Σ a p / Σ a over the peak and its neighbours.

    a is `attention`, p the middle of a cell, and the sum goes over the strongest cell and the up to
    eight around it. A map of 4 × 4 has sixteen places: parts that lie apart fall on the same, and
    miss by up to an eighth of the image. On MA-CNN's map of 28 × 28 it hardly matters.
    """
    found = attention(scores)
    height, width = found.shape[1:3]
    rows, columns = (jnp.arange(cells, dtype=jnp.float32) + 0.5 for cells in (height, width))
    peak = part_centers(scores)
    down = jnp.abs(rows[None, :, None] - peak[:, None, :, 0] * height) < 1.5  # [B, H, N]
    across = jnp.abs(columns[None, :, None] - peak[:, None, :, 1] * width) < 1.5  # [B, W, N]
    near = jnp.where(down[:, :, None] & across[:, None], found, 0.0)
    near = near / jnp.sum(near, axis=(1, 2), keepdims=True)
    y = jnp.einsum("bhwn,h->bn", near, rows / height)
    x = jnp.einsum("bhwn,w->bn", near, columns / width)
    return jnp.stack([y, x], axis=-1)


def part_scores(
    features: Float[ArrayLike, "B H W C"], gates: Float[ArrayLike, "B N C"]
) -> Float32[jax.Array, "B H W N"]:
    """Σ_j d_j X_j, the features X weighted by each part's gates d."""
    return jnp.einsum("bhwc,bnc->bhwn", jnp.asarray(features, jnp.float32), gates)


def attention(scores: Float[ArrayLike, "B H W N"]) -> Float32[jax.Array, "B H W N"]:
    """Part attention maps that sum to 1 over space, from part scores.

    The authors' release: m = tanh(0.1 · mean_c d_c X_c), pooled by softplus(m)⁴ / Σ softplus(m)⁴.
    Here the scores are first brought to [0, 1] per map, so that tanh does not saturate however
    strong the features are.
    """
    scores = jnp.asarray(scores, jnp.float32)
    low = jnp.min(scores, axis=(1, 2), keepdims=True)
    high = jnp.max(scores, axis=(1, 2), keepdims=True)
    unit = (scores - low) / jnp.maximum(high - low, 1e-6)
    sharpened = jnp.exp(8.0 * jnp.log(jax.nn.softplus(jnp.tanh(2.0 * unit - 1.0))))
    return sharpened / jnp.sum(sharpened, axis=(1, 2), keepdims=True)


def group_channels(
    centers: Float[np.ndarray, "M C 2"],
    strengths: Float[np.ndarray, "M C"],
    *,
    num_parts: int,
    compact_share: float = 0.7,
    seed: int = 0,
) -> Bool[np.ndarray, "{num_parts} C"]:
    """Groups of channels by where they peak: the initial membership of each part.

    With `compact_share=1` this is MA-CNN's: k-means (k-means++, 10 restarts) of the channels'
    concatenated peak coordinates over all images. Weak features make that unstable, as many
    channels wander. Below 1, the mean peaks of the share of channels that wander least are
    clustered, and the others belong to no part.

    Args:
      centers: peaks over M images.
      strengths: of the peaks; a channel that is dead on an image gets its mean peak there.
      num_parts: N.
      compact_share: share of the channels that take part, least wandering first.
      seed: of k-means.

    Returns:
      Membership, parts ordered from left to right by their mean centre: one global
      order, so that part i corresponds across images.
    """
    from sklearn.cluster import KMeans

    alive = strengths > 0
    count = np.maximum(alive.sum(axis=0), 1)[:, None]
    mean = np.where(alive[..., None], centers, 0).sum(axis=0) / count
    filled = np.where(alive[..., None], centers, mean)
    wander = np.where(alive.any(axis=0), filled.std(axis=0).sum(axis=-1), np.inf)
    keep = max(round(compact_share * len(wander)), num_parts)
    chosen = np.argsort(wander, kind="stable")[:keep]
    rows = mean[chosen]
    if compact_share == 1:
        rows = filled[:, chosen].transpose(1, 0, 2).reshape(keep, -1)
    # scikit-learn has no types; what is guessed from its default is a string.
    means = KMeans(num_parts, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = means.fit(rows).labels_
    order = np.argsort([mean[chosen[labels == g], 1].mean() for g in range(num_parts)])
    membership = np.zeros((num_parts, len(wander)), bool)
    for part, group in enumerate(order):
        membership[part, chosen[labels == group]] = True
    return membership
