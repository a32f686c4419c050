"""Arrays of losses, evaluation and localization: annotated, and held to it while tests run."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fgjax import losses
from fgjax.evaluation import fusion, rerank, retrieval
from fgjax.localization import boxes, grouping, regions
from tests.conftest import CHECKED

# Says neither what an array's shape is nor that there is none.
UNSAID = (inspect.Parameter.empty, typing.Any, object, jax.Array, np.ndarray)


def modules():
    """Of the three packages; the forward passes beside them know no shapes but the network's."""
    for name in CHECKED:
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            yield package
            for found in pkgutil.iter_modules(package.__path__, f"{name}."):
                yield importlib.import_module(found.name)


def public(kind):
    """Everything of this kind that one of the modules defines, by its full name."""
    return {
        f"{module.__name__}.{name}": value
        for module in modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and kind(value) and value.__module__ == module.__name__
    }


def leaves(annotation):
    """The types inside of an annotation, through unions, containers and callables."""
    if isinstance(annotation, list):  # the arguments of a callable
        return [leaf for inner in annotation for leaf in leaves(inner)]
    arguments = typing.get_args(annotation)
    return [leaf for inner in arguments for leaf in leaves(inner)] or [annotation]


def is_shaped(leaf):
    return isinstance(leaf, type) and issubclass(leaf, jaxtyping.AbstractArray)


def annotations(function):
    """What a function takes and returns, by name; options that are handed on are their owner's."""
    signature = inspect.signature(function)
    found = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if not (parameter.kind is parameter.VAR_KEYWORD and name == "options")
    }
    return {**found, "return": signature.return_annotation}


FUNCTIONS = public(inspect.isfunction)
RECORDS = public(
    lambda x: inspect.isclass(x) and (dataclasses.is_dataclass(x) or hasattr(x, "_fields"))
)


def test_there_is_something_to_look_at():
    assert len(FUNCTIONS) > 60 and len(RECORDS) >= 4
    assert {f"fgjax.losses.{module}" for module in ("margin", "tuples", "in_batch")} <= {
        name.rpartition(".")[0] for name in FUNCTIONS
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_array_has_a_shape(name):
    said = annotations(FUNCTIONS[name])
    vague = [title for title, given in said.items() if set(leaves(given)) & set(UNSAID)]
    assert not vague, f"{name}: annotate {', '.join(vague)} with jaxtyping"
    assert any(is_shaped(leaf) for given in said.values() for leaf in leaves(given))


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_has_a_shape(name):
    said = typing.get_type_hints(RECORDS[name])
    assert said and not [title for title, given in said.items() if set(leaves(given)) & set(UNSAID)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_checked(name):
    """The hook's wrapper has the function inside."""
    assert hasattr(FUNCTIONS[name], "__wrapped__")


def of(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


WRONG: dict[str, Callable] = {
    "two depths": lambda: losses.euclidean(of(2, 3), of(2, 4)),
    "two batches": lambda: losses.triplet_loss(of(2, 3), of(2, 3), of(3, 3)),
    "a rank": lambda: losses.part_distance(of(2, 3, 3)),
    "a number of labels": lambda: losses.contrastive_loss(jnp.zeros((2, 3)), of(3, dtype=int)),
    "labels that are no integers": lambda: losses.contrastive_loss(of(2, 3), of(2)),
    "a traced shape": lambda: jax.jit(losses.decorrelation)(of(3)),
    "fields of a record": lambda: losses.MarginStatistics(m1=jnp.zeros(2), sigma=jnp.zeros(3)),
    "weights": lambda: fusion.fuse(of(3, 5, 4), of(2)),
    "a database": lambda: retrieval.nearest(of(2, 3), of(4, 5), count=1),
    "labels of a database": lambda: rerank(of(2, 3), of(2, 4), of(6, 4), of(5, dtype=int), top_m=1),
    "boxes of three": lambda: boxes.area(of(2, 3)),
    "boxes that do not broadcast": lambda: boxes.iou(of(2, 4), of(3, 4)),
    "gates of other channels": lambda: grouping.part_scores(of(1, 2, 2, 5), of(1, 3, 4)),
    "images without a batch": lambda: regions.crop_and_resize(of(8, 8, 3), of(1, 2, 4), size=4),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_shape_is_refused_while_tests_run(case):
    with pytest.raises(jaxtyping.TypeCheckError, match="Type-check error"):
        WRONG[case]()


def test_a_wrong_result_is_refused_while_tests_run(monkeypatch):
    monkeypatch.setattr(losses.common, "safe_sqrt", lambda x: x[..., None])
    with pytest.raises(jaxtyping.TypeCheckError, match="checking the return value"):
        losses.euclidean(of(2, 3), of(2, 3))


def test_outside_of_tests_nothing_is_checked_and_nothing_wrapped():
    program = """
import sys
from fgjax import losses, localization
from fgjax.evaluation import retrieval
for function in (losses.euclidean, localization.nms, retrieval.nearest):
    assert not hasattr(function, "__wrapped__"), function
losses.MarginStatistics(m1="neither shape", sigma="nor type")
assert "beartype" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
