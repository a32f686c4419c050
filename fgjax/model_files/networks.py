"""A network in a model file: programs for each kind of device, and what it is built anew from.

A node is {"shape": of one example, "weights": names of arrays, "static": numbers and words by
place, "programs": members by platform}. Programs are what is run. JAX reads them for half a year at
least; where it does not any more, the network is built from its config, and gets the weights. In a
file of ONNX the platform is "onnx", and the program has the weights.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export

from fgjax import compilation
from fgjax.errors import UserError
from fgjax.methods.shared import predictor
from fgjax.methods.shared.predictor import Network
from fgjax.model_files import onnx_files
from fgjax.models import sums

# Programs are written as each kind of device wants them (`fgjax.models.sums`).
PLATFORMS = {"cpu": ("cpu",), "accelerator": ("cuda", "tpu")}


@dataclasses.dataclass
class Package:
    """What nodes refer to.

    Attributes:
      arrays: by name; equal ones are kept once.
      programs: StableHLO, or ONNX, by the member's name.
      onnx: whether ONNX is written.
      rebuilt: {name: network} without its weights, for those whose program cannot be read; it
        raises UserError where there is no way to build them.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    programs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    rebuilt: Callable[[], dict[str, Network]] = dict
    onnx: bool = False
    _known: dict[str, str] = dataclasses.field(default_factory=dict)

    def keep(self, name: str, array: np.ndarray) -> str:
        """The name under which an array is kept."""
        content = np.ascontiguousarray(array)
        text = f"{content.dtype} {content.shape}".encode()
        digest = hashlib.sha256(text + content.tobytes()).hexdigest()
        if digest not in self._known:
            self._known[digest], self.arrays[name] = name, content.reshape(np.shape(array))
        return self._known[digest]


def pack(network: Network, name: str, package: Package) -> dict[str, Any]:
    """The node of a network; its weights and programs go into the package.

    Raises:
      UserError: ONNX is wanted, and this network cannot be written so.
    """
    member = f"networks/{name.replace('_', '')}"
    if package.onnx:
        package.programs[f"{member}.onnx"] = onnx_files.write(network)
        return {"shape": list(network.shape), "weights": [], "programs": {"onnx": f"{member}.onnx"}}
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
        programs[platform] = f"{member}.{platform}.stablehlo"
        with sums.written_for(platform):
            written = program_of(said, arrays, network.shape, devices)
        package.programs[programs[platform]] = written
    static = {place: getattr(module, key) for place, module, key in _static(network.model)}
    return {"shape": list(network.shape), "weights": weights, "static": static,
            "programs": programs}  # fmt: skip


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


def _static(model: nnx.Module) -> Iterator[tuple[str, nnx.Module, str]]:
    """Places of the numbers and words that modules hold, with the module and its attribute."""
    for path, module in nnx.iter_graph(model):
        if isinstance(module, nnx.Module):
            for key, value in vars(module).items():
                if isinstance(value, bool | int | float | str):
                    yield ".".join(map(str, (*path, key))), module, key


class Program:
    """A network of a model file, compiled by fgjax's own options: plainly, XLA would err.

    Raises:
      ValueError: it cannot be read: it was written too long ago, or by a newer JAX.
    """

    def __init__(self, written: bytes, weights: list[np.ndarray], shape: tuple[int, ...]):
        exported = export.deserialize(bytearray(written))
        exported.mlir_module()  # reads the program itself
        self.shape, self._weights = shape, weights
        self._on_device: list[jax.Array] | None = None
        self._run = compilation.jit(exported.call)

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, a row for each example."""
        if self._on_device is None:
            self._on_device = [jax.device_put(array) for array in self._weights]
        return jax.device_get(self._run(self._on_device, pixels))


def unpack(node: dict[str, Any], name: str, package: Package) -> predictor.Program:
    """What was packed under a name, ready to be called.

    Raises:
      UserError: its program cannot be read, and it cannot be built anew.
      KeyError, ValueError: it is no node, or refers to what is not there.
    """
    if "onnx" in node["programs"]:
        written = package.programs[node["programs"]["onnx"]]
        return onnx_files.OnnxProgram(written, tuple(node["shape"]))
    platform = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    weights = [package.arrays[name] for name in node["weights"]]
    written, shape = package.programs[node["programs"][platform]], tuple(node["shape"])
    try:
        return Program(written, weights, shape)
    except (ValueError, NotImplementedError, AssertionError) as error:
        try:
            network = package.rebuilt()[name]
        except (UserError, KeyError) as further:
            raise UserError(
                f"{name}'s program cannot be read by JAX {jax.__version__} ({error}), nor the "
                f"network be built anew ({further}): export the run again."
            ) from error
        return _with_weights(network, weights, node.get("static", {}))


def _with_weights(
    network: Network, weights: list[np.ndarray], static: dict[str, bool | int | float | str]
) -> Network:
    """A network that was built anew, as it was when it was packed."""
    for place, module, key in _static(network.model):
        if type(static.get(place)) is type(getattr(module, key)):
            setattr(module, key, static[place])
    graph, state = nnx.split(network.model)
    structure = jax.tree.structure(state)
    if structure.num_leaves != len(weights):
        raise UserError(
            f"the network has {structure.num_leaves} arrays today, and the file has {len(weights)}"
        )
    leaves = [jax.device_put(array) for array in weights]
    model = nnx.merge(graph, jax.tree.unflatten(structure, leaves))
    model.eval()
    return dataclasses.replace(network, model=model)
