"""Whether a backbone can do what a config asks of it: by its shapes, before anything is loaded."""

import jax
import jax.numpy as jnp
from flax import nnx

from fgjax import models
from fgjax.config import Config, flatten
from fgjax.errors import UserError
from fgjax.models import Backbone
from fgjax.training import freezing, layer_decay

_SIZES = ("image_size", "crop_size")  # ends of the names of fields, pixels that the backbone sees


def check(config: Config) -> None:
    """Refuse sizes, maps, frozen parts and rates that the backbone cannot have.

    Raises:
      UserError: naming the field and what it may be.
    """
    build = lambda: models.build(  # noqa: E731
        config.backbone, num_classes=2, rngs=nnx.Rngs(0), last_stride=config.last_stride
    )
    backbone, flat = nnx.eval_shape(build), flatten(config)
    for field, size in flat.items():
        if field.endswith(_SIZES):
            backbone.require_size(f"config.{field}", size)
    if config.freeze:
        freezing.modules_of(backbone, config.freeze)
    if any(key.endswith("optimizer.layer_decay") and flat[key] < 1 for key in flat):
        layer_decay.depths(backbone)
    if wanted := getattr(config.method, "maps_for", ""):
        _check_last_map(backbone, config, wanted)
    own = getattr(config.method, "check_backbone", None)
    if own is not None:
        own(backbone, config.data.image_size)


def _check_last_map(backbone: Backbone, config: Config, wanted: str) -> None:
    """Refuse a last map that tells no place from another."""
    size = config.data.image_size
    shapes = maps_of(backbone, size)
    if not shapes:
        raise UserError(
            f"the backbone {config.backbone} returns no map (no output named stage1, stage2, …), "
            f"but this method needs one for {wanted}: choose another --config.backbone."
        )
    rows, columns = shapes[max(shapes)]
    if rows * columns == 1:
        raise UserError(
            f"the last map of {config.backbone} has a single place at {size} pixels, but this "
            f"method needs several for {wanted}: raise --config.data.image_size."
        )


def maps_of(backbone: Backbone, size: int) -> dict[str, tuple[int, int]]:
    """Height and width of the maps stage1, stage2, … of an image of so many pixels a side."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    backbone.eval()
    graph, state = nnx.split(backbone)
    outputs = jax.eval_shape(lambda s, x: nnx.merge(graph, s)(x), state, image)
    return {
        name: value.shape[1:3]
        for name, value in outputs.items()
        if name.startswith("stage") and len(value.shape) == 4
    }
