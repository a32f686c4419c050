"""A network as ONNX, weights included, for machines without JAX: `fgjax export --format=onnx`."""

import warnings
from typing import Any

import jax
import numpy as np
from flax import nnx

from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Network
from fgjax.models import sums

PIXELS = "pixels"  # the input: uint8 [batch, H, W, 3]


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(
            f"ONNX needs the package {name}, which is not installed: pip install 'fgjax[onnx]'."
        ) from error


def write(network: Network) -> bytes:
    """ONNX of a network for batches of any size; its outputs have their names.

    Raises:
      UserError: a package is missing, or the network has an operation that ONNX does not.
    """
    jax2onnx = _library("jax2onnx")
    onnx = _library("onnx")

    graph, state = nnx.split(network.model)
    leaves, structure = jax.tree.flatten(state)

    def said(pixels: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, jax.tree.unflatten(structure, leaves))
        return dict(network.outputs_of(model, {"image": pixels}))

    pixels = jax.ShapeDtypeStruct(("batch", *network.shape), np.uint8)
    with sums.written_for("onnx"):
        two = jax.ShapeDtypeStruct((2, *network.shape), np.uint8)
        outputs = jax.eval_shape(said, two)
        try:
            with warnings.catch_warnings(action="ignore"):  # of the converter's own constants
                model = jax2onnx.to_onnx(said, [pixels])
        except Exception as error:  # of many kinds, none of them documented
            raise UserError(
                f"this network cannot be written as ONNX ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no reason given'}): leave out "
                "--format=onnx."
            ) from error
    del model.graph.value_info[:]  # what the converter says of inner types is not always true
    _narrow(onnx, model.graph)
    _rename_input(model.graph)
    names = sorted(outputs)  # as JAX orders a dict
    given = [output.name for output in model.graph.output]
    del model.graph.output[:]
    for name, tensor in zip(names, given, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [tensor], [name]))
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(outputs[name].dtype))
        shape = ["batch", *outputs[name].shape[1:]]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return model.SerializeToString()


def _narrow(onnx: Any, graph: Any) -> None:
    """Constants that the converter made float64 are float32, as all of the network is."""
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                _narrow(onnx, attribute.g)
            elif (node.op_type, attribute.name, attribute.i) == ("Cast", "to", double):
                attribute.i = single
    for tensor in tensors:
        if tensor.data_type == double:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _rename_input(graph: Any) -> None:
    """The one input gets its name wherever it is used."""
    old = graph.input[0].name
    graph.input[0].name = PIXELS
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = PIXELS


class OnnxProgram:
    """A network of a model file, run by ONNX Runtime.

    Raises:
      UserError: ONNX Runtime is not installed, or cannot read it.
    """

    def __init__(self, written: bytes, shape: tuple[int, ...]):
        runtime = _library("onnxruntime")
        try:
            self._session = runtime.InferenceSession(
                written, providers=runtime.get_available_providers()
            )
        except Exception as error:
            raise UserError(f"ONNX Runtime cannot read a network of it ({error}).") from error
        self.shape = shape
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, a row for each example."""
        found = self._session.run(self._names, {PIXELS: np.ascontiguousarray(pixels)})
        return dict(zip(self._names, map(np.asarray, found), strict=True))
