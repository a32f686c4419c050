"""Rates that fall from block to block: hand-computed factors, also beside frozen maps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fgjax import models
from fgjax.config import Optimizer, Training, override
from fgjax.errors import UserError
from fgjax.methods.ghns.part_networks import PartNetworks
from fgjax.models import layers
from fgjax.models.backbone import Backbone
from fgjax.training import freezing, layer_decay, network_check
from fgjax.training.run import Run
from tests import tiny
from tests.models.small import FAMILIES


def build(name):
    return nnx.eval_shape(lambda: models.build(name, num_classes=3, rngs=nnx.Rngs(0)))


def depths(name):
    found = layer_decay.depths(build(name))
    return {".".join(map(str, path)): depth for path, depth in found.items()}


def test_a_transformers_blocks_are_counted_from_the_top():
    """As BEiT counts them: 12 blocks, the embeddings below, the last norm with the head."""
    wanted = {"embeddings": 13} | {f"blocks.{n}": 12 - n for n in range(12)}
    assert depths("dinov2_vits14_reg") == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet_small", {"conv1": 6, "bn1": 6, "stages.0.0": 5, "stages.1.0": 4, "stages.1.1": 3,
                          "stages.2.0": 2, "stages.2.1": 1}),
        ("tests.tiny:Net", {"conv1": 3, "norms.0": 3, "conv2": 2, "norms.1": 2, "conv3": 1,
                            "norms.2": 1}),
        (FAMILIES["convnext"], {
            "stem": 9, "stem_norm": 9, "stages.0.0": 8, "downsamplings.0": 7, "stages.1.0": 6,
            "downsamplings.1": 5, "stages.2.0": 4, "stages.2.1": 3, "downsamplings.2": 2,
            "stages.3.0": 1}),
    ],
)  # fmt: skip
def test_blocks_of_convolutional_networks(name, wanted):
    assert depths(name) == wanted


def test_in_efficientnet_the_heads_convolution_stands_above_the_blocks():
    found = depths("efficientnet_b0")
    assert found == {"conv_stem": 17, "bn0": 17} | {f"blocks.{n}": 16 - n for n in range(16)}


def updates_of(model, trainable=nnx.Param, *, decay=0.5, optimizer=None):
    """What gradients of one make of every parameter after a chain with `scale`."""
    values = nnx.to_pure_dict(nnx.state(model, trainable))
    chain = optax.chain(optimizer or optax.sgd(1.0), layer_decay.scale(model, decay))
    ones = jax.tree.map(jnp.ones_like, values)
    found, _ = chain.update(ones, chain.init(values), values)
    return found


def test_updates_are_scaled_by_hand_computed_factors():
    model = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    found = updates_of(model)
    for name, factor in (("conv1", 1 / 8), ("conv2", 1 / 4), ("conv3", 1 / 2), ("fc", 1)):
        np.testing.assert_allclose(found[name]["kernel"], -factor, rtol=1e-6)
    for number, factor in enumerate((1 / 8, 1 / 4, 1 / 2)):
        np.testing.assert_allclose(found["norms"][number]["scale"], -factor, rtol=1e-6)


def test_weight_decay_and_adams_step_are_scaled_with_the_rate():
    model = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("standard"):
        plain = updates_of(model, decay=1.0, optimizer=optax.adamw(0.1, weight_decay=0.2))
        found = updates_of(model, decay=0.5, optimizer=optax.adamw(0.1, weight_decay=0.2))
    np.testing.assert_allclose(found["conv1"]["kernel"], plain["conv1"]["kernel"] / 8, rtol=1e-5)
    np.testing.assert_allclose(found["fc"]["kernel"], plain["fc"]["kernel"], rtol=1e-5)


def test_every_backbone_of_a_network_and_nothing_else():
    one, two = (models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(n)) for n in (0, 1))
    network = PartNetworks([one, two], rngs=nnx.Rngs(2))
    found = updates_of(network)
    for part in (0, 1):
        np.testing.assert_allclose(found["backbones"][part]["conv1"]["kernel"], -1 / 8, rtol=1e-6)
    np.testing.assert_allclose(found["discriminator"]["kernel"], -1, rtol=1e-6)


def test_it_goes_with_frozen_maps():
    model = models.build("tests.tiny:Net", num_classes=3, rngs=nnx.Rngs(0))
    found = updates_of(model, freezing.unfrozen(model, nnx.Param, "stage1"))
    assert "conv1" not in found
    np.testing.assert_allclose(found["conv2"]["kernel"], -1 / 4, rtol=1e-6)


@pytest.mark.parametrize(("decay", "factor"), [(0.5, 1 / 8), (1.0, 1.0)])
def test_a_run_trains_with_it(decay, factor, tiny_config, tiny_dataset, tmp_path, monkeypatch):
    run, found = Run(tiny_config, tiny_dataset, tmp_path), {}
    monkeypatch.setattr(run, "_fit", lambda model, loss, batches, **options: found.update(options))
    optimizer = Optimizer(learning_rate=1.0, momentum=0, weight_decay=0, layer_decay=decay)
    stage, model = run.stage("some"), run.build_model()
    run.train(stage, model, None, [0], Training(1, 8, optimizer))
    values = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    made = found["optimizer"]
    updates, _ = made.update(jax.tree.map(jnp.ones_like, values), made.init(values), values)
    np.testing.assert_allclose(updates["conv1"]["kernel"], -factor, rtol=1e-6)
    np.testing.assert_allclose(updates["fc"]["kernel"], -1, rtol=1e-6)


class Nameless(Backbone):
    """A backbone that says nothing of its maps."""

    def __init__(self, options, *, rngs):
        super().__init__(4, options, rngs=rngs)
        self.conv = layers.Conv(3, 4, 3, stride=8, rngs=rngs)

    def __call__(self, images, *, key=None):
        """One map."""
        return self.classify({"features": self.conv(self.normalize(images))}, key)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"method.margin.optimizer.layer_decay": 0.7},
            r"layer_decay goes by the blocks .*Nameless",
        ),
        ({}, r"returns no map .*needs one for objects=scda and parts=grouping"),
    ],
)
def test_a_backbone_without_maps_is_refused(tiny_config, changes, says):
    name = f"{__name__}:Nameless"
    with pytest.raises(UserError, match=says):
        network_check.check(override(tiny_config, {"backbone": name, **changes}))


def test_what_wants_no_map_takes_it(data_dir):
    config = override(tiny.hdcl_config(data_dir), {"backbone": f"{__name__}:Nameless"})
    network_check.check(config)
    with pytest.raises(UserError, match="needs one for loss=scda"):
        network_check.check(override(config, {"method.loss": "scda"}))
