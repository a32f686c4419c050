"""In-batch losses: the baselines of HDCL's Table 1. All pairs of a batch, one scalar.

Embeddings are taken as they are; where the method wants unit vectors its docstring says so
(`fgjax.losses.normalize`). A batch without a valid tuple gives 0 with gradient 0. Under `jax.jit` a
sharded batch gives the numbers of one device; under `jax.pmap` gather embeddings and labels first
(`jax.lax.all_gather`).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Integer

from fgjax.losses import common
from fgjax.losses.tuples import cosine_triplet_loss


def _checked(
    function: str, embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"]
) -> tuple[Float[jax.Array, "B D"], Integer[jax.Array, " B"]]:
    common.check_rank(function, 2, embeddings=embeddings)
    labels = common.check_labels(function, labels)
    common.check_batch(function, embeddings=embeddings, labels=labels)
    return common.as_float(embeddings), labels


def _pairs(
    labels: Integer[jax.Array, " B"],
) -> tuple[Bool[jax.Array, "B B"], Bool[jax.Array, "B B"]]:
    """Masks of positive pairs (without the diagonal) and of negative ones."""
    same = labels[:, None] == labels[None]
    return same & ~jnp.eye(len(labels), dtype=bool), ~same


def _squared_distances(embeddings: Float[jax.Array, "B D"]) -> Float[jax.Array, "B B"]:
    """Squared distances by the Gram matrix, as B² D differences are too large."""
    squares = jnp.sum(jnp.square(embeddings), axis=1)
    product = jnp.matmul(embeddings, embeddings.T, precision=jax.lax.Precision.HIGHEST)
    distances = jnp.maximum(squares[:, None] + squares[None] - 2 * product, 0)
    return jnp.where(jnp.eye(len(embeddings), dtype=bool), 0, distances)


def contrastive_loss(
    embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], *, margin: float = 1.0
) -> Float[jax.Array, ""]:
    """Contrastive loss over all pairs (HDCL Table 1; Bell & Bala's form as Song et al. give it).

    ½ (mean over pairs of one class of D² + mean over pairs of two of max(0, α − D²)). They have a
    mean each because a batch holds many more pairs of two classes: in one mean for all, those of
    one class would be a few per cent of the loss. Where there are none of a kind, its mean is 0.

    Args:
      embeddings: of any length.
      labels: classes of the rows.
      margin: α on the squared distance, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> x = jnp.array([[0.0], [2.0], [0.5]])
    >>> float(contrastive_loss(x, jnp.array([0, 0, 1])))  # (4 + (0.75 + 0) / 2) / 2
    2.1875
    """
    embeddings, labels = _checked("contrastive_loss", embeddings, labels)
    common.check_not_negative("contrastive_loss", margin=margin)
    positive, negative = _pairs(labels)
    squared = _squared_distances(embeddings)
    pull = common.masked_mean(squared, positive)
    push = common.masked_mean(jax.nn.relu(margin - squared), negative)
    return (pull + push) / 2


def batch_all_triplet_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    *,
    margin: float = 0.2,
    squared: bool = False,
) -> Float[jax.Array, ""]:
    """Triplet loss over all triplets of a batch, mean of those above zero (HDCL Eq. 2; GHNS Eq. 2).

    ½ max(0, m + D(a, p) − D(a, n)), D the distance, or its square (GHNS).

    Args:
      embeddings: unit vectors suit the usual margins.
      labels: classes of the rows.
      margin: m, not negative.
      squared: whether distances are squared.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> x = jnp.array([[0.0], [1.0], [1.5]])
    >>> round(float(batch_all_triplet_loss(x, jnp.array([0, 0, 1]), margin=1.0)), 4)  # ¼ and ¾
    0.5
    """
    embeddings, labels = _checked("batch_all_triplet_loss", embeddings, labels)
    common.check_not_negative("batch_all_triplet_loss", margin=margin)
    positive, negative = _pairs(labels)
    distances = _squared_distances(embeddings)
    distances = distances if squared else common.safe_sqrt(distances)
    gap = 0.5 * jax.nn.relu(margin + distances[:, :, None] - distances[:, None, :])
    valid = positive[:, :, None] & negative[:, None, :]
    return common.masked_mean(gap, valid & (gap > 0))


def batch_hard_cosine_triplet_loss(
    embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], *, margin: float = 0.2
) -> Float[jax.Array, ""]:
    """Cosine triplet loss with each anchor's hardest positive and negative (CCFR Eq. 5, 6).

    max(0, a − min_P cos(A, P) + max_N cos(A, N)), a mean over anchors that have both; the paper
    does not say which triplets it takes.

    Args:
      embeddings: of any length.
      labels: classes of the rows.
      margin: a, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> float(batch_hard_cosine_triplet_loss(x, jnp.array([0, 0, 1]), margin=0.5))  # 1.5 and 0.5
    1.0
    """
    embeddings, labels = _checked("batch_hard_cosine_triplet_loss", embeddings, labels)
    each, paired = _batch_hard_cosine(embeddings, labels, margin)
    return common.masked_mean(each, paired)


def batch_hard_cosine_triplets(
    embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], *, margin: float = 0.2
) -> Float[jax.Array, " B"]:
    """The loss of each anchor with its hardest positive and negative (CCFR Eq. 5, 6).

    max(0, a − min_P cos(A, P) + max_N cos(A, N)); 0 for anchors that lack one of them.

    Args:
      embeddings: of any length.
      labels: classes of the rows.
      margin: a, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> batch_hard_cosine_triplets(x, jnp.array([0, 0, 1]), margin=0.5).tolist()
    [1.5, 0.5, 0.0]
    """
    embeddings, labels = _checked("batch_hard_cosine_triplets", embeddings, labels)
    each, paired = _batch_hard_cosine(embeddings, labels, margin)
    return jnp.where(paired, each, 0)


def _batch_hard_cosine(
    embeddings: jax.Array, labels: jax.Array, margin: float
) -> tuple[jax.Array, jax.Array]:
    """Each anchor's loss [B], and whether it has a positive and a negative."""
    positive, negative = _pairs(labels)
    unit = common.normalize(jax.lax.stop_gradient(embeddings))
    cosines = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    farthest = jnp.argmin(jnp.where(positive, cosines, jnp.inf), axis=1)
    nearest = jnp.argmax(jnp.where(negative, cosines, -jnp.inf), axis=1)
    each = cosine_triplet_loss(embeddings, embeddings[farthest], embeddings[nearest], margin=margin)
    return each, jnp.any(positive, axis=1) & jnp.any(negative, axis=1)


def lifted_structure_loss(
    embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], *, margin: float = 1.0
) -> Float[jax.Array, ""]:
    """Lifted structured embedding (HDCL Table 1; Song et al. 2016).

    1/(2|P|) Σ_{(i,j) ∈ P} max(0, log(Σ_{k ∈ N(i)} e^{α − D_ik} + Σ_{l ∈ N(j)} e^{α − D_jl}) +
    D_ij)² with P the positive pairs, N(i) the negatives of i and D the Euclidean distance.

    Args:
      embeddings: not normalised in the method.
      labels: classes of the rows.
      margin: α, not negative.

    Returns:
      At least 0; 0 without a positive pair or without a negative.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or the margin is negative.

    >>> x = jnp.array([[0.0], [0.0], [1.0]])
    >>> round(float(lifted_structure_loss(x, jnp.array([0, 0, 1]))), 4)  # ½ (log 2)²
    0.2402
    """
    embeddings, labels = _checked("lifted_structure_loss", embeddings, labels)
    common.check_not_negative("lifted_structure_loss", margin=margin)
    positive, negative = _pairs(labels)
    distances = common.safe_sqrt(_squared_distances(embeddings))
    has_negative = jnp.any(negative, axis=1)
    exponents = jnp.where(negative, margin - distances, -jnp.inf)
    exponents = jnp.where(has_negative[:, None], exponents, 0)
    lifted = jax.nn.logsumexp(exponents, axis=1)
    terms = jax.nn.relu(jnp.logaddexp(lifted[:, None], lifted[None]) + distances)
    valid = positive & has_negative[:, None] & has_negative[None]
    return 0.5 * common.masked_mean(jnp.square(jnp.where(valid, terms, 0)), valid)


def _cosines(embeddings: Float[jax.Array, "B D"]) -> Float[jax.Array, "B B"]:
    unit = common.normalize(embeddings)
    return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)


def binomial_deviance_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    *,
    alpha: float = 2.0,
    beta: float = 0.5,
    negative_cost: float = 10.0,
) -> Float[jax.Array, ""]:
    """Binomial deviance of cosine similarities (HDCL Table 1; as in Ustinova & Lempitsky 2016).

    mean₊ log(1 + e^{−α(s − β)}) + mean₋ log(1 + e^{αC(s − β)}), s the cosine.

    Args:
      embeddings: any scale.
      labels: classes of the rows.
      alpha: slope, not negative.
      beta: similarity in the middle.
      negative_cost: C, not negative; 10 on CUB.

    Returns:
      At least 0; a mean over no pairs is 0.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or alpha or C is negative.

    >>> x = jnp.array([[1.0, 0.0], [0.5, 0.75 ** 0.5]])
    >>> round(float(binomial_deviance_loss(x, jnp.array([0, 0]))), 4)  # s = β
    0.6931
    """
    embeddings, labels = _checked("binomial_deviance_loss", embeddings, labels)
    common.check_not_negative("binomial_deviance_loss", alpha=alpha, negative_cost=negative_cost)
    positive, negative = _pairs(labels)
    offset = _cosines(embeddings) - beta
    pulled = common.masked_mean(jax.nn.softplus(-alpha * offset), positive)
    pushed = common.masked_mean(jax.nn.softplus(alpha * negative_cost * offset), negative)
    return pulled + pushed


def histogram_loss(
    embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], *, nodes: int = 151
) -> Float[jax.Array, ""]:
    """Probability that a negative pair is more similar than a positive one (HDCL Table 1).

    L = Σ_r h⁻_r Σ_{q ≤ r} h⁺_q with histograms of cosines by linear assignment to R nodes from −1
    to 1 (Ustinova & Lempitsky 2016).

    Args:
      embeddings: any scale.
      labels: classes of the rows.
      nodes: R, at least 2; 151 in the paper.

    Returns:
      In [0, 1]; 0 without a positive or without a negative pair.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or there are fewer than two nodes.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    >>> round(float(histogram_loss(x, jnp.array([0, 0, 1]))), 4)
    1.0
    """
    embeddings, labels = _checked("histogram_loss", embeddings, labels)
    if nodes < 2:
        raise ValueError(f"histogram_loss: nodes is {nodes}, but must be at least 2.")
    positive, negative = _pairs(labels)
    place = (jnp.clip(_cosines(embeddings), -1, 1) + 1) * ((nodes - 1) / 2)
    lower = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, nodes - 2).astype(jnp.int32)
    share = place - lower.astype(place.dtype)

    def histogram(mask: Bool[jax.Array, "B B"]) -> Float[jax.Array, " R"]:
        weight = jnp.where(mask, 1.0, 0.0).astype(place.dtype)
        weight = weight / jnp.maximum(jnp.sum(weight), 1)
        empty = jnp.zeros(nodes, place.dtype)
        return empty.at[lower].add(weight * (1 - share)).at[lower + 1].add(weight * share)

    return jnp.sum(histogram(negative) * jnp.cumsum(histogram(positive)))


def pddm_quadruplet_loss(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    similarities: Float[ArrayLike, "B B"],
    *,
    alpha: float = 0.5,
    beta: float = 1.0,
    embedding_weight: float = 0.5,
) -> Float[jax.Array, ""]:
    """Quadruplet mined by a learned similarity (HDCL Table 1's PDDM; Huang et al. 2016).

    (î, ĵ) is the least similar positive pair, k̂ and l̂ the most similar negatives of î and of ĵ:
    E_m = max(0, α + s_îk̂ − s_îĵ) + max(0, α + s_ĵl̂ − s_îĵ),
    E_e = max(0, β + D²_îĵ − D²_îk̂) + max(0, β + D²_îĵ − D²_ĵl̂), L = E_m + λ E_e.

    Args:
      embeddings: unit vectors in the method.
      labels: classes of the rows.
      similarities: s from the PDDM unit.
      alpha: margin of the similarities, not negative.
      beta: margin of the squared distances, not negative.
      embedding_weight: λ, not negative.

    Returns:
      At least 0; 0 without a positive pair or without a negative.

    Raises:
      ValueError: shapes do not fit, labels are not integers, or a margin is negative.

    >>> x = jnp.array([[0.0], [0.0], [1.0]])
    >>> s = jnp.array([[0.0, 0.9, 0.6], [0.9, 0.0, 0.1], [0.6, 0.1, 0.0]])
    >>> round(float(pddm_quadruplet_loss(x, jnp.array([0, 0, 1]), s)), 4)
    0.2
    """
    name = "pddm_quadruplet_loss"
    embeddings, labels = _checked(name, embeddings, labels)
    common.check_not_negative(name, alpha=alpha, beta=beta, embedding_weight=embedding_weight)
    similarities = common.as_float(similarities)
    size = len(labels)
    if similarities.shape != (size, size):
        raise ValueError(f"{name}: similarities have shape {similarities.shape}, but must be "
                         f"({size}, {size}).")  # fmt: skip
    positive, negative = _pairs(labels)
    usable = positive & jnp.any(negative, axis=1)[:, None]
    hardest = jnp.argmin(jnp.where(usable, similarities, jnp.inf))
    i, j = hardest // size, hardest % size
    nearest = jnp.argmax(jnp.where(negative, similarities, -jnp.inf), axis=1)
    k, l = nearest[i], nearest[j]
    near = jnp.sum(jnp.square(embeddings[i] - embeddings[j]))
    total = jnp.zeros((), embeddings.dtype)
    for one, other in ((i, k), (j, l)):
        far = jnp.sum(jnp.square(embeddings[one] - embeddings[other]))
        metric = jax.nn.relu(alpha + similarities[one, other] - similarities[i, j])
        total = total + metric + embedding_weight * jax.nn.relu(beta + near - far)
    return jnp.where(jnp.any(usable), total, 0)
