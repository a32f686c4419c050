"""What must hold for all losses: safe, wide, permutable, the same on any devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from fgjax import compilation, losses
from fgjax.training import sharding
from tests.losses.cases import ALL, IN_BATCH, LABELS, TUPLES

every = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
in_batch = pytest.mark.parametrize("case", IN_BATCH, ids=lambda case: case.name)
tuples = pytest.mark.parametrize("case", TUPLES, ids=lambda case: case.name)
# The same numbers on other devices: two losses always, the others where there is time.
some = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.name in ("lapm", "lifted") else pytest.mark.slow)
     for case in ALL],
    ids=lambda case: case.name,
)  # fmt: skip


def value_and_gradient(case, floats):
    return jax.value_and_grad(case.total, argnums=tuple(range(len(floats))))(*floats)


@every
def test_data_is_not_degenerate(case):
    """Other tests mean something: the value is not 0 and some gradient is not either."""
    value, gradients = value_and_gradient(case, case.draw())
    assert abs(float(value)) > 1e-3
    assert max(float(jnp.abs(g).max()) for g in gradients) > 1e-5


@every
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_everywhere(case, scale, dtype):
    floats = case.draw(dtype=dtype, scale=scale)
    argnums = tuple(range(len(floats)))
    jitted = compilation.jit(jax.value_and_grad(case.total, argnums=argnums))
    for value, gradients in (jitted(*floats), value_and_gradient(case, floats)):
        assert value.dtype == jnp.float32
        chex.assert_tree_all_finite((value, gradients))


@every
def test_identical_embeddings_are_finite(case):
    floats = [jnp.ones(shape) for shape in case.floats]
    chex.assert_tree_all_finite(value_and_gradient(case, floats))


@every
def test_never_negative(case):
    if case.name == "part_diversity":  # its margin may exceed the overlap
        return
    for seed in range(5):
        floats = case.draw(seed)
        if case.name == "lapm":  # its inputs are losses themselves
            floats = [jnp.abs(x) for x in floats]
        assert (np.asarray(case.call(*floats, *case.integers)) >= -1e-6).all()


@in_batch
@pytest.mark.parametrize("labels", [np.zeros(8, np.int32), np.arange(8, dtype=np.int32)])
def test_one_class_or_no_positive_pair(case, labels):
    (x,) = case.draw()
    value, gradient = jax.value_and_grad(lambda x: case.call(x, labels))(x)
    chex.assert_tree_all_finite((value, gradient))
    empty = {"lifted", "n_pairs", "histogram", "pddm"}  # these need both kinds of pairs
    if case.name in empty and not (case.name == "n_pairs" and labels[1] == 0):
        assert float(value) == 0
        chex.assert_trees_all_equal(gradient, jnp.zeros_like(gradient))


@in_batch
def test_a_single_row_is_nothing(case):
    if case.name == "proxy_anchor":  # to its proxies it is something
        return
    x = jnp.ones((1, 5))
    value, gradient = jax.value_and_grad(lambda x: case.call(x, np.zeros(1, np.int32)))(x)
    assert float(value) == 0
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(gradient))


@in_batch
def test_the_order_of_the_batch_does_not_matter(case):
    (x,) = case.draw(4)
    # N-pairs takes a class's first row as anchor: only whole pairs may change places.
    whole_pairs = np.array([2, 3, 4, 5, 0, 1, 6, 7])
    order = np.random.default_rng(0).permutation(8) if case.name != "n_pairs" else whole_pairs
    value = case.call(x, LABELS)
    np.testing.assert_allclose(case.call(x[order], LABELS[order]), value, rtol=1e-4)


@pytest.mark.parametrize("name", ["contrastive", "lifted", "facility_location"])
def test_rigid_motion_changes_nothing(name):
    case = next(case for case in IN_BATCH if case.name == name)
    (x,) = case.draw(6)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    moved = jnp.asarray(x @ rotation + 2, jnp.float32)
    np.testing.assert_allclose(case.call(moved, LABELS), case.call(x, LABELS), rtol=1e-3)


@pytest.mark.parametrize("name", ["triplet", "triplet_plain", "quadruplet", "pairwise_margin"])
def test_tuples_see_distances_alone(name):
    case = next(case for case in TUPLES if case.name == name)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    rows = case.draw(3)
    moved = [jnp.asarray(x @ rotation + 2, jnp.float32) for x in rows]
    np.testing.assert_allclose(
        case.call(*moved, *case.integers), case.call(*rows, *case.integers), rtol=1e-3, atol=1e-4
    )


def test_cosines_see_directions_alone():
    (a, p, n) = next(case for case in TUPLES if case.name == "cosine_triplet").draw(3)
    np.testing.assert_allclose(
        losses.cosine_triplet_loss(a * 3, p * 0.1, n * 7),
        losses.cosine_triplet_loss(a, p, n),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_symmetries():
    """Mixtures may change places in Eq. 9, partners in Eq. 7, and pairs in every in-batch loss."""
    a, b, c = next(case for case in TUPLES if case.name == "triplet").draw(5)
    np.testing.assert_allclose(
        losses.positive_relationship(a, b, c), losses.positive_relationship(a, c, b), rtol=1e-6
    )
    signs = np.arange(8) % 2
    np.testing.assert_allclose(
        losses.pairwise_margin_loss(a, b, signs, margin=3.0),
        losses.pairwise_margin_loss(b, a, signs, margin=3.0),
        rtol=1e-6,
    )
    w = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    np.testing.assert_allclose(
        losses.decorrelation(w), losses.decorrelation(-w[:, ::-1]), rtol=1e-5
    )


@every
def test_gradients_are_the_derivatives(case):
    if case.name in ("ranking",):  # its second argument enters a comparison only
        floats = case.draw(8)
        check_grads(lambda s: case.total(s, floats[1]), floats[:1], order=1, modes=["rev"],
                    atol=3e-2, rtol=3e-2)  # fmt: skip
        return
    if case.name in ("facility_location", "part_distance"):  # medoids and peaks are constants
        return
    check_grads(case.total, case.draw(8), order=1, modes=["rev"], atol=3e-2, rtol=3e-2, eps=1e-3)


@tuples
def test_vmap_is_the_batch(case):
    """One example at a time gives the batch's values."""
    floats = case.draw(9)
    whole = case.call(*floats, *case.integers)
    shared = {"hdcl": (1,), "centralized_ranking": (1,)}.get(case.name, ())
    common = (1,) if case.name == "multi_level" else ()
    axes = [None if i in shared else 0 for i in range(len(floats))]
    axes += [None if i in common else 0 for i in range(len(case.integers))]

    def single(*arguments):
        rows = [a if axis is None else a[None] for a, axis in zip(arguments, axes)]
        return case.call(*rows)[0]

    found = jax.vmap(single, in_axes=axes)(*floats, *map(jnp.asarray, case.integers))
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


def _shared(case):
    return {"hdcl": (1,), "centralized_ranking": (1,)}.get(case.name, ())


@some
def test_four_devices_under_jit_give_one_devices_numbers(case):
    floats = case.draw(10)
    wanted = value_and_gradient(case, floats)
    mesh = sharding.data_mesh()
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    placed = [
        jax.device_put(x, NamedSharding(mesh, everywhere if i in _shared(case) else rows))
        for i, x in enumerate(floats)
    ]
    assert jax.device_count() == 4
    found = jax.jit(
        jax.value_and_grad(case.total, argnums=tuple(range(len(floats))))
    )(*placed)  # fmt: skip
    chex.assert_trees_all_close(jax.device_get(found), wanted, rtol=1e-4, atol=1e-5)


@some
def test_pmap_gives_jits_numbers(case):
    """Tuple losses with pmean, in-batch losses after all_gather."""
    floats = case.draw(11)
    argnums = tuple(range(len(floats)))
    wanted = jax.jit(jax.value_and_grad(case.total, argnums=argnums))(*floats)
    shared = _shared(case)
    split = [x if i in shared else x.reshape(4, 2, *x.shape[1:]) for i, x in enumerate(floats)]
    axes = [None if i in shared else 0 for i in range(len(floats))]
    tables = [y for y in case.integers if len(y) != 8]
    rows = [jnp.asarray(y).reshape(4, 2) for y in case.integers if len(y) == 8]

    def per_device(*arguments):
        own, integers = arguments[: len(floats)], arguments[len(floats) :]

        def total(*own):
            if case.in_batch:
                gathered = [jax.lax.all_gather(x, "i", tiled=True) for x in (*own, *integers)]
                return jnp.mean(case.call(*gathered))
            return jnp.mean(case.call(*own, *integers, *tables))

        value, gradient = jax.value_and_grad(total, argnums=argnums)(*own)
        # Of the mean over devices; a shared argument's parts are summed.
        gradient = [jax.lax.pmean(g, "i") if i in shared else g / 4 for i, g in enumerate(gradient)]
        return jax.lax.pmean(value, "i"), gradient

    value, gradient = jax.pmap(per_device, axis_name="i", in_axes=(*axes, *[0] * len(rows)))(
        *split, *rows
    )
    np.testing.assert_allclose(value, np.full(4, wanted[0]), rtol=1e-4, atol=1e-6)
    for i, (found, want) in enumerate(zip(gradient, wanted[1])):
        found = found[0] if i in shared else found.reshape(want.shape)
        # all_gather's gradient sums what every device sends back: 4 equal losses, divided by 4
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
class Variants(chex.TestCase, parameterized.TestCase):
    """Jitted or not, on a device or not, mapped: the same numbers."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    @parameterized.named_parameters((case.name, case) for case in ALL)
    def test_values(self, case):
        floats = case.draw(12)
        found = self.variant(lambda *x: case.call(*x, *case.integers))(*floats)
        chex.assert_trees_all_close(found, case.call(*floats, *case.integers), rtol=1e-4, atol=1e-5)

    @chex.variants(with_pmap=True)
    @parameterized.named_parameters((case.name, case) for case in ALL)
    def test_with_pmap(self, case):
        floats = case.draw(12)
        found = self.variant(lambda *x: case.call(*x, *case.integers))(*floats)
        chex.assert_trees_all_close(found, case.call(*floats, *case.integers), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.hard_softmax_loss(np.ones((2, 3)), np.zeros(2, int), top_k=0),
        lambda: losses.hard_softmax_loss(np.ones((2, 3)), np.zeros(2, int), top_k=4),
        lambda: losses.hard_softmax_loss(np.ones((2, 3)), np.zeros(2), top_k=2),
        lambda: losses.hard_softmax_loss(np.ones((2, 3)), np.zeros(3, int), top_k=2),
        lambda: losses.hdcl_loss(np.ones((2, 3)), np.zeros(2, int), np.ones((5, 4))),
        lambda: losses.centralized_ranking_loss(np.ones((2, 3)), np.zeros(2, int), np.ones((4, 2))),
        lambda: losses.quadruplet_loss(*[np.ones((2, 3))] * 4, m1=0.2, m2=0.2),
        lambda: losses.quadruplet_loss(*[np.ones((2, 3))] * 4, m1=0.2, m2=-0.1),
        lambda: losses.triplet_loss(*[np.ones((2, 3))] * 3, margin=-1),
        lambda: losses.triplet_loss(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4))),
        lambda: losses.cosine_triplet_loss(*[np.ones((2, 3))] * 3, margin=-0.1),
        lambda: losses.shuffle_loss(np.ones((2, 3)), np.ones(2)),
        lambda: losses.ranking_loss(np.ones((2, 3)), np.ones((2, 4))),
        lambda: losses.multi_level_loss(
            np.ones((2, 3)), np.ones((2, 2)), np.zeros(2, int), np.zeros(4, int)
        ),
        lambda: losses.contrastive_loss(np.ones((2, 3)), np.zeros(3, int)),
        lambda: losses.contrastive_loss(np.ones((2, 3)), np.zeros(2, int), margin=-1),
        lambda: losses.lifted_structure_loss(np.ones(3), np.zeros(3, int)),
        lambda: losses.histogram_loss(np.ones((2, 3)), np.zeros(2, int), nodes=1),
        lambda: losses.pddm_quadruplet_loss(np.ones((2, 3)), np.zeros(2, int), np.ones((3, 3))),
        lambda: losses.facility_location_loss(
            np.ones((2, 3)), np.zeros(2, int), margin_multiplier=-1
        ),
        lambda: losses.decorrelation(np.ones(3)),
        lambda: losses.collapse_alarm(np.ones(3)),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_wrong_input_is_one_sentence_at_trace_time(call):
    with pytest.raises(ValueError, match=r"^\w+: [^\n]+\.$"):
        call()
    with pytest.raises(ValueError, match=r"^\w+: "):
        jax.jit(call)()
