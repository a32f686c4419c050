"""`optimizer.layer_decay`: the deeper below the head, the smaller the learning rate.

  rate of block d = rate · decay^d

where d counts the blocks of a backbone from the top: the last block is 1, and 0 is everything
above it, heads and the last norm (Bao et al. 2022, BEiT, for fine-tuning). It scales the whole
update, weight decay included, as a learning rate of each block's own would.
"""

from typing import Any

import jax
import optax
from flax import nnx

from fgjax.errors import UserError
from fgjax.models import Backbone

Path = tuple[Any, ...]  # names and numbers


def scale(model: nnx.Module, decay: float) -> optax.GradientTransformation:
    """Updates times decay^d, d the depth of their block in whichever backbone of a network.

    Args:
      model: with any number of backbones; what lies in none of them has d = 0.
      decay: in (0, 1].

    Raises:
      UserError: a backbone says nothing of its maps.
    """
    factors = {
        (*place, *inside): decay**depth
        for place, module in nnx.iter_modules(model)
        if isinstance(module, Backbone)
        for inside, depth in depths(module).items()
    }

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        names = tuple(key.key for key in path)
        outward = (names[:length] for length in range(len(names), 0, -1))
        return update * next((factors[name] for name in outward if name in factors), 1.0)

    def apply(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), apply)


def depths(backbone: Backbone) -> dict[Path, int]:
    """{path of a module: its block's number from the top, 1 for the last block}.

    The modules of each map are blocks, and of a list of modules each one is. A convolution or norm
    by itself belongs to the block before it in its map; above the last block it is in none.

    Raises:
      UserError: the backbone says nothing of its maps.
    """
    maps = list(backbone.modules_of_maps().values())
    if not maps:
        raise UserError(
            f"optimizer.layer_decay goes by the blocks of a backbone's maps, but "
            f"{type(backbone).__name__} names none: let it have `modules_of_maps`, or set it to 1."
        )
    blocks: list[list[Path]] = []
    for number, names in enumerate(maps, 1):
        own: list[list[Path]] = []
        alone: list[Path] = []
        for name in names:
            path, module = _at(backbone, name)
            if isinstance(module, nnx.List):
                own += [[(*path, index)] for index in range(len(module))]
            elif any(isinstance(inner, nnx.Module) for inner in vars(module).values()):
                own.append([path])
            else:
                alone.append(path)
        if not own:
            own.append(alone)
        elif number < len(maps):
            own[-1] += alone
        blocks += own
    return {path: len(blocks) - number for number, block in enumerate(blocks) for path in block}


def _at(backbone: Backbone, dotted: str) -> tuple[Path, Any]:
    """The path and the module that a dotted name means."""
    path: list[Any] = []
    module: Any = backbone
    for word in dotted.split("."):
        path.append(int(word) if word.isdigit() else word)
        module = module[path[-1]] if word.isdigit() else getattr(module, word)
    return tuple(path), module
