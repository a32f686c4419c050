"""Pairwise margin losses: LAPM (Kim, Kim, Byun: Localization-Aware Adaptive Pairwise Margin Loss).

f(x) is a feature vector, sim(i, j) = ‖f(i) − f(j)‖₂ (Eq. 8).
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from fgjax.losses import common

if TYPE_CHECKING:  # chex does not tell type checkers that it makes dataclasses
    from dataclasses import dataclass
else:
    from chex import dataclass


@dataclass(frozen=True, kw_only=True)
class MarginStatistics:
    """Adaptive margin of one pair type: scalars, or one value per reference.

    Attributes:
      m1: mean distance of generated negatives to their reference (LAPM Eq. 10).
      sigma: standard deviation of the same distances (LAPM Eq. 12), ddof 0.
    """

    m1: Float[jax.Array, "*B"]
    sigma: Float[jax.Array, "*B"]


@dataclass(frozen=True, kw_only=True)
class PairMargins:
    """The margins of LAPM's four negative pairs; `ref_dcdic` uses its m1 only."""

    ref_dcdi1: MarginStatistics
    ref_dcdi2: MarginStatistics
    dcdi1_dcdi2: MarginStatistics
    ref_dcdic: MarginStatistics


def margin_statistics(
    distances: Float[ArrayLike, "*N"],
    *,
    where: Shaped[ArrayLike, "*#N"] | None = None,
    axis: int | None = None,
) -> MarginStatistics:
    """Mean and spread of distances, from which LAPM takes its margins (LAPM Eq. 10, 12).

    m₁ = 1/N Σ dᵢ and σ = √(1/N Σ (dᵢ − m₁)²). Constants: no gradient flows into them.

    Args:
      distances: of N generated samples.
      where: mask of the samples that count; all by default.
      axis: over which to average; all axes by default.

    Returns:
      `MarginStatistics` without `axis`; zeros where nothing counts.

    >>> statistics = margin_statistics(jnp.array([1.0, 2.0, 3.0]))
    >>> float(statistics.m1), round(float(statistics.sigma), 4)
    (2.0, 0.8165)
    """
    distances = jax.lax.stop_gradient(common.as_float(distances))
    where = jnp.ones(distances.shape, bool) if where is None else jnp.asarray(where, bool)
    m1 = common.masked_mean(distances, where, axis)
    centered = distances - (m1 if axis is None else jnp.expand_dims(m1, axis))
    sigma = common.safe_sqrt(common.masked_mean(jnp.square(centered), where, axis))
    return MarginStatistics(m1=m1, sigma=sigma)


def dissimilarity(
    distances: Float[ArrayLike, "*#B"], m1: Float[ArrayLike, "*#B"], m2: Float[ArrayLike, "*#B"]
) -> Float[jax.Array, "*B"]:
    """Pulls a pair's distance into the band [m1, m2] (LAPM Eq. 13, with Eq. 11).

    dissim = max(0, m₁ − d) + max(0, d − m₂). Inside the band value and gradient are 0.

    Args:
      distances: Euclidean distances.
      m1: lower margin.
      m2: upper margin; infinity leaves the conventional loss.

    Returns:
      At least 0.

    >>> dissimilarity(jnp.array([0.5, 1.2, 3.0]), 1.0, 2.0).tolist()
    [0.5, 0.0, 1.0]
    """
    distances = common.as_float(distances)
    return jax.nn.relu(m1 - distances) + jax.nn.relu(distances - m2)


def pairwise_margin_loss(
    reference: Float[ArrayLike, "B D"],
    other: Float[ArrayLike, "B D"],
    is_positive: Shaped[ArrayLike, " B"],
    *,
    margin: float,
) -> Float[jax.Array, " B"]:
    """Conventional pairwise margin loss (LAPM Eq. 7).

    L = d for positive pairs and max(0, m − d) for negative ones, d = ‖reference − other‖₂.

    Args:
      reference: embeddings.
      other: embeddings.
      is_positive: 1 or True for a pair of one class.
      margin: m, not negative.

    Returns:
      At least 0.

    Raises:
      ValueError: shapes differ or the margin is negative.

    >>> one, other = jnp.zeros((2, 2)), jnp.array([[3.0, 4.0], [0.6, 0.8]])
    >>> pairwise_margin_loss(one, other, jnp.array([True, False]), margin=1.5).tolist()
    [5.0, 0.5]
    """
    common.check_embeddings("pairwise_margin_loss", reference=reference, other=other)
    common.check_rank("pairwise_margin_loss", 1, is_positive=is_positive)
    common.check_batch("pairwise_margin_loss", reference=reference, is_positive=is_positive)
    common.check_not_negative("pairwise_margin_loss", margin=margin)
    distances = common.euclidean(reference, other)
    return jnp.where(jnp.asarray(is_positive, bool), distances, jax.nn.relu(margin - distances))


def positive_relationship(
    reference: Float[ArrayLike, "B D"],
    scdi1: Float[ArrayLike, "B D"],
    scdi2: Float[ArrayLike, "B D"],
) -> Float[jax.Array, " B"]:
    """Draws a reference and its two same-class mixtures to one point (LAPM Eq. 9, with Eq. 8).

    sim(ref, SCDI₁) + sim(ref, SCDI₂) + sim(SCDI₁, SCDI₂).

    Args:
      reference: features of the references.
      scdi1: features of SCDI₁.
      scdi2: features of SCDI₂.

    Returns:
      At least 0.

    Raises:
      ValueError: the three shapes differ or are not [B, D].

    >>> origin, far = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    >>> positive_relationship(origin, far, origin).tolist()
    [10.0]
    """
    common.check_embeddings("positive_relationship", reference=reference, scdi1=scdi1, scdi2=scdi2)
    return (
        common.euclidean(reference, scdi1)
        + common.euclidean(reference, scdi2)
        + common.euclidean(scdi1, scdi2)
    )


def negative_relationship(
    reference: Float[ArrayLike, "B D"],
    dcdi1: Float[ArrayLike, "B D"],
    dcdi2: Float[ArrayLike, "B D"],
    dcdic: Float[ArrayLike, "B D"],
    margins: PairMargins,
    *,
    alpha: float = 1.0,
    additional_term: bool = True,
) -> Float[jax.Array, " B"]:
    """Keeps mixtures with other classes inside their bands (LAPM Eq. 14, with Eq. 12, 13).

    dissim(ref, DCDI₁) + dissim(ref, DCDI₂) + dissim(DCDI₁, DCDI₂) + max(0, m₁ − ‖ref − DCDI_C‖),
    each pair with its own m₁ and m₂ = m₁ + α σ.

    Args:
      reference: features of the references.
      dcdi1: features of the mixtures with one foreign part.
      dcdi2: features of the mixtures with two foreign parts.
      dcdic: features of images of another class.
      margins: of the four pairs, of scalars or of one value per reference.
      alpha: width of the bands in standard deviations (1.2 for Stanford Cars in the paper).
      additional_term: False drops Eq. 11, which leaves the conventional loss.

    Returns:
      At least 0.

    Raises:
      ValueError: the shapes differ or are not [B, D], or alpha is negative.

    >>> one = MarginStatistics(m1=jnp.float32(1.0), sigma=jnp.float32(0.5))
    >>> margins = PairMargins(ref_dcdi1=one, ref_dcdi2=one, dcdi1_dcdi2=one, ref_dcdic=one)
    >>> zero, far = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    >>> negative_relationship(zero, far, zero, zero, margins).tolist()  # 3.5 + 1 + 3.5 + 1
    [9.0]
    """
    name = "negative_relationship"
    common.check_embeddings(name, reference=reference, dcdi1=dcdi1, dcdi2=dcdi2, dcdic=dcdic)
    common.check_not_negative(name, alpha=alpha)

    def dissim(one, other, pair: MarginStatistics):
        m2 = pair.m1 + alpha * pair.sigma if additional_term else jnp.inf
        return dissimilarity(common.euclidean(one, other), pair.m1, m2)

    return (
        dissim(reference, dcdi1, margins.ref_dcdi1)
        + dissim(reference, dcdi2, margins.ref_dcdi2)
        + dissim(dcdi1, dcdi2, margins.dcdi1_dcdi2)
        + jax.nn.relu(margins.ref_dcdic.m1 - common.euclidean(reference, dcdic))
    )


def lapm_loss(
    classification: Float[ArrayLike, " B"],
    positive: Float[ArrayLike, " B"],
    negative: Float[ArrayLike, " B"],
    is_positive: Shaped[ArrayLike, " B"],
    *,
    lambda_: float = 0.75,
) -> Float[jax.Array, " B"]:
    """The whole LAPM objective per reference (LAPM Eq. 15, 16, 17).

    L = λ L_cls + (1 − λ) (S · positive relationship + (1 − S) · negative relationship).

    Args:
      classification: L_cls of each reference's set.
      positive: `positive_relationship`.
      negative: `negative_relationship`.
      is_positive: indicator S, 1 or True for a positive set.
      lambda_: λ in [0, 1]; the paper takes 0.75 (CUB, DeepFashion) and 0.8 (Cars, Aircraft).

    Returns:
      The branch that S leaves out gets no gradient, even where it is not finite.

    Raises:
      ValueError: an array is not [B], or λ lies outside [0, 1].

    >>> lapm_loss(jnp.ones(2), jnp.full(2, 4.0), jnp.full(2, 8.0), jnp.array([1, 0])).tolist()
    [1.75, 2.75]
    """
    arrays = {"classification": classification, "positive": positive, "negative": negative}
    common.check_rank("lapm_loss", 1, **arrays, is_positive=is_positive)
    common.check_batch("lapm_loss", **arrays, is_positive=is_positive)
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lapm_loss: lambda_ is {lambda_}, but must lie in [0, 1].")
    chosen = jnp.asarray(is_positive, bool)
    pair = jnp.where(chosen, common.as_float(positive), common.as_float(negative))
    return lambda_ * common.as_float(classification) + (1 - lambda_) * pair
