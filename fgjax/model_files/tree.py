"""A predictor as JSON, arrays and programs, and back: whatever dataclasses it is made of.

A node is a number, a text, true, false or null, or an object with one of the keys
  array      the name of an array;
  network    {"shape": of one example, "weights": names of arrays, "programs": members by platform};
  items      of a tuple;
  entries    of a dict by name;
  dataclass  "methods.…:Name", with `fields`.
"""

import dataclasses
import hashlib
import importlib
import re
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export

from fgjax import compilation
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Network
from fgjax.models import sums

# Programs are written as each kind of device wants them (`fgjax.models.sums`).
PLATFORMS = {"cpu": ("cpu",), "accelerator": ("cuda", "tpu")}
_KIND = re.compile(r"(methods(?:\.[a-z0-9_]+)+):([A-Z][A-Za-z]*)")


@dataclasses.dataclass
class Package:
    """What nodes refer to.

    Attributes:
      arrays: by name; equal ones are kept once.
      programs: StableHLO by the member's name.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    programs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    _known: dict[str, str] = dataclasses.field(default_factory=dict)

    def keep(self, name: str, array: np.ndarray) -> str:
        """The name under which an array is kept."""
        content = np.ascontiguousarray(array)
        text = f"{content.dtype} {content.shape}".encode()
        digest = hashlib.sha256(text + content.tobytes()).hexdigest()
        if digest not in self._known:
            self._known[digest], self.arrays[name] = name, content.reshape(np.shape(array))
        return self._known[digest]


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
        return {"network": _pack_network(value, name, package)}
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


def _pack_network(network: Network, name: str, package: Package) -> dict[str, Any]:
    graph, state = nnx.split(network.model)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    arrays = [np.asarray(leaf) for _, leaf in leaves]
    weights = [
        package.keep(f"{name}/{_text_of(path)}", array)
        for (path, _), array in zip(leaves, arrays, strict=True)
    ]

    def said(leaves: list[jax.Array], pixels: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, jax.tree_util.tree_unflatten(structure, leaves))
        return dict(network.outputs_of(model, {"image": pixels}))

    programs = {}
    for platform, devices in PLATFORMS.items():
        programs[platform] = f"networks/{name.replace('_', '')}.{platform}.stablehlo"
        with sums.written_for(platform):
            written = program_of(said, arrays, network.shape, devices)
        package.programs[programs[platform]] = written
    return {"shape": list(network.shape), "weights": weights, "programs": programs}


def program_of(
    function: Any, weights: list[np.ndarray], shape: tuple[int, ...], devices: tuple[str, ...]
) -> bytes:
    """StableHLO of `function(weights, pixels)` for batches of any size of uint8 [B, *shape]."""
    sizes = export.symbolic_shape(", ".join(["batch", *map(str, shape)]))
    given = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in weights]
    # A fresh function for each platform: JAX remembers by the function what it traced.
    traced = compilation.jit(lambda leaves, pixels: function(leaves, pixels))
    exported = export.export(traced, platforms=devices)(
        given, jax.ShapeDtypeStruct(sizes, np.uint8)
    )
    return bytes(exported.serialize())


def _text_of(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


class Program:
    """A network of a model file, compiled by fgjax's own options: plainly, XLA would err."""

    def __init__(self, written: bytes, weights: list[np.ndarray], shape: tuple[int, ...]):
        exported = export.deserialize(bytearray(written))
        self.shape, self._weights = shape, weights
        self._on_device: list[jax.Array] | None = None
        self._run = compilation.jit(exported.call)

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, a row for each example."""
        if self._on_device is None:
            self._on_device = [jax.device_put(array) for array in self._weights]
        return jax.device_get(self._run(self._on_device, pixels))


def unpack(node: Any, package: Package) -> Any:
    """The value of a node.

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
        return _unpack_network(node["network"], package)
    if "items" in node:
        return tuple(unpack(item, package) for item in node["items"])
    if "entries" in node:
        return {name: unpack(item, package) for name, item in node["entries"].items()}
    found = _KIND.fullmatch(node["dataclass"])
    if not found:
        raise ValueError(f"{node['dataclass']!r} is not a predictor of fgjax")
    module = importlib.import_module(f"fgjax.{found[1]}")
    kind: Any = getattr(module, found[2])
    if kind.__module__ != module.__name__ or not hasattr(kind, "__dataclass_fields__"):
        raise ValueError(f"{node['dataclass']!r} is not a predictor of fgjax")
    return kind(**{name: unpack(item, package) for name, item in node["fields"].items()})


def _unpack_network(node: dict[str, Any], package: Package) -> Program:
    platform = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    weights = [package.arrays[name] for name in node["weights"]]
    return Program(package.programs[node["programs"][platform]], weights, tuple(node["shape"]))
