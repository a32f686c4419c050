"""A predictor as JSON, arrays and programs, and back: whatever dataclasses it is made of.

A node is a number, a text, true, false or null, or an object with one of the keys
  array      the name of an array;
  network    as `fgjax.model_files.networks` writes it;
  items      of a tuple;
  entries    of a dict by name;
  dataclass  "methods.…:Name", with `fields`.
"""

import dataclasses
import importlib
import re
from typing import Any

import numpy as np

from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Network
from fgjax.model_files import networks
from fgjax.model_files.networks import Package

_KIND = re.compile(r"(methods(?:\.[a-z0-9_]+)+):([A-Z][A-Za-z]*)")


def pack(value: Any, name: str, package: Package) -> Any:
    """The node of a value; what it refers to goes into the package.

    Raises:
      UserError: it is made of something that no model file can hold.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": package.keep(name, value)}
    if isinstance(value, Network):
        return {"network": networks.pack(value, name, package)}
    if isinstance(value, tuple | list):
        return {"items": [pack(v, f"{name}.{i}", package) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        return {"entries": {k: pack(v, f"{name}.{k}", package) for k, v in value.items()}}
    kind = f"{type(value).__module__}:{type(value).__qualname__}".removeprefix("fgjax.")
    if not dataclasses.is_dataclass(value) or not _KIND.fullmatch(kind):
        raise UserError(
            f"{kind} cannot be exported: a model file holds networks, arrays, numbers and the "
            "predictors that fgjax itself has."
        )
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {
        "dataclass": kind,
        "fields": {k: pack(v, f"{name}.{k}", package) for k, v in fields.items()},
    }


def unpack(node: Any, name: str, package: Package) -> Any:
    """The value of a node that was packed under a name.

    Raises:
      KeyError, TypeError, ValueError: it is no node, or refers to what is not there.
    """
    if not isinstance(node, dict):
        if node is None or isinstance(node, str | bool | int | float):
            return node
        raise ValueError("a list outside of a tuple")
    if "array" in node:
        return package.arrays[node["array"]]
    if "network" in node:
        return networks.unpack(node["network"], name, package)
    if "items" in node:
        return tuple(unpack(v, f"{name}.{i}", package) for i, v in enumerate(node["items"]))
    if "entries" in node:
        return {k: unpack(v, f"{name}.{k}", package) for k, v in node["entries"].items()}
    found = _KIND.fullmatch(node["dataclass"])
    if not found:
        raise ValueError(f"{node['dataclass']!r} is not a predictor of fgjax")
    module = importlib.import_module(f"fgjax.{found[1]}")
    kind: Any = getattr(module, found[2])
    if kind.__module__ != module.__name__ or not hasattr(kind, "__dataclass_fields__"):
        raise ValueError(f"{node['dataclass']!r} is not a predictor of fgjax")
    return kind(**{k: unpack(v, f"{name}.{k}", package) for k, v in node["fields"].items()})


def networks_in(value: Any, name: str) -> dict[str, Network]:
    """The networks of a value by the names under which `pack` keeps them."""
    if isinstance(value, Network):
        return {name: value}
    parts: dict[Any, Any] = {}
    if isinstance(value, tuple | list):
        parts = dict(enumerate(value))
    elif isinstance(value, dict):
        parts = value
    elif dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    found: dict[str, Network] = {}
    for key, part in parts.items():
        found |= networks_in(part, f"{name}.{key}")
    return found
