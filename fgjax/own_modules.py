"""Modules that are not fgjax's: methods, datasets and backbones of one's own, by name."""

import importlib
import importlib.util
import os
import sys
from types import ModuleType


def find(name: str, *, having: str) -> ModuleType | None:
    """The module of that name, if there is one that has the attribute.

    It is looked for in the current folder, too: a console command, unlike `python -m`, does not
    search there by itself. A module that fails while it is imported says so itself.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        known = name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a package around it is missing, or it is no name at all
        known = False
    module = importlib.import_module(name) if known else None
    return module if hasattr(module, having) else None
