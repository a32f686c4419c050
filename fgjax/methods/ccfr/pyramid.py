"""Where to look: a feature pyramid on the backbone's last map that scores square regions."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fgjax.models import layers


class Pyramid(nnx.Module):
    """FPN with a top-down path and lateral connections (CCFR section 3.2).

    Level 0 has the last map's grid, every further one half of it: CCFR's two scales of 96 and 192
    of 448 px stand on grids of 14 and 7. Given more maps than one, the first levels stand on these.

                          last map [G, G] ─ lateral 1×1 ─(+)─ 3×3 ─ score 1×1
                              │ 3×3, stride 2             ↑ ×2
                          [G/2, G/2] ────── lateral 1×1 ──┴── 3×3 ─ score 1×1
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        levels: int,
        *,
        width: int = 256,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        def conv(*shape: int, stride: int = 1) -> layers.Conv:
            return layers.Conv(
                *shape,
                stride=stride,
                use_bias=True,
                dtype=dtype,
                initializer=layers.kaiming_fan_in,
                rngs=rngs,
            )

        made = levels - len(channels)  # levels that no map of the backbone is given for
        coarser = [conv(width if level else channels[-1], width, 3, stride=2)
                   for level in range(made)]  # fmt: skip
        self.coarser = nnx.List(coarser)
        self.lateral = nnx.List([conv(below, width, 1) for below in (*channels, *[width] * made)])
        self.smooth = nnx.List([conv(width, width, 3) for _ in range(levels)])
        self.score = nnx.List([conv(width, 1, 1) for _ in range(levels)])

    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """Scores float32 [B, A] of maps [B, G, G, C]: level by level, row by row, as `anchors`."""
        bottom_up = list(maps)
        for coarser in self.coarser:
            bottom_up.append(jax.nn.relu(coarser(bottom_up[-1])))
        scores, above = [], None
        for level in reversed(range(len(bottom_up))):
            merged = self.lateral[level](bottom_up[level])
            if above is not None:
                merged = merged + _doubled(above)
            above = merged
            found = self.score[level](jax.nn.relu(self.smooth[level](merged)))
            scores.insert(0, layers.widened(found).reshape(found.shape[0], -1))
        return jnp.concatenate(scores, axis=1)


def _doubled(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling of [B, H, W, C] by two."""
    batch, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return wide.reshape(batch, 2 * height, 2 * width, channels)
