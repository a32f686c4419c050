"""`config.freeze`: parts of a backbone that no stage of any method changes.

What is named keeps its parameters, and its batch norm stays in evaluation mode. Frozen parameters
are constants of the step: nothing is spent on their gradients, and the backward pass ends where
nothing below it is trained.
"""

import dataclasses
import fnmatch
import itertools
from typing import Any

from flax import nnx

from fgjax.errors import UserError
from fgjax.models import Backbone, layers

Path = tuple[Any, ...]  # names and numbers
BATCH_NORMS = "batch_norms"


@dataclasses.dataclass(frozen=True)
class Inside:
    """An nnx filter: the variables inside modules.

    Attributes:
      modules: their paths.
    """

    modules: tuple[Path, ...]

    def __call__(self, path: Path, value: Any) -> bool:
        """Whether a variable lies in one of them."""
        return any(path[: len(module)] == module for module in self.modules)


def unfrozen(model: nnx.Module, trainable: Any, freeze: str) -> Any:
    """The filter `trainable` without what `freeze` names in every backbone of a network."""
    frozen = [
        (*path, *inside)
        for path, module in nnx.iter_modules(model)
        if freeze and isinstance(module, Backbone)
        for inside in modules_of(module, freeze)
    ]
    return nnx.All(trainable, nnx.Not(Inside(tuple(frozen)))) if frozen else trainable


def modules_of(backbone: Backbone, freeze: str) -> list[Path]:
    """Paths of the modules whose own parameters `freeze` names, in order.

    Args:
      backbone: its heads are never among them.
      freeze: names of maps or globs of dotted paths, with commas between them. A glob that matches
        a module names all inside it; `*` stands for anything, dots too, `[0-5]` for a character.
        `batch_norms` are those of all maps, in a family without any nothing.

    Raises:
      UserError: a name or glob is of no module, or all of them together are of everything.
    """
    maps, modules = backbone.modules_of_maps(), _modules(backbone)
    found: set[Path] = set()
    for name in [word for word in map(str.strip, freeze.split(",")) if word] or [freeze]:
        if name == BATCH_NORMS:
            found |= _batch_norms(backbone)
            continue
        chosen = {m for m in modules for glob in maps.get(name, (name,)) if _names(glob, m)}
        if not chosen:
            known = f"none of the maps {', '.join(maps)}" if maps else "no map"
            raise UserError(
                f"config.freeze names {name!r}, which is {known} and matches no module of the "
                f"backbone below its head, such as {_shown(modules)}."
            )
        found |= chosen
    if len(found) == len(modules):
        raise UserError(
            f"config.freeze is {freeze!r}, which is the whole backbone: leave out some of "
            f"{', '.join(maps) or _shown(modules)}."
        )
    return sorted(found, key=_dotted)


def _modules(backbone: Backbone) -> list[Path]:
    """Paths of all modules with parameters of their own, heads left out."""
    parameters = nnx.to_flat_state(nnx.state(backbone, nnx.Param)).paths
    return sorted({path[:-1] for path in parameters if path[0] not in backbone.heads}, key=_dotted)


def _batch_norms(backbone: Backbone) -> set[Path]:
    return {p for p, module in nnx.iter_modules(backbone) if isinstance(module, layers.BatchNorm)}


def _names(glob: str, module: Path) -> bool:
    """Whether a glob matches a module or one that it lies in."""
    outward = (module[:length] for length in range(1, len(module) + 1))
    return any(fnmatch.fnmatchcase(_dotted(path), glob) for path in outward)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _shown(modules: list[Path]) -> str:
    """One module of each of the first few outermost ones."""
    groups = itertools.groupby(modules, key=lambda path: path[0])
    return ", ".join(_dotted(next(group)) for _, group in itertools.islice(groups, 4))
