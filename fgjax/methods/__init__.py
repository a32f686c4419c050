"""The published systems, a folder each; `shared` is what several of them use.

A method is a package here, or a module of your own that can be imported. It has `Config`, a
dataclass, `run(run) -> {"metrics", "protocol"}` and, to be used afterwards, `load_predictor(run)`
and `load_embedder(run)`. `Config` may have `validate()`, which refuses fields that do not go
together. `check(run)`, where there is one, refuses what does not fit the dataset before anything is
trained. A package here may also have the modules

  presets   `PRESETS`: how its paper trains it, by dataset; `DEMO`; `FLAGS`
  studies   `STUDIES`: its paper's tables; or `for_dataset(name)`, where its numbers depend on it
  figures   `draw(run)`: its pictures
  paper     `PAPER`: every equation beside the function that it is

and a file `numbers.csv`, what its paper prints (`shared.printed`),

and nothing outside its folder names it.
"""

import importlib
import importlib.util
import pathlib
from types import ModuleType

from fgjax import own_modules
from fgjax.config import Study
from fgjax.errors import UserError


def names() -> list[str]:
    """All methods that exist: the folders here with a module `method`."""
    return sorted(path.parent.name for path in pathlib.Path(__path__[0]).glob("*/method.py"))


def get(name: str) -> ModuleType:
    """A method by its name here, or as a module of one's own.

    Raises:
      UserError: there is none of that name.
    """
    if name in names():
        return importlib.import_module(f"{__name__}.{name}")
    own = own_modules.find(name, having="run")
    if own:
        return own
    raise UserError(
        f"method {name!r} is not known; choose one of {', '.join(names())}, or name a module of "
        "your own that can be imported from here."
    )


def of(config) -> ModuleType:
    """The method whose `Config` the hyper-parameters are: that class's module, or its package."""
    module = importlib.import_module(type(config.method).__module__)
    if hasattr(module, "run") and not module.__name__.startswith(f"{__name__}."):
        return module
    return importlib.import_module(module.__name__.rpartition(".")[0])


def name_of(method: ModuleType) -> str:
    """What `get` knows a method by."""
    return method.__name__.removeprefix(f"{__name__}.")


def part(method: ModuleType, name: str) -> ModuleType | None:
    """A module of a method's folder, such as `studies`; None where it has none."""
    full = f"{method.__name__}.{name}"
    if not hasattr(method, "__path__") or importlib.util.find_spec(full) is None:
        return None
    return importlib.import_module(full)


def check(run) -> None:
    """Refuse a run whose config does not fit its dataset, by the method's own `check`, if any."""
    own = getattr(of(run.config), "check", None)
    if own is not None:
        own(run)


def studies(config) -> dict[str, Study]:
    """The tables of the config's method by name, with its paper's numbers for that dataset.

    A study that searches has a second one, NAME_search: what it tried.
    """
    method = of(config)
    described = part(method, "studies") or method
    if hasattr(described, "for_dataset"):
        found = described.for_dataset(config.data.dataset.partition("/")[0])
    else:
        found = getattr(described, "STUDIES", {})
    tried = {f"{name}_search": study.tried() for name, study in found.items() if study.search}
    return {**found, **tried}
