"""Every refusal names its function, what is wrong, and what it must be."""

import jax.numpy as jnp
import numpy as np
import pytest

from fgjax import losses
from fgjax.losses import common
from tests.losses.cases import margins

pytestmark = pytest.mark.usefixtures("unchecked_types")

X, Y = np.ones((2, 3), np.float32), np.zeros(2, np.int32)
ONE, THREE = np.ones(3, np.float32), np.ones((3, 3), np.float32)
SCORES = np.ones((2, 2), np.float32)
IN_BATCH = (
    "contrastive_loss", "batch_all_triplet_loss", "batch_hard_cosine_triplet_loss",
    "batch_hard_cosine_triplets", "lifted_structure_loss", "n_pairs_loss",
    "binomial_deviance_loss", "histogram_loss", "facility_location_loss",
)  # fmt: skip


def refusal(call):
    with pytest.raises(ValueError) as found:
        call()
    return str(found.value)


MORE = {"pddm_quadruplet_loss": {"similarities": SCORES}, "proxy_anchor_loss": {"proxies": X}}


@pytest.mark.parametrize("name", [*IN_BATCH, *MORE])
def test_in_batch_losses_want_rows_and_integer_labels(name):
    more = MORE.get(name, {})
    call = lambda x, y: getattr(losses, name)(x, y, **more)  # noqa: E731
    assert refusal(lambda: call(ONE, Y)) == (
        f"{name}: embeddings has shape (3,), but must have rank 2."
    )
    assert refusal(lambda: call(X, X)) == (
        f"{name}: labels must be integers [B], got float32 (2, 3)."
    )
    assert refusal(lambda: call(X, ONE[:2])) == (
        f"{name}: labels must be integers [B], got float32 (2,)."
    )
    assert refusal(lambda: call(X, np.zeros(3, np.int32))) == (
        f"{name}: batch sizes differ: embeddings 2, labels 3."
    )


NOT_NEGATIVE = [
    (name, option, lambda name=name, **o: getattr(losses, name)(X, Y, **o))
    for name, options in {
        "contrastive_loss": ["margin"],
        "batch_all_triplet_loss": ["margin"],
        "lifted_structure_loss": ["margin"],
        "n_pairs_loss": ["l2_weight"],
        "binomial_deviance_loss": ["alpha", "negative_cost"],
        "facility_location_loss": ["margin_multiplier", "refinements"],
    }.items()
    for option in options
] + [
    ("cosine_triplet_loss", "margin", lambda **o: losses.cosine_triplet_loss(X, X, X, **o)),
    ("cosine_triplet_loss", "margin", lambda **o: losses.batch_hard_cosine_triplet_loss(X, Y, **o)),
    ("triplet_loss", "margin", lambda **o: losses.triplet_loss(X, X, X, **o)),
    ("pairwise_margin_loss", "margin", lambda **o: losses.pairwise_margin_loss(X, X, Y, **o)),
    ("negative_relationship", "alpha",
     lambda **o: losses.negative_relationship(X, X, X, X, margins(), **o)),
    ("ranking_loss", "margin", lambda **o: losses.ranking_loss(X, X, **o)),
    ("hdcl_loss", "decorrelation_weight", lambda **o: losses.hdcl_loss(X, Y, X, **o)),
    ("centralized_ranking_loss", "margin",
     lambda **o: losses.centralized_ranking_loss(X, Y, X, **o)),
    *(("proxy_anchor_loss", option, lambda **o: losses.proxy_anchor_loss(X, Y, X, **o))
      for option in ("alpha", "margin")),
    ("multi_level_loss", "parent_weight",
     lambda **o: losses.multi_level_loss(X, X, Y, np.zeros(3, int), **o)),
    *(("pddm_quadruplet_loss", option,
       lambda **o: losses.pddm_quadruplet_loss(X, Y, SCORES, **o))
      for option in ("alpha", "beta", "embedding_weight")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "option", "call"), NOT_NEGATIVE, ids=[f"{n}-{o}" for n, o, _ in NOT_NEGATIVE]
)
def test_margins_and_weights_must_not_be_negative(name, option, call):
    value = -1 if option == "refinements" else -0.25
    assert refusal(lambda: call(**{option: value})) == (
        f"{name}: {option} is {value}, but must not be negative."
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: losses.positive_relationship(X, X, ONE),
         "positive_relationship: scdi2 has shape (3,), but must be [B, D]."),
        (lambda: losses.positive_relationship(X, THREE, X),
         "positive_relationship: all embeddings must have one shape, got reference (2, 3), "
         "scdi1 (3, 3), scdi2 (2, 3)."),
        (lambda: losses.negative_relationship(X, X, X, THREE, margins()),
         "negative_relationship: all embeddings must have one shape, got reference (2, 3), "
         "dcdi1 (2, 3), dcdi2 (2, 3), dcdic (3, 3)."),
        (lambda: losses.triplet_loss(X, X, THREE),
         "triplet_loss: all embeddings must have one shape, got anchor (2, 3), positive (2, 3), "
         "negative (3, 3)."),
        (lambda: losses.cosine_triplet_loss(X, THREE, X),
         "cosine_triplet_loss: all embeddings must have one shape, got anchor (2, 3), "
         "positive (3, 3), negative (2, 3)."),
        (lambda: losses.quadruplet_loss(X, X, X, THREE),
         "quadruplet_loss: all embeddings must have one shape, got reference (2, 3), "
         "positive (2, 3), hard_negative (2, 3), negative (3, 3)."),
        (lambda: losses.quadruplet_loss(X, X, X, X, m1=0.5, m2=0.5),
         "quadruplet_loss: needs m1 > m2 > 0, got m1 = 0.5 and m2 = 0.5."),
        (lambda: losses.quadruplet_loss(X, X, X, X, m1=0.5, m2=0),
         "quadruplet_loss: needs m1 > m2 > 0, got m1 = 0.5 and m2 = 0."),
        (lambda: losses.pairwise_margin_loss(X, THREE, Y, margin=1),
         "pairwise_margin_loss: all embeddings must have one shape, got reference (2, 3), "
         "other (3, 3)."),
        (lambda: losses.pairwise_margin_loss(X, X, X, margin=1),
         "pairwise_margin_loss: is_positive has shape (2, 3), but must have rank 1."),
        (lambda: losses.pairwise_margin_loss(X, X, ONE, margin=1),
         "pairwise_margin_loss: batch sizes differ: reference 2, is_positive 3."),
        (lambda: losses.lapm_loss(ONE, ONE, X, ONE),
         "lapm_loss: negative has shape (2, 3), but must have rank 1."),
        (lambda: losses.lapm_loss(ONE, ONE, ONE, X),
         "lapm_loss: is_positive has shape (2, 3), but must have rank 1."),
        (lambda: losses.lapm_loss(ONE, ONE[:2], ONE, ONE),
         "lapm_loss: batch sizes differ: classification 3, positive 2, negative 3, "
         "is_positive 3."),
        (lambda: losses.lapm_loss(ONE, ONE, ONE, ONE, lambda_=1.25),
         "lapm_loss: lambda_ is 1.25, but must lie in [0, 1]."),
        (lambda: losses.lapm_loss(ONE, ONE, ONE, ONE, lambda_=-0.25),
         "lapm_loss: lambda_ is -0.25, but must lie in [0, 1]."),
        (lambda: losses.ranking_loss(ONE, X),
         "ranking_loss: scores has shape (3,), but must have rank 2."),
        (lambda: losses.ranking_loss(X, ONE),
         "ranking_loss: losses has shape (3,), but must have rank 2."),
        (lambda: losses.ranking_loss(X, SCORES),
         "ranking_loss: scores (2, 3) and losses (2, 2) differ."),
        (lambda: losses.shuffle_loss(ONE, Y),
         "shuffle_loss: logits has shape (3,), but must have rank 2."),
        (lambda: losses.shuffle_loss(SCORES, X),
         "shuffle_loss: is_shuffled has shape (2, 3), but must have rank 1."),
        (lambda: losses.shuffle_loss(SCORES, ONE),
         "shuffle_loss: batch sizes differ: logits 2, is_shuffled 3."),
        (lambda: losses.shuffle_loss(X, Y),
         "shuffle_loss: logits have shape (2, 3), but must be [B, 2]."),
        (lambda: losses.hard_softmax_loss(ONE, Y, top_k=1),
         "hard_softmax_loss: logits has shape (3,), but must have rank 2."),
        (lambda: losses.hard_softmax_loss(X, ONE[:2], top_k=1),
         "hard_softmax_loss: labels must be integers [B], got float32 (2,)."),
        (lambda: losses.hard_softmax_loss(X, np.zeros(3, int), top_k=1),
         "hard_softmax_loss: batch sizes differ: logits 2, labels 3."),
        (lambda: losses.hard_softmax_loss(X, Y, top_k=0),
         "hard_softmax_loss: top_k is 0, but must be in 1 … 3."),
        (lambda: losses.hard_softmax_loss(X, Y, top_k=4),
         "hard_softmax_loss: top_k is 4, but must be in 1 … 3."),
        (lambda: losses.decorrelation(ONE),
         "decorrelation: weights has shape (3,), but must have rank 2."),
        (lambda: losses.hdcl_loss(X, Y, ONE),
         "hdcl_loss: weights has shape (3,), but must have rank 2."),
        (lambda: losses.hdcl_loss(X, Y, SCORES),
         "hdcl_loss: weights (2, 2) and logits (2, 3) differ in K."),
        (lambda: losses.centralized_ranking_loss(X, Y, ONE),
         "centralized_ranking_loss: centers has shape (3,), but must have rank 2."),
        (lambda: losses.centralized_ranking_loss(ONE, Y, X),
         "centralized_ranking_loss: embeddings has shape (3,), but must have rank 2."),
        (lambda: losses.centralized_ranking_loss(X, ONE[:2], X),
         "centralized_ranking_loss: labels must be integers [B], got float32 (2,)."),
        (lambda: losses.centralized_ranking_loss(X, np.zeros(3, int), X),
         "centralized_ranking_loss: batch sizes differ: embeddings 2, labels 3."),
        (lambda: losses.centralized_ranking_loss(X, Y, SCORES),
         "centralized_ranking_loss: embeddings (2, 3) and centers (2, 2) must have the same "
         "depth."),
        (lambda: losses.multi_level_loss(ONE, X, Y, np.zeros(3, int)),
         "multi_level_loss: child_logits has shape (3,), but must have rank 2."),
        (lambda: losses.multi_level_loss(X, ONE, Y, np.zeros(3, int)),
         "multi_level_loss: parent_logits has shape (3,), but must have rank 2."),
        (lambda: losses.multi_level_loss(X, X, ONE[:2], np.zeros(3, int)),
         "multi_level_loss: labels must be integers [B], got float32 (2,)."),
        (lambda: losses.multi_level_loss(X, X, Y, ONE),
         "multi_level_loss: labels must be integers [B], got float32 (3,)."),
        (lambda: losses.multi_level_loss(X, THREE, Y, np.zeros(3, int)),
         "multi_level_loss: batch sizes differ: child_logits 2, parent_logits 3, labels 2."),
        (lambda: losses.multi_level_loss(X, X, np.zeros(3, int), np.zeros(3, int)),
         "multi_level_loss: batch sizes differ: child_logits 2, parent_logits 2, labels 3."),
        (lambda: losses.multi_level_loss(X, X, Y, np.zeros(4, int)),
         "multi_level_loss: parents name 4 classes, the logits 3."),
        (lambda: losses.multi_level_loss(X, X, Y, np.array([0, 3, 1])),
         "multi_level_loss: a parent is not among 3 super-classes."),
        (lambda: losses.part_distance(X),
         "part_distance: maps have shape (2, 3), but must be [B, H, W, parts]."),
        (lambda: losses.part_diversity(X),
         "part_diversity: maps have shape (2, 3), but must be [B, H, W, parts]."),
        (lambda: losses.part_diversity(np.ones((1, 2, 2, 1))),
         "part_diversity: needs at least two parts."),
        (lambda: losses.collapse_alarm(ONE),
         "collapse_alarm: embeddings has shape (3,), but must have rank 2."),
        (lambda: losses.histogram_loss(X, Y, nodes=1),
         "histogram_loss: nodes is 1, but must be at least 2."),
        (lambda: losses.pddm_quadruplet_loss(X, Y, X),
         "pddm_quadruplet_loss: similarities have shape (2, 3), but must be (2, 2)."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, says):
    assert refusal(call) == says


def test_limits_are_taken():
    common.check_not_negative("f", margin=0, weight=0.0, traced=jnp.float32(-1))  # cannot be known
    assert losses.hard_softmax_loss(X, Y, top_k=3).shape == (2,)
    assert losses.histogram_loss(X, np.array([0, 1]), nodes=2).shape == ()
    assert losses.quadruplet_loss(X, X, X, X, m1=0.5, m2=0.25).shape == (2,)
    for parents in (np.array([0, 2, -1]), jnp.array([0, 2, -1])):
        assert losses.multi_level_loss(X, X, Y, parents).shape == (2,)
    for lambda_ in (0, 1):
        assert losses.lapm_loss(ONE, ONE, ONE, ONE, lambda_=lambda_).tolist() == [1, 1, 1]
