"""CCFR's network: global features, regions found on the device, and both fused (section 3.2)."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.errors import UserError
from fgjax.localization import anchors, crop_and_resize, nms
from fgjax.methods.ccfr.pyramid import Pyramid
from fgjax.models import layers


@dataclasses.dataclass(frozen=True)
class Regions:
    """Which regions are looked at.

    Attributes:
      scales: sides of the boxes as shares of the image, one for each level of the pyramid.
      grids: cells of each level along a side.
      per_scale: regions of each scale that are fused.
      ranked_per_scale: regions of each scale that the ranking loss compares; the fused ones first.
      crop_size: pixels that a region is resized to.
      iou_threshold: of the suppression.
      scale_separated: suppress each scale by itself; otherwise all boxes at once, as NTS-Net.
      source: "learned", by their scores; "random", by numbers that an image's pixels seed; "grid",
        near evenly spaced places, the same for all images; "annotated", near given parts.
    """

    scales: tuple[float, ...]
    grids: tuple[int, ...]
    per_scale: int
    ranked_per_scale: int
    crop_size: int
    iou_threshold: float
    scale_separated: bool
    source: str = "learned"

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """All anchors [A, 4]."""
        return anchors(self.grids, self.scales)

    def count(self, each: int) -> int:
        """Regions in all, when each scale gives `each`."""
        return each * len(self.scales)

    def liked(
        self, images: jax.Array, scores: jax.Array, parts: jax.Array | None = None
    ) -> jax.Array:
        """What stands for the scores [B, A] of images [B, S, S, 3] by `source`.

        `parts` are boxes [B, P, 4], for "annotated" alone.
        """
        if self.source == "learned":
            return scores
        if self.source == "annotated":
            if parts is None:
                raise ValueError("regions near annotated parts need the parts.")
            return jax.vmap(self._near)((parts[..., :2] + parts[..., 2:]) / 2)
        if self.source == "grid":
            each, side = self.ranked_per_scale, int(np.ceil(np.sqrt(self.ranked_per_scale)))
            places = (np.argwhere(np.ones((side, side)))[:each] + 0.5) / side
            return jnp.broadcast_to(self._near(jnp.asarray(places, jnp.float32)), scores.shape)
        # By whole numbers: a sum of floats would depend on the size of the batch.
        seeds = jnp.sum(images.astype(jnp.int32), axis=(1, 2, 3)).astype(jnp.uint32)
        draw = lambda seed: jax.random.uniform(jax.random.key(seed), scores.shape[1:])  # noqa: E731
        return jax.vmap(draw)(seeds)

    def _near(self, places: jax.Array) -> jax.Array:
        """[A]: in each scale the anchors at places [P, 2] in their order, then those near any."""
        liked, low = [], 0
        for grid in self.grids:
            boxes = self.boxes[low : low + grid**2]
            centers = jnp.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)
            away = jnp.linalg.norm(centers[:, None] - places[None], axis=-1)
            first = -jnp.arange(len(places)) / len(places)
            liked.append((-1 - away.min(axis=1)).at[away.argmin(axis=0)].max(first))
            low += grid**2
        return jnp.concatenate(liked)

    def select(self, scores: jax.Array, *, each: int) -> jax.Array:
        """Indices int32 [B, R] of the chosen anchors by scores [B, A], scale after scale."""
        borders = np.cumsum([0, *(grid**2 for grid in self.grids)])
        groups = [(0, int(borders[-1]), self.count(each))]
        if self.scale_separated:
            groups = [(low, high, each) for low, high in itertools.pairwise(borders.tolist())]

        def of_one(row: jax.Array) -> jax.Array:
            chosen = [
                nms(self.boxes[low:high], row[low:high], iou_threshold=self.iou_threshold,
                    count=count)[0] + jnp.int32(low)
                for low, high, count in groups
            ]  # fmt: skip
            return jnp.concatenate(chosen)

        return jax.vmap(of_one)(jax.lax.stop_gradient(scores))

    def fused(self, each: int) -> np.ndarray:
        """Which of the selected regions are fused: the best of each group."""
        groups = len(self.scales) if self.scale_separated else 1
        size, wanted = self.count(each) // groups, self.count(self.per_scale) // groups
        return (np.arange(groups)[:, None] * size + np.arange(wanted)).ravel()


def shapes_of(backbone: models.Backbone, image_size: int, maps: int) -> list[tuple[int, ...]]:
    """Shapes (1, H, W, C) of a backbone's last `maps` maps of different sizes, the deepest last."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    graph, state = nnx.split(backbone)

    def of_maps(state, image):
        model = nnx.merge(graph, state)
        model.eval()  # dropout would ask for a key
        return models.last_maps(model(image), maps)

    return [one.shape for one in jax.eval_shape(of_maps, state, image)]


def grids_of(
    backbone: models.Backbone, image_size: int, levels: int, *, maps: int = 1
) -> tuple[int, ...]:
    """Cells of each level of the pyramid on a backbone's last `maps` maps of different sizes.

    Raises:
      UserError: the pyramid's levels do not divide the image; names the sizes that they would. Or
        the maps are not each half as large as the one before.
    """
    sides = [shape[1] for shape in shapes_of(backbone, image_size, maps)]
    halves = all(fine == 2 * coarse for fine, coarse in itertools.pairwise(sides))
    if len(sides) < maps or not halves:
        raise UserError(
            f"config.method.pyramid_maps is {maps}, but the backbone's maps have "
            f"{' and '.join(map(str, sides))} cells along a side, and there must be {maps}, each "
            "with half of the cells of the one before: set pyramid_maps=1."
        )
    side, levels = sides[-1], levels - maps + 1
    stride = 2 ** round(np.log2(image_size / side)) if backbone.patch == 1 else backbone.patch
    unit = stride * 2 ** (levels - 1)
    padded = side == -(-image_size // stride)  # otherwise (Inception) cells are not whole pixels
    if side % 2 ** (levels - 1) or (padded and image_size % unit):
        low = max(image_size // unit, 1) * unit
        raise UserError(
            f"config.data.image_size is {image_size}, which the pyramid's {levels} levels do not "
            f"divide (the last map is {side} × {side}): choose a multiple of {unit}, such as "
            f"{low} or {low + unit}."
        )
    return (*sides[:-1], *(side // 2**level for level in range(levels)))


class RegionNetwork(nnx.Module):
    """A shared extractor of image and regions, the pyramid that proposes them, and the fusion.

    Called on pixels [B, S, S, 3] in [0, 255], it returns
      scores [B, A] of all anchors;
      boxes [B, R, 4] and proposed [B, R], the selected regions and their scores;
      global_logits [B, C] of the image, part_logits [B, R, C] of each region;
      part_features [B, R, D] of each region;
      features [B, D], fused regions and image side by side: the paper's x;
      logits [B, C] of the features.
    """

    def __init__(
        self,
        backbone: models.Backbone,
        regions: Regions,
        *,
        fusion: bool,
        fusion_norm: bool = False,
        width: int,
        dtype,
        map_channels: tuple[int, ...] = (),
        rngs: nnx.Rngs,
    ):
        """Around a backbone; `map_channels` of the maps under the pyramid, by default the last."""
        self.backbone, self.regions = backbone, regions
        map_channels = map_channels or (backbone.channels,)
        self.maps = len(map_channels)
        levels, channels, classes = len(regions.scales), backbone.channels, backbone.num_classes
        self.pyramid = Pyramid(map_channels, levels, width=width, dtype=dtype, rngs=rngs)
        self.part_fc = layers.Linear(backbone.features, classes, rngs=rngs)
        self.part_fc.kernel[...] = backbone.fc.kernel[...]  # a region is an image, too
        self.part_fc.bias[...] = backbone.fc.bias[...]
        self.fusion, self.fusion_norms = nnx.List([]), nnx.List([])
        local = regions.count(regions.per_scale) * backbone.features
        if fusion:
            local = levels * channels
            self.fusion = nnx.List(
                [layers.Linear(regions.per_scale * channels, channels, rngs=rngs)
                 for _ in range(levels)]
            )  # fmt: skip
            norms = [layers.BatchNorm(channels) for _ in range(levels * fusion_norm)]
            self.fusion_norms = nnx.List(norms)
        self.fc = layers.Linear(local + backbone.features, classes, rngs=rngs)
        self.region_statistics = nnx.List(
            [nnx.BatchStat(jnp.array(value[...])) for value in _running(backbone)]
        )

    def __call__(
        self,
        images: jax.Array,
        *,
        key: jax.Array | None = None,
        ranked: bool = False,
        explore: jax.Array | None = None,
        parts: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """See the class.

        With `ranked` all regions of the ranking loss are looked at; where `explore` (bool) holds
        they are drawn at random, with `key`, and not by their scores; such regions train their own
        classifier and not the extractor. `parts` [B, P, 4] are for annotated regions.
        """
        regions, batch = self.regions, images.shape[0]
        each = regions.ranked_per_scale if ranked else regions.per_scale
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        outputs = self.backbone(images, key=keys[0])
        # NTS-Net: proposals do not train the extractor.
        scores = self.pyramid(jax.lax.stop_gradient(models.last_maps(outputs, self.maps)))
        liked = regions.liked(images, scores, parts)
        if explore is not None:
            drawn = keys[2]
            if drawn is None:
                raise ValueError("regions are drawn with a key, but none was given.")
            liked = jnp.where(explore, jax.random.uniform(drawn, scores.shape), liked)
        chosen = regions.select(liked, each=each)
        boxes = jnp.asarray(regions.boxes)[chosen]
        crops = crop_and_resize(layers.widened(images), boxes, size=regions.crop_size)
        self._exchange_statistics()
        local = self.backbone(crops.reshape(-1, *crops.shape[2:]), key=keys[1])
        self._exchange_statistics()
        apart = lambda x: x.reshape(batch, -1, *x.shape[1:])  # noqa: E731
        fused, single = regions.fused(each), local["pooled"]
        if explore is not None:
            single = jnp.where(explore, jax.lax.stop_gradient(single), single)
        features = jnp.concatenate(
            [self._local(apart(models.last_map(local))[:, fused], apart(local["pooled"])[:, fused]),
             outputs["pooled"]],
            axis=-1,
        )  # fmt: skip
        return {
            "scores": scores,
            "boxes": boxes,
            "proposed": jnp.take_along_axis(scores, chosen, axis=1),
            "global_logits": outputs["logits"],
            "part_logits": apart(self.part_fc(single)),
            "part_features": apart(single),
            "features": features,
            "logits": self.fc(features),
        }

    def start_at_image(self) -> None:
        """Make x's classifier the image's: what regions add to its logits begins at nothing."""
        own = self.backbone.fc
        self.fc.kernel[...] = (
            jnp.zeros_like(self.fc.kernel[...]).at[-self.backbone.features :].set(own.kernel[...])
        )
        self.fc.bias[...] = own.bias[...]

    def _exchange_statistics(self) -> None:
        """Batch norm's running averages of images for those of regions, and back.

        Training never sees them. At test the average of both would fit neither: magnified regions
        have other statistics than whole images.
        """
        for own, other in zip(_running(self.backbone), self.region_statistics, strict=True):
            kept = own[...]
            own.set_value(other[...])  # as in BatchNorm: `own[...] = …` is slow to trace
            other.set_value(kept)

    def _local(self, maps: jax.Array, pooled: jax.Array) -> jax.Array:
        """The regions [B, R, h, w, C] of each scale as one feature, side by side.

        A 1×1 convolution over the regions' channels and an average: in this order or the other,
        the same numbers, unless batch norm and ReLU stand between them.
        """
        if not len(self.fusion):
            return pooled.reshape(pooled.shape[0], -1)
        if len(self.fusion_norms):
            return jnp.concatenate(
                [
                    jnp.mean(jax.nn.relu(norm(layer(stacked))), axis=(1, 2))
                    for layer, norm, stacked in zip(
                        self.fusion, self.fusion_norms, self._stacked(maps), strict=True
                    )
                ],
                axis=-1,
            )
        average = jnp.mean(layers.widened(maps), axis=(2, 3))
        scales = average.reshape(average.shape[0], len(self.fusion), -1)
        fused = [layer(scales[:, scale]) for scale, layer in enumerate(self.fusion)]
        return jnp.concatenate(fused, axis=-1)

    def _stacked(self, maps: jax.Array) -> list[jax.Array]:
        """The maps [B, R, h, w, C] of each scale's regions on top of each other [B, h, w, r C]."""
        batch, count, height, width, channels = maps.shape
        each = count // len(self.fusion)
        apart = layers.widened(maps).reshape(batch, -1, each, height, width, channels)
        rows = jnp.moveaxis(apart, 2, 4).reshape(batch, -1, height, width, each * channels)
        return [rows[:, scale] for scale in range(len(self.fusion))]


def _running(backbone: models.Backbone) -> list[nnx.BatchStat]:
    """The running averages of all batch norms, in a fixed order."""
    norms = [m for _, m in nnx.iter_modules(backbone) if isinstance(m, layers.BatchNorm)]
    return [variable for norm in norms for variable in (norm.mean, norm.var)]
