"""Every backbone under every method by shapes, and a step of each modern family in each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import models
from fgjax.methods import hdcl, lapm
from fgjax.methods.ccfr.global_features import GlobalLoss, MultiLevelNetwork
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions, grids_of
from fgjax.methods.ccfr.regions import RegionLoss
from fgjax.methods.ghns.part_networks import PartLoss, PartNetworks
from fgjax.methods.hdcl.method import EmbeddingLoss, EmbeddingNetwork
from fgjax.methods.probe.attention import AttentionHead
from fgjax.methods.probe.method import ProbeNetwork
from fgjax.methods.shared import classifier, objects, parts
from fgjax.methods.shared.embedding import Embed
from tests.models.small import FAMILIES
from tests.models.test_backbones import step

SIZE, CLASSES = 112, 3
SIZES_OF_REGIONS = 448  # two levels divide the last map of every family


def images(size, *shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, size, size, 3)).astype(np.uint8)


def single(count=4, size=SIZE):
    return {"image": images(size, count), "label": np.arange(count, dtype=np.int32) % 2}


def of_lapm(make):
    """The part network with its gates, the margin loss on sets, CAM and SCDA."""
    yield (lambda: parts.PartNetwork(make(), 3, rngs=nnx.Rngs(1))), parts.classify_loss, single()
    sets = {
        "image": images(SIZE, 2, 4), "labels": np.zeros((2, 4, 3), np.int32),
        "weights": np.full((2, 4, 3), 1 / 3, np.float32),
        "is_positive": np.array([1, 0], np.float32), "label": np.array([0, 1], np.int32),
        "index": np.arange(2, dtype=np.int32),
    }  # fmt: skip
    margin = {"m1": jnp.float32(1.0), "sigma": jnp.float32(0.2)}
    loss = lapm.MarginLoss(0.8, 1.0, True, "global", False)
    yield make, functools.partial(_with, loss, dict.fromkeys(lapm.PAIRS, margin)), sets


def of_ghns(make):
    """A network for each part, with the discriminator."""
    batch = {"image": images(SIZE, 4, 2), "labels": np.array([[0, 0], [0, 1], [1, 1], [1, 0]]),
             "is_shuffled": np.array([0, 1, 0, 1], np.float32)}  # fmt: skip
    network = lambda: PartNetworks([make(), make()], rngs=nnx.Rngs(1))  # noqa: E731
    yield network, PartLoss(1.0, 0.8, 1.0, 0.2), batch


def of_hdcl(make):
    """Centres on the sphere."""
    config = hdcl.Config()
    plain = {"loss": "hdcl", "alpha": 100.0, "top_k": 2, "decorrelation": 0.1}
    network = lambda: EmbeddingNetwork(make(), config, rngs=nnx.Rngs(1))  # noqa: E731
    loss = EmbeddingLoss(tuple(plain.items()))
    yield network, functools.partial(_with, loss, {"warm": jnp.array(False)}), single()


def of_ccfr(make):
    """Classes and super-classes; the pyramid, regions and their fusion."""
    network = lambda: MultiLevelNetwork(make(), 2, rngs=nnx.Rngs(1))  # noqa: E731
    yield network, GlobalLoss((0, 0, 1), 1.0), single()

    large = single(size=SIZES_OF_REGIONS)
    yield functools.partial(_with_regions, make), RegionLoss(enhanced=True), large


def _with_regions(make):
    backbone = make()
    backbone.eval()  # only to be asked for its shapes
    grids = grids_of(backbone, SIZES_OF_REGIONS, 2)
    regions = Regions((0.3, 0.6), grids, 1, 1, SIZE, 0.25, True)
    return RegionNetwork(
        backbone, regions, fusion=True, width=8, dtype=jnp.float32, rngs=nnx.Rngs(1)
    )


def of_probe(make):
    """Heads on the frozen feature and on the last map."""

    def looking():
        backbone = make()
        weights = np.zeros((backbone.channels, CLASSES), np.float32)
        head = AttentionHead(weights, np.zeros(CLASSES, np.float32), 2, jax.random.key(0))
        return ProbeNetwork(backbone, head)

    yield looking, classifier.cross_entropy, single()


def _with(loss, statistics, model, batch, _, key):
    return loss(model, batch, statistics, key)


METHODS = {"lapm": of_lapm, "ghns": of_ghns, "hdcl": of_hdcl, "ccfr": of_ccfr, "probe": of_probe}


@functools.cache
def described(name):
    """A network in shapes: of its parts, and of its weights."""
    build = lambda: models.build(name, num_classes=CLASSES, rngs=nnx.Rngs(0))  # noqa: E731
    return nnx.split(nnx.eval_shape(build))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", models.NAMES)
def test_every_method_takes_every_backbone(name, method):
    """Networks and losses by shapes: nothing is computed."""
    graph, weights = described(name)
    cases = list(METHODS[method](None))  # for their batches: none is built
    assert cases
    for number, (_, _, batch) in enumerate(cases):

        def value(batch, weights, number=number):
            merged = lambda: nnx.merge(graph, weights)  # noqa: E731
            build, loss, _ = list(METHODS[method](merged))[number]
            model = build()
            model.train()
            return loss(model, batch, {}, jax.random.key(0))[0]

        shape = jax.eval_shape(value, batch, weights)
        assert shape.shape == () and shape.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
def test_every_backbone_can_be_searched_with(name):
    graph, weights = described(name)

    def searched(images, weights):
        model = nnx.merge(graph, weights)
        model.eval()
        batch = {"image": images, "label": jnp.zeros(2, jnp.int32)}
        maps = objects.activation_maps(model, batch)
        return maps, [Embed(salient)(model, batch)["embedding"] for salient in (False, True)]

    maps, found = jax.eval_shape(searched, images(SIZE, 2), weights)
    assert len({one.shape for one in maps.values()}) == 1 and all(
        one.shape[0] == 2 for one in found
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_with_every_modern_family(method, name):
    """Gradients are finite and not zero, and classification gets better along them."""
    make = lambda: models.build(name, num_classes=CLASSES, rngs=nnx.Rngs(0))  # noqa: E731
    for build, loss, batch in METHODS[method](make):
        before, after = step(nnx.jit(build)(), loss, batch, {})
        assert after < before
