"""Every public loss as one call, so that a property is tested on all of them."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fgjax import losses


@functools.cache
def margins() -> losses.PairMargins:
    """One margin for all pairs; made when it is wanted, as arrays start the devices.

    Outside of a trace that may be going on: a tracer kept here would enter other programs.
    """
    with jax.ensure_compile_time_eval():
        one = losses.MarginStatistics(m1=jnp.float32(1.5), sigma=jnp.float32(0.4))
        return losses.PairMargins(ref_dcdi1=one, ref_dcdi2=one, dcdi1_dcdi2=one, ref_dcdic=one)


LABELS = np.array([0, 0, 1, 1, 2, 2, 0, 3], np.int32)
PARENTS = np.array([0, 0, 1, 1], np.int32)
PROXIES = np.random.default_rng(5).normal(size=(4, 5)).astype(np.float32)
SIGNS = np.array([1, 0, 1, 0, 1, 0, 0, 1], np.int32)


@dataclasses.dataclass(frozen=True)
class Case:
    """`call(*floats, *integers)`; floats get the gradient."""

    name: str
    call: Callable
    floats: tuple[tuple[int, ...], ...]
    integers: tuple[np.ndarray, ...] = ()
    in_batch: bool = False

    def draw(self, seed=0, dtype=np.float32, scale=1.0):
        rng = np.random.default_rng(seed)
        return [jnp.asarray(rng.normal(size=shape) * scale, dtype) for shape in self.floats]

    def total(self, *floats):
        return jnp.mean(self.call(*floats, *self.integers))


F = (8, 5)
TUPLES = [
    Case("hard_softmax", lambda o, y: losses.hard_softmax_loss(o, y, top_k=2), ((8, 4),),
         (LABELS,)),
    Case("hdcl", lambda o, w, y: losses.hdcl_loss(o, y, w), ((8, 4), (5, 4)), (LABELS,)),
    Case("centralized_ranking",
         lambda f, c, y: losses.centralized_ranking_loss(f, y, c), (F, (4, 5)), (LABELS,)),
    Case("pairwise_margin",
         lambda a, b, s: losses.pairwise_margin_loss(a, b, s, margin=2.0), (F, F), (SIGNS,)),
    Case("positive_relationship", losses.positive_relationship, (F, F, F)),
    Case("negative_relationship",
         lambda *r: losses.negative_relationship(*r, margins()), (F, F, F, F)),
    Case("lapm", lambda c, p, n, s: losses.lapm_loss(c, p, n, s), ((8,), (8,), (8,)), (SIGNS,)),
    Case("triplet", losses.triplet_loss, (F, F, F)),
    Case("triplet_plain", lambda *x: losses.triplet_loss(*x, squared=False), (F, F, F)),
    Case("shuffle", losses.shuffle_loss, ((8, 2),), (SIGNS,)),
    Case("quadruplet", losses.quadruplet_loss, (F, F, F, F)),
    Case("cosine_triplet", losses.cosine_triplet_loss, (F, F, F)),
    Case("ranking", losses.ranking_loss, ((8, 6), (8, 6))),
    Case("multi_level", lambda c, p, y, q: losses.multi_level_loss(c, p, y, q),
         ((8, 4), (8, 2)), (LABELS, PARENTS)),
    Case("part_distance", lambda m: losses.part_distance(jax.nn.softmax(m, axis=(1, 2))),
         ((8, 4, 4, 3),)),
    Case("part_diversity", lambda m: losses.part_diversity(jax.nn.softmax(m, axis=(1, 2))),
         ((8, 4, 4, 3),)),
]  # fmt: skip
IN_BATCH = [
    Case(name, call, (F,), (LABELS,), in_batch=True)
    for name, call in {
        "contrastive": losses.contrastive_loss,
        "lifted": losses.lifted_structure_loss,
        "n_pairs": losses.n_pairs_loss,
        "binomial_deviance": losses.binomial_deviance_loss,
        "histogram": losses.histogram_loss,
        "facility_location": losses.facility_location_loss,
        "pddm": lambda x, y: losses.pddm_quadruplet_loss(x, y, x @ x.T),
        "proxy_anchor": lambda x, y: losses.proxy_anchor_loss(x, y, jnp.asarray(PROXIES, x.dtype)),
    }.items()
]
ALL = TUPLES + IN_BATCH
