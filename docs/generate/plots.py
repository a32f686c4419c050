"""Value and gradient of every loss along one line, from the functions themselves by `jax.grad`."""

import dataclasses
import io
from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from fgjax import compilation, losses

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Curve = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Plot:
    """What moves, from where to where, and the curves of it: scalar to scalar."""

    along: str
    start: float
    stop: float
    curves: dict[str, Curve]


def _point(x: jax.Array) -> jax.Array:
    """A batch of one embedding at x on a line."""
    return jnp.reshape(x, (1, 1))


_ZERO = jnp.zeros((1, 1))
_LABELS = jnp.array([0, 0, 1, 1])


def _on_circle(angle: jax.Array) -> jax.Array:
    """Four unit vectors: of class A at 0 and at the angle, of class B at 2.1 and 2.4."""
    angles = jnp.stack([jnp.float32(0), angle, jnp.float32(2.1), jnp.float32(2.4)])
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def _in_batch(**curves: Callable[[jax.Array, jax.Array], jax.Array]) -> Plot:
    """The plot of a loss of a whole batch."""
    # A name such as `margin_0_5` is a keyword argument and its value.
    return Plot(
        "angle of A's second image (its fellow stands at 0, class B at 2.1 and 2.4)",
        0.02,
        np.pi,
        {name: lambda t, loss=loss: loss(_on_circle(t), _LABELS) for name, loss in curves.items()},
    )


def _pddm(embeddings: jax.Array, labels: jax.Array) -> jax.Array:
    cosines = embeddings @ embeddings.T
    return losses.pddm_quadruplet_loss(embeddings, labels, cosines)


def _margins() -> losses.PairMargins:
    one = losses.MarginStatistics(m1=jnp.float32(1), sigma=jnp.float32(0.5))
    return losses.PairMargins(ref_dcdi1=one, ref_dcdi2=one, dcdi1_dcdi2=one, ref_dcdic=one)


def _negative(t: jax.Array, **options) -> jax.Array:
    # DCDI₁ moves away along an axis of its own, so that its distances to the others stay legible.
    place = lambda *x: jnp.stack([jnp.asarray(v, jnp.float32) for v in x])[None]  # noqa: E731
    return losses.negative_relationship(
        place(0, 0), place(t, 0), place(0, 1.2), place(0, 3), _margins(), **options
    )[0]


def _pair(positive: bool) -> Curve:
    return lambda t: losses.pairwise_margin_loss(
        _ZERO, _point(t), jnp.array([positive]), margin=1.0
    )[0]


def _lapm(positive: int) -> Curve:
    one = jnp.ones(1)
    return lambda t: losses.lapm_loss(
        one, jnp.reshape(t, 1), jnp.reshape(2 * t, 1), jnp.array([positive]), lambda_=0.75
    )[0]


def _direction(angle: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _logits(t: jax.Array, rest=(2.0, 1.0, 0.0, -1.0)) -> jax.Array:
    """The true class's logit t beside four others."""
    return jnp.concatenate([jnp.reshape(t, 1), jnp.array(rest)])[None]


_TRUE = jnp.array([0])


def _hdcl(t: jax.Array) -> jax.Array:
    centers = jnp.stack([_direction(jnp.float32(0)), _direction(t)], axis=1)
    logits = 4 * (_direction(jnp.float32(0.3)) @ centers)[None]
    return losses.hdcl_loss(logits, _TRUE, centers, decorrelation_weight=0.1)[0]


def _blob(center: jax.Array, width: jax.Array, side: int = 28) -> jax.Array:
    """An attention map [S, S] that sums to 1; lengths are shares of its side."""
    cells = (jnp.arange(side) + 0.5) / side
    squared = jnp.square(cells[:, None] - 0.5) + jnp.square(cells[None] - center)
    drawn = jnp.exp(-squared / (2 * jnp.square(width)))
    return drawn / jnp.sum(drawn)


def _spread(t: jax.Array) -> jax.Array:
    return losses.part_distance(_blob(jnp.float32(0.5), t)[None, ..., None])[0]


def _overlap(t: jax.Array) -> jax.Array:
    width = jnp.float32(0.08)
    maps = jnp.stack([_blob(0.5 - t / 2, width), _blob(0.5 + t / 2, width)], axis=-1)
    return losses.part_diversity(maps[None])[0]


def _multi_level(t: jax.Array, weight: float) -> jax.Array:
    children = jnp.array([[2.0, 1.0, 0.0, 0.0]])
    parents = jnp.stack([t, jnp.float32(0)])[None]
    return losses.multi_level_loss(
        children, parents, _TRUE, jnp.array([0, 0, 1, 1]), parent_weight=weight
    )[0]


def _triplet(squared: bool) -> Curve:
    return lambda t: losses.triplet_loss(_ZERO, jnp.full((1, 1), 0.7), _point(t), squared=squared)[
        0
    ]


def _cosine_triplet(t: jax.Array) -> jax.Array:
    anchor, positive = _direction(jnp.float32(0)), _direction(jnp.float32(0.6))
    return losses.cosine_triplet_loss(anchor[None], positive[None], _direction(t)[None])[0]


PLOTS = {
    "pairwise_margin_loss": Plot(
        "distance of the pair", 0.01, 2,
        {"positive pair": _pair(True), "negative pair": _pair(False)},
    ),
    "dissimilarity": Plot(
        "distance of the pair", 0, 3,
        {
            "band [1, 2]": lambda t: losses.dissimilarity(t, 1.0, 2.0),
            "m₂ = ∞": lambda t: losses.dissimilarity(t, 1.0, jnp.inf),
        },
    ),
    "positive_relationship": Plot(
        "SCDI₁ on a line; the reference stands at 0, SCDI₂ at 1", -1, 2,
        {"": lambda t: losses.positive_relationship(_ZERO, _point(t), _ZERO + 1)[0]},
    ),
    "negative_relationship": Plot(
        "distance of DCDI₁ from the reference (m₁ = 1, σ = 0.5)", 0.01, 3,
        {
            "both terms": _negative,
            "without Eq. 11": lambda t: _negative(t, additional_term=False),
        },
    ),
    "lapm_loss": Plot(
        "t: a positive pair loss of t, a negative one of 2t, classification loss 1, λ = 0.75", 0, 4,
        {"positive set": _lapm(1), "negative set": _lapm(0)},
    ),
    "triplet_loss": Plot(
        "distance of the negative; the positive stands at 0.7", 0.01, 1.5,
        {"squared": _triplet(True), "plain": _triplet(False)},
    ),
    "quadruplet_loss": Plot(
        "distance of the hard negative; the positive stands at 0.5, the negative at 1", 0.01, 1.5,
        {"": lambda t: losses.quadruplet_loss(_ZERO, _ZERO + 0.5, _point(t), _ZERO + 1)[0]},
    ),
    "cosine_triplet_loss": Plot(
        "angle of the negative; the positive stands at 0.6", 0.01, np.pi, {"": _cosine_triplet}
    ),
    "shuffle_loss": Plot(
        "logit of “shuffled”; the other one is 0", -4, 4,
        {
            name: lambda t, truth=truth: losses.shuffle_loss(
                jnp.stack([jnp.float32(0), t])[None], jnp.array([truth])
            )[0]
            for name, truth in (("shuffled", True), ("of one image", False))
        },
    ),
    "contrastive_loss": _in_batch(**{"": losses.contrastive_loss}),
    "batch_all_triplet_loss": _in_batch(**{"": losses.batch_all_triplet_loss}),
    "batch_hard_cosine_triplet_loss": _in_batch(**{"": losses.batch_hard_cosine_triplet_loss}),
    "lifted_structure_loss": _in_batch(**{"": losses.lifted_structure_loss}),
    "n_pairs_loss": _in_batch(**{"": losses.n_pairs_loss}),
    "binomial_deviance_loss": _in_batch(**{"": losses.binomial_deviance_loss}),
    "histogram_loss": _in_batch(**{"": losses.histogram_loss}),
    "pddm_quadruplet_loss": _in_batch(**{"similarities = cosines": _pddm}),
    "facility_location_loss": _in_batch(**{"": losses.facility_location_loss}),
    "hard_softmax_loss": Plot(
        "logit of the true class; the others have 2, 1, 0, −1", -4, 6,
        {
            f"K̂ = {k}": lambda t, k=k: losses.hard_softmax_loss(_logits(t), _TRUE, top_k=k)[0]
            for k in (1, 2, 5)
        },
    ),
    "decorrelation": Plot(
        "angle between two centres", 0.01, np.pi,
        {
            "": lambda t: losses.decorrelation(
                jnp.stack([_direction(jnp.float32(0)), _direction(t)], axis=1)
            )
        },
    ),
    "proxy_anchor_loss": Plot(
        "angle of the image to its own proxy; the other proxy stands at a right angle",
        0.01, np.pi,
        {
            "": lambda t: losses.proxy_anchor_loss(
                _direction(t)[None], jnp.array([0]), jnp.eye(2), alpha=8.0
            )
        },
    ),
    "hdcl_loss": Plot(
        "angle of the other class's centre; own centre at 0, image at 0.3, logits 4 cos",
        0.01, np.pi, {"": _hdcl},
    ),
    "centralized_ranking_loss": Plot(
        "image between its centre at 0 and another one at 1", -0.5, 1.5,
        {
            "": lambda t: losses.centralized_ranking_loss(
                _point(t), _TRUE, jnp.array([[0.0], [1.0]])
            )[0]
        },
    ),
    "ranking_loss": Plot(
        "score of the region that classifies better, less the other's", -2, 3,
        {
            "": lambda t: losses.ranking_loss(
                jnp.stack([t, jnp.float32(0)])[None], jnp.array([[1.0, 2.0]])
            )[0]
        },
    ),
    "part_distance": Plot(
        "spread of a round attention, share of the map", 0.02, 0.3, {"": _spread}
    ),
    "part_diversity": Plot(
        "distance of two parts with spread 0.08, share of the map", 0.005, 0.6, {"": _overlap}
    ),
    "multi_level_loss": Plot(
        "logit of the true super-class; the other one has 0", -4, 4,
        {f"λ = {w}": lambda t, w=w: _multi_level(t, w) for w in (1.0, 0.0)},
    ),
}  # fmt: skip


def address(name: str) -> str:
    """The file of a plot in the site."""
    return f"assets/plots/{name}.svg"


def sample(plot: Plot, points: int = 241) -> tuple[np.ndarray, dict[str, tuple]]:
    """Places on the line and, by curve, values and gradients there."""
    places = jnp.linspace(plot.start, plot.stop, points, dtype=jnp.float32)
    both = {
        name: compilation.jit(jax.vmap(jax.value_and_grad(lambda t, c=curve: jnp.sum(c(t)))))(
            places
        )
        for name, curve in plot.curves.items()
    }
    return np.asarray(places), {name: tuple(map(np.asarray, found)) for name, found in both.items()}


def draw(name: str) -> str:
    """The plot as SVG."""
    plot = PLOTS[name]
    places, found = sample(plot)
    style = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.6))
        for axis, title, which in zip(axes, ("value", "gradient"), (0, 1)):
            for label, curves in found.items():
                axis.plot(places, curves[which], label=label)
            axis.set_title(title, fontsize=9)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        if any(found):
            axes[0].legend(fontsize=8, frameon=False)
        figure.supxlabel(plot.along, fontsize=9)
        figure.tight_layout()
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return written.getvalue()
