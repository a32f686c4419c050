"""The published systems, one file each, named as in a config's argument.

A method module has `Config` (a dataclass with `validate`), `run(run) -> metrics` and
`load_predictor(run) -> Predictor`; its paper's tables are `STUDIES` of the module of the same name
in `tables/`, if it has one.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from fgjax.config import Study
from fgjax.errors import UserError


def names() -> list[str]:
    """All methods that exist."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def get(name: str) -> ModuleType:
    """The module of a method.

    Raises:
      UserError: there is none of that name.
    """
    if name not in names():
        raise UserError(f"method {name!r} is not known; choose one of {', '.join(names())}.")
    return importlib.import_module(f"fgjax.methods.{name}")


def of(config) -> ModuleType:
    """The module whose `Config` the method's hyper-parameters are."""
    return importlib.import_module(type(config.method).__module__)


def studies(config) -> dict[str, Study]:
    """The tables of the config's method by name."""
    name = f"{__name__}.tables.{of(config).__name__.rsplit('.', 1)[-1]}"
    return importlib.import_module(name).STUDIES if importlib.util.find_spec(name) else {}
