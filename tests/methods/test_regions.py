"""The pyramid: its order of scores, its top-down path, and regions chosen against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import config_files, models
from fgjax.config import check, override
from fgjax.errors import UserError
from fgjax.methods import ccfr
from fgjax.methods.ccfr.pyramid import Pyramid
from fgjax.methods.ccfr.region_network import RegionNetwork, Regions, grids_of
from fgjax.models import layers
from tests.localization.test_regions import by_loops

GRIDS, SCALES = (8, 4), (96 / 448, 192 / 448)


def regions(**changes):
    values = {"scales": SCALES, "grids": GRIDS, "per_scale": 2, "ranked_per_scale": 3,
              "crop_size": 16, "iou_threshold": 0.25, "scale_separated": True}  # fmt: skip
    return Regions(**{**values, **changes})


def compiled(model, **options):
    """The module as one program: operation by operation, each would be compiled by itself."""
    graph, state = nnx.split(model)
    program = jax.jit(lambda state, images: nnx.merge(graph, state)(images, **options))
    return lambda images: program(state, images)


def test_scores_stand_where_their_anchors_do():
    """The score of an anchor depends on the map around its centre most of all."""
    pyramid = compiled(Pyramid((3,), 2, width=8, rngs=nnx.Rngs(0)))
    maps = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    scores = pyramid([maps])
    anchors = regions().boxes
    assert scores.shape == (1, len(anchors)) == (1, 64 + 16)
    assert scores.dtype == jnp.float32
    for row, column in ((0, 0), (2, 5), (7, 1)):
        changed = pyramid([maps.at[0, row, column].add(5.0)])
        moved = np.abs(np.asarray(changed - scores)[0])
        place = (np.array([row, column]) + 0.5) / 8
        for level, cells in ((moved[:64], 8), (moved[64:], 4)):
            # Reach: 3×3 and, for the coarse level, 3×3 of stride 2 before another 3×3.
            centers = (np.stack(np.mgrid[:cells, :cells], -1).reshape(-1, 2) + 0.5) / cells
            far = np.abs(centers - place).max(axis=1) > 4.5 / cells + 1 / 8
            assert level.max() > 0 and (level[far] == 0).all()


def test_the_coarse_level_reaches_the_fine_scores_and_not_the_other_way():
    pyramid = Pyramid((3,), 2, width=8, rngs=nnx.Rngs(0))
    maps = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))

    graph, params = nnx.split(pyramid)

    @jax.jit
    def gradients(params):
        scores, back = jax.vjp(lambda p: nnx.merge(graph, p)([maps]), params)
        weights = jnp.arange(scores.shape[1]) < 64
        pick = lambda chosen: jnp.broadcast_to(chosen.astype(scores.dtype), scores.shape)  # noqa: E731
        return {"fine": back(pick(weights))[0], "coarse": back(pick(~weights))[0]}

    found = gradients(params)

    def share(part, level):
        return float(np.abs(found[level][part][0]["kernel"][...]).sum())

    fine, coarse = "fine", "coarse"
    assert share("coarser", fine) > 0 and share("coarser", coarse) > 0
    assert share("lateral", fine) > 0 and share("lateral", coarse) == 0


@pytest.mark.parametrize("scale_separated", [True, False])
def test_regions_are_the_best_of_each_scale_or_of_all(scale_separated):
    chooser = regions(scale_separated=scale_separated)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 80)).astype(np.float32)
    scores[:, 64:] += 1  # large boxes are liked
    found = np.asarray(jax.jit(lambda s: chooser.select(s, each=3))(scores))
    for row, chosen in zip(scores, found):
        if scale_separated:
            wanted = by_loops(chooser.boxes[:64], row[:64], 0.25, 3)[0]
            wanted += [64 + i for i in by_loops(chooser.boxes[64:], row[64:], 0.25, 3)[0]]
        else:
            wanted = by_loops(chooser.boxes, row, 0.25, 6)[0]
        assert chosen.tolist() == wanted
    fused = np.asarray(chooser.select(jnp.asarray(scores), each=2))
    np.testing.assert_array_equal(found[:, chooser.fused(3)], fused)
    assert chooser.fused(2).tolist() == [0, 1, 2, 3]


def test_regions_on_a_grid_are_spread_evenly_and_the_same_for_all():
    chooser = regions(source="grid", ranked_per_scale=4, per_scale=4)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    liked = chooser.liked(jnp.asarray(images), jnp.zeros((2, 80)))
    chosen = np.asarray(chooser.select(liked, each=4))
    np.testing.assert_array_equal(chosen[0], chosen[1])
    centers = (chooser.boxes[chosen[0], :2] + chooser.boxes[chosen[0], 2:]) / 2
    quarters = [(y > 0.5, x > 0.5) for y, x in centers]
    assert len(set(quarters[:4])) == 4 and set(quarters[:4]) <= set(quarters)


def test_annotated_regions_stand_at_the_parts_in_their_order():
    """The first two parts are fused, in each scale; two parts at one place are one region."""
    chooser = regions(source="annotated", per_scale=2, ranked_per_scale=3)
    centers = np.array([[[0.2, 0.3], [0.8, 0.7], [0.3, 0.8]], [[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]])
    parts = np.concatenate([centers - 0.05, centers + 0.05], axis=-1).astype(np.float32)
    images = jnp.zeros((2, 64, 64, 3))
    liked = chooser.liked(images, jnp.zeros((2, 80)), jnp.asarray(parts))
    chosen = np.asarray(chooser.select(liked, each=3))
    found = (chooser.boxes[chosen][..., :2] + chooser.boxes[chosen][..., 2:]) / 2
    for scale, cells in enumerate((8, 4)):
        own = found[0, 3 * scale : 3 * scale + 3]
        assert np.abs(own - centers[0]).max() <= 0.5 / cells + 1e-6, "the nearest cell of each"
    assert np.abs(found[1, 0] - [0.5, 0.5]).max() <= 1 / 16
    assert np.abs(found[1, 1] - [0.1, 0.9]).max() <= 1 / 16
    with pytest.raises(ValueError, match="need the parts"):
        chooser.liked(images, jnp.zeros((2, 80)))


def test_a_pyramid_may_stand_on_two_maps():
    """Then both of its levels see a map of their own, and nothing makes the coarser one."""
    pyramid = Pyramid((3, 5), 2, width=8, rngs=nnx.Rngs(0))
    assert not len(pyramid.coarser)
    fine = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    coarse = jax.random.normal(jax.random.key(1), (1, 4, 4, 5))
    scores = np.asarray(pyramid([fine, coarse]))
    assert scores.shape == (1, 80)
    other = np.asarray(pyramid([fine + 1, coarse]))
    np.testing.assert_array_equal(other[:, 64:], scores[:, 64:])  # top-down alone
    assert (other[:, :64] != scores[:, :64]).any()


@pytest.mark.parametrize(
    ("name", "last_stride", "sides"),
    [("resnet18", 2, (14, 7)), ("resnet18", 1, (28, 14)), ("resnet_small", 2, (56, 28))],
)
def test_two_maps_are_the_last_of_their_size(name, last_stride, sides):
    """Stages may share a size: stages 3 and 4 of stride 1, or the small network's last two."""
    backbone = nnx.eval_shape(
        lambda: models.build(name, num_classes=2, last_stride=last_stride, rngs=nnx.Rngs(0))
    )
    assert grids_of(backbone, 224, 2, maps=2) == sides


@pytest.mark.parametrize(
    ("name", "said"), [("dinov2_vits14", "have 16 "), ("inception_v3", "12 and 5")]
)
def test_two_maps_must_be_a_pyramid(name, said):
    backbone = nnx.eval_shape(lambda: models.build(name, num_classes=2, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match=f"{said}.*there must be 2.*pyramid_maps=1"):
        grids_of(backbone, 224, 2, maps=2)


def test_random_regions_are_an_images_own_whatever_batch_it_is_in():
    chooser = regions(source="random")
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    pick = lambda some: np.asarray(  # noqa: E731
        chooser.select(chooser.liked(jnp.asarray(some), jnp.zeros((len(some), 80))), each=2)
    )
    chosen = pick(images)
    assert len({tuple(row) for row in chosen}) == 6
    np.testing.assert_array_equal(pick(images[4:5])[0], chosen[4])
    np.testing.assert_array_equal(pick(images.astype(np.float32)), chosen)
    many = pick(np.random.default_rng(1).integers(0, 256, (400, 8, 8, 3)).astype(np.uint8))
    counts = np.bincount(many[:, 0], minlength=64)[:64]
    assert counts.max() < 25 and (counts > 0).sum() > 50  # no place is liked


def test_learned_regions_go_by_their_scores():
    scores = jax.random.normal(jax.random.key(0), (2, 80))
    assert regions().liked(jnp.zeros((2, 8, 8, 3)), scores) is scores
    with pytest.raises(UserError, match="boxes"):
        check(override(config_files.load("cub:ccfr,small"), {"method.boxes": "anywhere"}), 1)


@pytest.fixture(scope="module")
def network():
    backbone = models.build("resnet_small", num_classes=5, rngs=nnx.Rngs(0))
    model = RegionNetwork(
        backbone, regions(), fusion=True, width=8, dtype=jnp.float32, rngs=nnx.Rngs(1)
    )
    model.eval()
    return model


def test_fusing_is_a_convolution_over_stacked_maps_and_an_average(network):
    maps = jax.random.normal(jax.random.key(2), (3, 4, 2, 2, 96))
    found = network._local(maps, jnp.zeros((3, 4, 96)))
    wanted = []
    for scale, layer in enumerate(network.fusion):
        pair = maps[:, 2 * scale : 2 * scale + 2]  # [B, 2, h, w, C]: channels side by side
        stacked = jnp.concatenate([pair[:, 0], pair[:, 1]], axis=-1)
        convolved = jnp.einsum("bhwc,cd->bhwd", stacked, layer.kernel[...]) + layer.bias[...]
        wanted.append(layers.global_average_pool(convolved))
    np.testing.assert_allclose(found, jnp.concatenate(wanted, -1), rtol=1e-3, atol=1e-4)


def test_fusing_may_have_batch_norm_and_relu_before_the_average():
    backbone = models.build("resnet_small", num_classes=5, rngs=nnx.Rngs(0))
    model = RegionNetwork(
        backbone, regions(), fusion=True, fusion_norm=True, width=8, dtype=jnp.float32,
        rngs=nnx.Rngs(1),
    )  # fmt: skip
    maps = jax.random.normal(jax.random.key(2), (3, 4, 2, 3, 96))
    found = model._local(maps, jnp.zeros((3, 4, 96)))
    wanted = []
    for scale, layer in enumerate(model.fusion):
        pair = np.asarray(maps[:, 2 * scale : 2 * scale + 2], np.float64)
        stacked = np.concatenate([pair[:, 0], pair[:, 1]], axis=-1)
        y = stacked @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
        wanted.append(np.maximum(y, 0).mean(axis=(1, 2)))
    np.testing.assert_allclose(found, np.concatenate(wanted, -1), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="False without fusion"):
        ccfr.Config(fusion=False, fusion_norm=True).validate()


def test_the_outputs_and_what_is_ranked(network):
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    plain, ranked = compiled(network)(images), compiled(network, ranked=True)(images)
    assert plain["boxes"].shape == (2, 4, 4) and ranked["boxes"].shape == (2, 6, 4)
    assert plain["part_logits"].shape == (2, 4, 5) and plain["features"].shape == (2, 3 * 96)
    np.testing.assert_array_equal(ranked["boxes"][:, [0, 1, 3, 4]], plain["boxes"])
    np.testing.assert_allclose(ranked["logits"], plain["logits"], rtol=1e-3, atol=1e-4)
    alone = compiled(network.backbone)(images)
    np.testing.assert_allclose(plain["features"][:, 192:], alone["pooled"], rtol=1e-4, atol=1e-5)
    sides = np.asarray(plain["boxes"])[..., 2:] - np.asarray(plain["boxes"])[..., :2]
    np.testing.assert_allclose(sides[:, :2], SCALES[0], rtol=1e-5)
    np.testing.assert_allclose(sides[:, 2:], SCALES[1], rtol=1e-5)


def test_without_fusion_the_pooled_features_stand_side_by_side():
    backbone = models.build("resnet_small", num_classes=5, rngs=nnx.Rngs(0))
    model = RegionNetwork(
        backbone, regions(scale_separated=False), fusion=False, width=8, dtype=jnp.float32,
        rngs=nnx.Rngs(1),
    )  # fmt: skip
    model.eval()
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    outputs = compiled(model)(images)
    assert outputs["features"].shape == (1, 5 * 96)
    logits = outputs["part_logits"][0, 1]
    again = model.part_fc(outputs["features"][0, 96:192])
    np.testing.assert_allclose(logits, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "grids"),
    [("resnet_small", 96, (12, 6)), ("resnet18", 448, (14, 7)), ("vgg16", 448, (14, 7))],
)
def test_grids_follow_the_backbone(name, size, grids):
    backbone = nnx.eval_shape(lambda: models.build(name, num_classes=2, rngs=nnx.Rngs(0)))
    assert grids_of(backbone, size, 2) == grids


@pytest.mark.parametrize("size", [100, 104, 90])
def test_sizes_that_the_pyramid_does_not_divide_are_refused(size):
    backbone = nnx.eval_shape(lambda: models.build("resnet_small", num_classes=2, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match=rf"{size}.*multiple of 16, such as (96|80) or"):
        grids_of(backbone, size, 2)


def test_x_begins_as_the_images_classifier(network):
    model = nnx.clone(network)
    images = jax.random.normal(jax.random.key(3), (2, 64, 64, 3)) * 255
    before = compiled(model)(images)
    assert not np.allclose(before["logits"], before["global_logits"], atol=1e-2)
    model.start_at_image()
    after = compiled(model)(images)
    np.testing.assert_array_equal(after["logits"], after["global_logits"])
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def gradient(params):
        loss = lambda p: jnp.sum(nnx.merge(graph, p, rest, copy=True)(images)["logits"][:, 0])  # noqa: E731
        return jax.grad(loss)(params)

    # Regions add nothing yet, but they can: their half of the classifier has a gradient.
    assert np.abs(gradient(params)["fc"]["kernel"][...][:192]).max() > 0


def test_a_region_begins_with_the_images_classifier(network):
    np.testing.assert_array_equal(network.part_fc.kernel[...], network.backbone.fc.kernel[...])


@pytest.mark.parametrize("explore", [True, False])
def test_random_regions_do_not_train_the_extractor(network, explore):
    images = jax.random.normal(jax.random.key(3), (2, 64, 64, 3)) * 255
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    @jax.jit
    def gradient(params):
        def loss(p):
            outputs = nnx.merge(graph, p, rest, copy=True)(
                images, key=jax.random.key(0), ranked=True, explore=jnp.asarray(explore)
            )
            return jnp.sum(jnp.square(outputs["part_logits"]))

        return jax.grad(loss)(params)

    found = gradient(params)
    assert np.any(found["part_fc"]["kernel"][...])
    assert np.any(found["backbone"]["conv1"]["kernel"][...]) != explore
