"""A backbone of your own: fgjax train --config=… --config.backbone=own_backbone:PatchNet."""

import jax
from flax import nnx

from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options


class PatchNet(Backbone):
    """Patches of four pixels, then three stages of convolutions, each half as large."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        widths = (24, 48, 96)
        # The base makes `fc` and knows pooling, dropout and the number of classes.
        super().__init__(widths[-1], options, rngs=rngs)
        conv = lambda *a, **k: layers.Conv(*a, **k, dtype=options.dtype, rngs=rngs)  # noqa: E731
        self.patches = conv(3, widths[0], 4, stride=4, padding=0)
        last = options.last_stride
        self.convolutions = nnx.List([
            conv(before, after, 3, stride=stride)
            for before, after, stride in zip((widths[0], *widths), widths, (1, 2, last))
        ])  # fmt: skip
        self.norms = nnx.List([layers.BatchNorm(width) for width in widths])

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """What `--config.freeze=stage1` keeps as it is."""
        maps = {f"stage{n}": (f"convolutions.{n - 1}", f"norms.{n - 1}") for n in (1, 2, 3)}
        maps["stage1"] += ("patches",)
        return maps

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Pixels [B, H, W, 3] to maps by name, `pooled` and `logits`."""
        x, outputs = self.patches(self.normalize(images)), {}
        for number, (conv, norm) in enumerate(zip(self.convolutions, self.norms), 1):
            x = jax.nn.relu(norm(conv(x)))
            outputs[f"stage{number}"] = x
        return self.classify(outputs, key)
