"""The options that every family takes, and that every network trains a step in every stage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax import models
from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.methods import lapm
from fgjax.methods.shared import classifier, objects, parts
from fgjax.models import layers
from fgjax.training import fit
from tests.models import golden


def shapes(name, size, **options):
    def run():
        model = models.build(name, num_classes=7, rngs=nnx.Rngs(0), **options)
        model.eval()
        return model(jnp.zeros((2, size, size, 3)))

    return {k: v.shape for k, v in jax.eval_shape(run).items()}


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [("resnet18", 224, 512), ("resnet101", 224, 2048), ("vgg16", 224, 512), ("vgg19_bn", 224, 512),
     pytest.param("densenet161", 224, 2208, marks=pytest.mark.slow), ("inception_v3", 299, 2048),
     ("efficientnet_lite0", 224, 1280), ("efficientnet_lite1", 224, 1280),
     ("efficientnet_lite2", 210, 1280), ("efficientnet_b0", 224, 1280),
     ("convnext_tiny", 224, 768), ("convnext_base", 224, 1024)],
)  # fmt: skip
def test_strides_and_pooling(name, size, width):
    stage = "stage5" if name.startswith("vgg") else "stage3" if "inc" in name else "stage4"
    deep, wide = (8, 17) if "inception" in name else (7, 14)
    plain = shapes(name, size)
    assert plain[stage] == (2, deep, deep, width)
    assert plain["pooled"] == (2, width) and plain["logits"] == (2, 7)
    other = shapes(name, size, last_stride=1, pooling="max_average")
    assert other[stage] == (2, wide, wide, width)
    assert other["pooled"] == (2, 2 * width)


def test_hdcls_map_is_18_by_18_at_280():
    assert shapes("resnet50", 280, last_stride=1)["stage4"][1:3] == (18, 18)


def test_pooling_puts_the_maximum_first():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32))
    found = models.pool(x, "max_average")
    np.testing.assert_allclose(found[:, :5], np.max(x, axis=(1, 2)))
    np.testing.assert_allclose(found[:, 5:], np.mean(x, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(models.pool(x, "max"), found[:, :5])


def test_dropout_drops_in_training_alone():
    drop = layers.Dropout(0.25)
    x = jnp.ones((100, 100))
    found = np.asarray(drop(x, jax.random.key(0)))
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="needs a key"):
        drop(x, None)
    drop.eval()
    np.testing.assert_array_equal(drop(x, None), x)


def test_dropout_follows_the_part_that_trains():
    """FilterNet's frozen extractors must not drop anything while their head learns."""
    model = models.build("resnet_small", num_classes=3, rngs=nnx.Rngs(0), dropout=0.5)
    fit.set_mode(model, nnx.Param)
    assert not model.dropout.deterministic and not model.bn1.use_running_average
    fit.set_mode(model, nnx.All(nnx.Param, nnx.PathContains("nowhere")))
    assert model.dropout.deterministic and model.bn1.use_running_average


@pytest.mark.parametrize(
    ("options", "says"),
    [({"last_stride": 4}, "last_stride is 4"), ({"pooling": "sum"}, "one of average, max"),
     ({"dropout": 1.0}, "in [0, 1)"), ({"head": "none"}, "one of linear, original")],
)  # fmt: skip
def test_impossible_options(options, says):
    with pytest.raises(UserError) as caught:
        models.build("resnet_small", num_classes=3, rngs=nnx.Rngs(0), **options)
    assert says in str(caught.value)


@pytest.mark.parametrize("field", ["last_stride", "pooling", "dropout"])
def test_impossible_fields(tiny_config, field):
    with pytest.raises(UserError, match=field):
        check(override(tiny_config, {field: 3 if field != "pooling" else "sum"}), devices=1)


def step(model, loss, batch, statistics=None):
    """One update by gradient descent; returns the loss before and after."""
    fit.set_mode(model, nnx.Param)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @functools.partial(jax.jit, compiler_options=golden.QUICK)
    @jax.value_and_grad
    def objective(params):
        merged = nnx.merge(graph, params, rest, copy=True)
        return loss(merged, batch, statistics, jax.random.key(0))[0]

    before, gradient = objective(params)
    size = optax.global_norm(gradient)
    after, _ = objective(jax.tree.map(lambda p, g: p - 1e-3 / size * g, params, gradient))
    assert np.isfinite([before, size, after]).all() and size > 0
    return float(before), float(after)


def images(size, *shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    ["resnet_small", "vgg16", "resnet50", "efficientnet_lite0"],
)
@pytest.mark.slow
def test_lapm_steps_with_its_backbones(name):
    """Classifier, localization, part network and margin loss, one step each."""
    size = 64
    rng = np.random.default_rng(1)
    model = models.build(name, num_classes=3, rngs=nnx.Rngs(0), dropout=0.1)
    single = {"image": images(size, 4), "label": np.array([0, 1, 2, 0], np.int32)}
    before, after = step(model, classifier.cross_entropy, single)
    assert after < before
    network = parts.PartNetwork(model, 3, rngs=nnx.Rngs(1))
    before, after = step(network, parts.classify_loss, single)
    assert after < before
    step(network, parts.GroupLoss(2.0, 0.02), single)
    sets = {
        "image": images(size, 2, 4), "labels": rng.integers(0, 3, (2, 4, 3)).astype(np.int32),
        "weights": rng.dirichlet(np.ones(3), (2, 4)).astype(np.float32),
        "is_positive": np.array([1, 0], np.float32), "label": np.array([0, 1], np.int32),
        "index": np.arange(2, dtype=np.int32),
    }  # fmt: skip
    margin = {"m1": jnp.float32(1.0), "sigma": jnp.float32(0.2)}
    loss = lapm.MarginLoss(0.8, 1.0, True, "global", False)
    before, after = step(model, loss, sets, dict.fromkeys(lapm.PAIRS, margin))
    assert after < before
    model.eval()
    maps = objects.activation_maps(model, single)
    side = size // (8 if name == "resnet_small" else 32)
    assert maps["true"].shape == maps["sum"].shape == (4, side, side)


def test_cam_of_a_concatenated_head_uses_the_averages_half():
    model = models.build("resnet_small", num_classes=3, rngs=nnx.Rngs(0), pooling="max_average")
    model.eval()
    batch = {"image": images(32, 2), "label": np.array([0, 1], np.int32)}
    maps = objects.activation_maps(model, batch)
    outputs = model(batch["image"])
    weights = np.asarray(model.fc.kernel[...])
    half = outputs["stage3"][0] @ weights[96:, 0]
    np.testing.assert_allclose(maps["true"][0], half, rtol=1e-3, atol=1e-4)
    # What the map adds up to is the average's share of the logit.
    full = outputs["pooled"][0] @ weights[:, 0] + model.fc.bias[...][0]
    assert float(full) == pytest.approx(float(outputs["logits"][0, 0]), rel=1e-4)
