"""3×3 convolutions of stride 1 by Winograd's F(2×2, 3×3): 16 products where 36 are asked for.

A tile of 2×2 outputs sees 4×4 inputs. With the matrices of Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", it is Aᵀ[(G k Gᵀ) ⊙ (Bᵀ x B)]A, and ⊙ of all channels is one product
of matrices for each of the 16 places. B and A hold 0, 1 and −1, G also ½: float32 rounds 1.2 to 1.6
times as much as in the plain sum. A CPU wins where channels are many; what is done tile by tile
stays in its caches, because few images are done at a time.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fgjax import hosts

Sizes = tuple[int, ...]

CHANNELS = 128  # with fewer the products do not pay for the transforms
CHANNELS_OF_GRADIENT = 256  # transforms of maps and gradients, for the same products
SMALLEST = 5  # rows and columns of a map: smaller ones leave tiles half empty
TILES = 256  # of a part, at least, for each core: fewer make slow products, more leave the caches
TILES_OF_GRADIENT = 384  # of all parts, at least


def suits(x: jax.Array, kernel: jax.Array, stride: int, padding: Sizes) -> bool:
    """Whether a convolution of maps [B, H, W, I] and a kernel [h, w, I, O] is faster so.

    Not on several devices: what is done part by part would be sent to all of them. Nor for any
    number of images, as exported programs are: parts need one.
    """
    if not isinstance(x.shape[0], int) or jax.device_count() > 1:
        return False
    whole = kernel.shape[:2] == (3, 3) and stride == 1 and padding == (1, 1)
    many = min(kernel.shape[2:]) >= CHANNELS and min(x.shape[1:3]) >= SMALLEST
    return whole and many and x.dtype.itemsize >= 4


def suits_gradient(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the kernel's gradient is, too, where `suits` holds."""
    tiles = len(x) * math.prod(-(-n // 2) for n in x.shape[1:3])
    return min(kernel.shape[2:]) >= CHANNELS_OF_GRADIENT and tiles >= TILES_OF_GRADIENT


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of maps [B, H, W, I] with a kernel [3, 3, I, O], padding 1: [B, H, W, O]."""
    return _tiled(x, _kernel_at_places(kernel), "ti,io->to")


def input_gradient(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    """Of `convolve`: the same of the gradient, with the kernel turned round."""
    places = _kernel_at_places(kernel)
    turned = [places[4 * i + j] for i, j in itertools.product((3, 1, 2, 0), repeat=2)]
    return _tiled(gradient, turned, "to,io->ti")


def _tiled(x: jax.Array, places: list[jax.Array], product: str) -> jax.Array:
    grid = Grid.of(x, TILES * hosts.cores())

    def part(maps):
        tiles = _inputs_at_places(grid.padded(maps))
        inner = [jnp.einsum(product, _matrix(v), u) for v, u in zip(tiles, places)]
        return _outputs([m.reshape(grid.images, grid.rows, grid.columns, -1) for m in inner])

    found = jax.lax.map(part, grid.parts(x))
    found = found.reshape(len(x), 2 * grid.rows, 2 * grid.columns, -1)
    return found[:, : x.shape[1], : x.shape[2]]


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Of `convolve`: Gᵀ[Σ (A dy Aᵀ) ⊙ (Bᵀ x B)]G over all tiles, [3, 3, I, O]."""
    grid = Grid.of(x, TILES * hosts.cores())

    def part(so_far, both):
        maps, gradients = both
        inner = _inputs_at_places(grid.padded(maps))
        outer = _gradients_at_places(grid.padded(gradients, around=0))
        return [t + _matrix(v).T @ _matrix(a) for t, v, a in zip(so_far, inner, outer)], None

    start = [jnp.zeros((x.shape[-1], gradient.shape[-1]), x.dtype)] * 16
    totals, _ = jax.lax.scan(part, start, (grid.parts(x), grid.parts(gradient)))
    return jnp.stack([jnp.stack(row) for row in _both_axes(_transposed_g, totals)])


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tiles of maps, and of how many images they are done at a time."""

    rows: int
    columns: int
    images: int

    @classmethod
    def of(cls, x: jax.Array, tiles: int) -> "Grid":
        """The smallest equal parts that have so many tiles."""
        rows, columns = (-(-n // 2) for n in x.shape[1:3])
        images = [n for n in range(1, len(x) + 1) if len(x) % n == 0]
        fitting = (n for n in images if n * rows * columns >= tiles)
        return cls(rows, columns, next(fitting, len(x)))

    def parts(self, x: jax.Array) -> jax.Array:
        """[B, …] as [N, images, …]."""
        return x.reshape(-1, self.images, *x.shape[1:])

    def padded(self, x: jax.Array, around: int = 1) -> jax.Array:
        """Maps as far as the last tile reaches, with so many places around them."""
        ends = (2 * self.rows, 2 * self.columns)
        beyond = [(around, around + n - size) for n, size in zip(ends, x.shape[1:3])]
        return jnp.pad(x, [(0, 0), *beyond, (0, 0)])


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _both_axes(transform, values: Sequence[jax.Array]) -> list[list[jax.Array]]:
    """T v Tᵀ of a square of arrays, row by row: [[…], …]."""
    side = math.isqrt(len(values))
    columns = [transform(values[j::side]) for j in range(side)]
    return [transform([column[i] for column in columns]) for i in range(len(columns[0]))]


def _flat(rows: list[list[jax.Array]]) -> list[jax.Array]:
    return list(itertools.chain(*rows))


def _kernel_at_places(kernel: jax.Array) -> list[jax.Array]:
    """G k Gᵀ: 16 of [I, O]."""
    return _flat(_both_axes(_g, [kernel[i, j] for i, j in itertools.product(range(3), repeat=2)]))


def _inputs_at_places(x: jax.Array) -> list[jax.Array]:
    """Bᵀ x B of all tiles of padded maps [B, 2h + 2, 2w + 2, I]: 16 of [B, h, w, I]."""
    ends = [n - 3 for n in x.shape[1:3]]
    taps = [x[:, i : i + ends[0] : 2, j : j + ends[1] : 2]
            for i, j in itertools.product(range(4), repeat=2)]  # fmt: skip
    return _flat(_both_axes(_transposed_b, taps))


def _gradients_at_places(gradient: jax.Array) -> list[jax.Array]:
    """A dy Aᵀ of all tiles of [B, 2h, 2w, O]: 16 of [B, h, w, O]."""
    taps = [gradient[:, i::2, j::2] for i, j in itertools.product(range(2), repeat=2)]
    return _flat(_both_axes(_a, taps))


def _outputs(inner: list[jax.Array]) -> jax.Array:
    """Aᵀ m A of all tiles, each in its place: [B, 2h, 2w, O]."""
    rows = [jnp.stack(row, axis=3) for row in _both_axes(_transposed_a, inner)]
    joined = jnp.stack(rows, axis=2)
    size, height, _, width, _, features = joined.shape
    return joined.reshape(size, 2 * height, 2 * width, features)


def _transposed_b(x):
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _g(k):
    return [k[0], (k[0] + k[1] + k[2]) / 2, (k[0] - k[1] + k[2]) / 2, k[2]]


def _transposed_g(m):
    return [m[0] + (m[1] + m[2]) / 2, (m[1] - m[2]) / 2, (m[1] + m[2]) / 2 + m[3]]


def _transposed_a(m):
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _a(y):
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]
