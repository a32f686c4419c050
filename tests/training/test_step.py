"""The running average of the parameters, and micro-batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.models import layers
from fgjax.training import checkpoints, sharding, step
from fgjax.training.dry import AbstractStep
from fgjax.training.logging import read_metrics
from tests.tiny import ccfr_config, hdcl_config
from tests.training.test_fit import Interrupted, Net, assert_same, interrupting, loss, train

DECAY = 0.8


def by_hand(path):
    """Σ dᵗ⁻ᵏ xₖ / Σ dᵗ⁻ᵏ of a list of states, in float64."""
    weights = np.array([DECAY ** (len(path) - k) for k in range(1, len(path) + 1)])
    mean = lambda *leaves: np.tensordot(weights, np.stack(leaves), 1) / weights.sum()  # noqa: E731
    wide = [jax.tree.map(lambda x: np.asarray(x, np.float64), state) for state in path]
    return jax.tree.map(mean, *wide)


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), one, other)


# The running average


@pytest.mark.parametrize("decay", [0.5, 0.999, 0.9999])
def test_the_average_by_hand(decay):
    """x = 2, 3, 5: (2 d² + 3 d + 5) / (d² + d + 1); what lay there before the first is gone."""
    average = {"x": jnp.float32(100.0)}
    for number, value in enumerate((2.0, 3.0, 5.0)):
        current = {"x": jnp.float32(value), "other": jnp.zeros(3)}
        average = step.moved(average, current, decay=decay, number=number)
    wanted = (2 * decay**2 + 3 * decay + 5) / (decay**2 + decay + 1)
    assert float(average["x"]) == pytest.approx(wanted, rel=3e-5)


def test_what_never_changes_stays_the_same_to_the_last_bit():
    values = {"x": jnp.asarray(np.random.default_rng(0).normal(size=1000).astype(np.float32))}
    average = values
    for number in range(20):
        average = step.moved(average, values, decay=0.97, number=number)
    assert_same(average, values)


def recording(seen):
    """A `before_epoch` that keeps what it sees: with one step an epoch, the path of training."""

    def before_epoch(model, epoch, key):
        seen.append(jax.tree.map(np.array, checkpoints.model_state(model)))
        return {}

    return before_epoch


def test_the_average_is_evaluated_and_saved_while_training_goes_its_own_way(tmp_path):
    """Parameters and batch norm's statistics alike; `before_epoch` sees what is trained."""
    plain, path, evaluated = [], [], []
    last = train(tmp_path / "a", epochs=5, steps=1, before_epoch=recording(plain))

    def evaluator(model, epoch):
        evaluated.append(jax.tree.map(np.array, checkpoints.model_state(model)))
        return {}

    saved = train(tmp_path / "b", epochs=5, steps=1, ema=DECAY, before_epoch=recording(path),
                  evaluator=evaluator)  # fmt: skip
    for one, other in zip(plain, path, strict=True):
        assert_close(one, other)
    after = [*path[1:], last]  # after each of the five steps
    assert_close(saved, by_hand(after))
    assert_same(evaluated[-1], saved)
    assert not np.allclose(saved["body"][1]["var"], last["body"][1]["var"])
    assert not np.allclose(saved["head"]["kernel"], last["head"]["kernel"])


@pytest.mark.parametrize("at", [1, 2])
def test_resuming_keeps_the_average(tmp_path, at):
    whole = train(tmp_path / "a", epochs=3, ema=DECAY, before_epoch=interrupting(-1))
    with pytest.raises(Interrupted):
        train(tmp_path / "b", epochs=3, ema=DECAY, before_epoch=interrupting(at))
    resumed = train(tmp_path / "b", epochs=3, ema=DECAY, before_epoch=interrupting(-1))
    assert_same(whole, resumed)
    without = train(tmp_path / "c", epochs=3, before_epoch=interrupting(-1))
    assert not np.array_equal(whole["head"]["kernel"], without["head"]["kernel"])


# Micro-batches


class Plain(nnx.Module):
    """A convolution and a head: nothing that looks at a batch as a whole."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = layers.Conv(3, 4, 3, use_bias=True, rngs=rngs)
        self.head = layers.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(layers.global_average_pool(jnp.tanh(self.conv(x))))


def mean_loss(model, batch, statistics, key):
    entropy = optax.softmax_cross_entropy_with_integer_labels(model(batch["image"]), batch["label"])
    return jnp.mean(entropy), {"first": jnp.mean(batch["image"])}


def test_two_micro_batches_are_the_batch_where_nothing_looks_at_it_as_a_whole(tmp_path):
    for count in (1, 2):
        path = tmp_path / str(count)
        found = train(path, Plain(), loss=mean_loss, accumulate=count)
        if count == 1:
            whole = found
    assert_close(whole, found)
    one, other = (read_metrics(tmp_path / str(count)) for count in (1, 2))
    for name in ("loss", "gradient_norm", "first"):
        np.testing.assert_allclose([r[name] for r in one], [r[name] for r in other], rtol=1e-4)


def states_of(model, batch, *, accumulate):
    """(the state after one step of SGD, its metrics)."""
    graph, trained, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.sgd(0.1)
    update = step.make_step(graph, trained, rest, loss_of_all, optimizer, nnx.Param,
                            jax.random.key(0), accumulate=accumulate)  # fmt: skip
    state = sharding.replicate(step.initial_state(model, nnx.Param, optimizer.init))
    return update(state, {}, sharding.shard(batch), 0)


def loss_of_all(model, batch, statistics, key):
    value, _ = mean_loss(model, batch, statistics, key)
    return value, {
        "drawn": jax.random.uniform(key),
        "seen": jnp.mean(batch["label"].astype(jnp.float32)),
    }


def random_batch(size):
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(size, 6, 6, 3)).astype(np.float32),
            "label": np.arange(size, dtype=np.int32) % 3}  # fmt: skip


def test_four_are_a_fourfold_batch():
    batch = random_batch(16)
    (one, _), (four, metrics) = (states_of(Plain(), batch, accumulate=n) for n in (1, 4))
    assert_close(one["trained"], four["trained"])
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), n) for n in range(4)]
    drawn = np.mean([float(jax.random.uniform(key)) for key in keys])
    assert float(metrics["drawn"]) == pytest.approx(drawn, rel=1e-6)  # each has its own key
    assert float(metrics["seen"]) == pytest.approx(np.mean(batch["label"]))


def test_batch_norm_goes_through_all_of_them_in_their_order():
    model, batch = Net(), random_batch(16)
    state, _ = states_of(model, batch, accumulate=4)
    norm = layers.BatchNorm(4)
    for rows in np.split(batch["image"], 4):
        norm(model.body[0](jnp.asarray(rows)))
    found = state["rest"]["body"][1]
    np.testing.assert_allclose(found["mean"], norm.mean[...], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], norm.var[...], rtol=1e-4)


def test_slices_are_rows_in_their_order_split_over_the_devices():
    rows = np.arange(48).reshape(16, 3)
    cut = jax.jit(lambda batch: sharding.slices(batch, 2))(sharding.shard({"x": rows}))["x"]
    np.testing.assert_array_equal(cut, rows.reshape(2, 8, 3))
    assert {shard.data.shape for shard in cut.addressable_shards} == {(2, 2, 3)}


def test_the_dry_run_sees_less_memory_and_the_same_operations():
    found = {}
    for count in (1, 4):
        model = Plain()
        batch = {"image": np.zeros((32, 64, 64, 3), np.float32), "label": np.zeros(32, np.int32)}
        made = AbstractStep(model, mean_loss, batch, optimizer=optax.sgd(0.1), statistics={},
                            accumulate=count)  # fmt: skip
        found[count] = made.analyse(), made.key
    (whole, operations), (parts, again) = found[1][0], found[4][0]
    assert parts.peak - parts.batch < 0.6 * (whole.peak - whole.batch)
    assert operations == again and found[1][1] != found[4][1]


def test_the_average_counts_as_the_optimizers_memory():
    batch = {"image": np.zeros((8, 6, 6, 3), np.float32), "label": np.zeros(8, np.int32)}
    sizes = []
    for ema in (0.0, 0.9):
        made = AbstractStep(Net(), loss, batch, optimizer=optax.sgd(0.1, momentum=0.9),
                            statistics={}, ema=ema)  # fmt: skip
        sizes.append(made.analyse()[0].optimizer)
    everything = jax.tree.leaves(checkpoints.model_state(Net()))
    assert sizes[1] - sizes[0] == 4 * sum(leaf.size for leaf in everything)


# Bad input


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("margin.optimizer.ema", 1.0, "at least 0 and below 1"),
        ("margin.optimizer.ema", -0.1, "at least 0 and below 1"),
        ("margin.optimizer.accumulate", 0, "1 or more"),
        ("margin.optimizer.accumulate", 3, r"equal parts of config\.method\.margin\.batch_size"),
        ("grouping.warmup.optimizer.accumulate", 4, "divisible by the 4 devices"),
        ("grouping.group_optimizer.accumulate", 4, r"method\.grouping\.warmup\.batch_size = 8"),
    ],
)
def test_impossible_values_are_refused_by_field(tiny_config, field, value, says):
    with pytest.raises(UserError, match=rf"config\.method\.{field} is {value}.*{says}"):
        check(override(tiny_config, {f"method.{field}": value}), devices=4)
    check(override(tiny_config, {"method.margin.optimizer.accumulate": 2}), devices=4)


def test_losses_between_images_need_whole_classes_in_each_part(data_dir):
    config = ccfr_config(data_dir)
    parts = {"method.enhance.optimizer.accumulate": 12}  # 24 images: two each, of one class
    with pytest.raises(UserError, match=r"enhance\.batch_size is 24.*each of its 12 micro-batches"):
        check(override(config, parts), devices=1)
    check(override(config, {"method.enhance.optimizer.accumulate": 6}), devices=1)
    config = hdcl_config(data_dir)
    config.method = dataclasses.replace(config.method, loss="triplet")
    with pytest.raises(UserError, match=r"embedding\.batch_size is 8.*each of its 4 micro-batches"):
        check(override(config, {"method.embedding.optimizer.accumulate": 4}), devices=1)


def test_uneven_batches_are_refused_by_the_loop(tmp_path):
    with pytest.raises(UserError, match="batches of 8 cannot be cut into 3 micro-batches"):
        train(tmp_path, accumulate=3)
