"""Backbones in Flax NNX: `build` makes one by name, `load_pretrained` fills it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fgjax import own_modules
from fgjax.errors import UserError
from fgjax.models import convnext, densenet, efficientnet, inception, resnet, vgg, vit
from fgjax.models.backbone import HEADS, POOLINGS, Backbone, Options, pool
from fgjax.models.pretrained import load_pretrained
from fgjax.models.sources import name_weights, resolve

__all__ = [
    "HEADS", "NAMES", "POOLINGS", "Backbone", "build", "last_map", "last_maps", "load_pretrained",
    "name_weights", "pool", "resolve",
]  # fmt: skip

_VGGS = {
    f"{name}{suffix}": (depths, bool(suffix))
    for name, depths in vgg.DEPTHS.items()
    for suffix in ("", "_bn")
}
NAMES = (
    *resnet.ARCHITECTURES, *_VGGS, *densenet.ARCHITECTURES, "inception_v3",
    *efficientnet.LITE_ARCHITECTURES, *efficientnet.ARCHITECTURES, *convnext.ARCHITECTURES,
    *vit.ARCHITECTURES,
)  # fmt: skip


def build(
    name: str,
    *,
    num_classes: int,
    rngs: nnx.Rngs,
    dtype: DTypeLike = jnp.float32,
    last_stride: int = 2,
    pooling: str = "average",
    dropout: float = 0.0,
    head: str = "linear",
    remat: bool = False,
) -> Backbone:
    """A backbone with a classifier head.

    Args:
      name: one of `NAMES`, or `module:Class` of one's own, called as `Class(Options, rngs=…)`.
      num_classes: width of the logits.
      rngs: source of the initial parameters.
      dtype: of the convolutions; parameters and logits stay float32.
      last_stride: stride of the last stage; 1 doubles its map. A vision transformer's maps have the
        size of its patches either way.
      pooling: "average", "max", or "max_average", both concatenated.
      dropout: share of `pooled` that training drops; a call in training then needs a `key`.
      head: "linear", or "original" for VGG's hidden layers of 4096 as in torchvision.
      remat: whether the backward pass computes each block a second time, for less memory.

    Returns:
      A module that maps pixels [B, H, W, 3] in [0, 255] to its feature maps by name, "pooled"
      [B, D] and "logits" [B, num_classes]; `module.features` is D.

    Raises:
      UserError: the name or an option is unknown.
    """
    options = Options(num_classes, dtype, last_stride, pooling, dropout, head, remat)
    if ":" in name:
        return _own(name)(options, rngs=rngs)
    if name not in NAMES:
        raise UserError(
            f"backbone {name!r} is not known; choose one of {', '.join(NAMES)}, or say "
            "module:Class for one of your own."
        )
    if name in resnet.ARCHITECTURES:
        return resnet.ResNet(resnet.ARCHITECTURES[name], options, rngs=rngs)
    if name in _VGGS:
        depths, batch_norm = _VGGS[name]
        return vgg.VGG(depths, options, batch_norm=batch_norm, rngs=rngs)
    if name in densenet.ARCHITECTURES:
        return densenet.DenseNet(*densenet.ARCHITECTURES[name], options, rngs=rngs)
    if name in efficientnet.ARCHITECTURES:
        return efficientnet.EfficientNet(*efficientnet.ARCHITECTURES[name], options, rngs=rngs)
    if name in efficientnet.LITE_ARCHITECTURES:
        factors = efficientnet.LITE_ARCHITECTURES[name]
        return efficientnet.EfficientNetLite(*factors, options, rngs=rngs)
    if name in convnext.ARCHITECTURES:
        return convnext.ConvNeXt(convnext.ARCHITECTURES[name], options, rngs=rngs)
    if name in vit.ARCHITECTURES:
        return vit.VisionTransformer(vit.ARCHITECTURES[name], options, rngs=rngs)
    return inception.Inception(options, rngs=rngs)


def _own(name: str) -> Callable[..., Backbone]:
    """The class that `module:Class` names."""
    module, _, kind = name.partition(":")
    found = own_modules.find(module, having=kind)
    if found is None:
        raise UserError(
            f"backbone {name!r} is not known: there is no module {module} here that has {kind}."
        )
    return getattr(found, kind)


def last_map(outputs: dict[str, jax.Array]) -> jax.Array:
    """The deepest feature map of a backbone's outputs, [B, H, W, C]."""
    return last_maps(outputs, 1)[0]


def last_maps(outputs: dict[str, jax.Array], count: int) -> list[jax.Array]:
    """The deepest feature map of each of the `count` smallest sizes, [B, H, W, C], deepest last.

    They are fewer where a backbone has fewer sizes: all maps of a vision transformer have one.
    """
    maps = [outputs[name] for name in sorted(n for n in outputs if n.startswith("stage"))]
    of_size = {one.shape[1:3]: one for one in maps}
    return list(of_size.values())[-count:]
