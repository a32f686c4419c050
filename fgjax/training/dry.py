"""A run that does no work: it passes through a method's own code with zeros and counts.

Training is traced and compiled by shapes, forward passes give zeros of the shapes that they would
have, networks hold zeros, and stages keep in memory what they would have written.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.data.loading import Example, ImageReader, Transform, transform_of
from fgjax.training import fit, forward, sharding
from fgjax.training.run import Run, T
from fgjax.training.stage import Identity, Stage
from fgjax.training.step import Loss, initial_state


class Memory(NamedTuple):
    """Bytes on each device during a step.

    Attributes:
      peak: what the compiled step is given and returns, and what it needs in between.
      model: of it, parameters and running averages.
      optimizer: its state, and the parameters' running average.
      batch: a device's share of the examples.
    """

    peak: int
    model: int
    optimizer: int
    batch: int


@dataclasses.dataclass
class Cost:
    """What one stage takes.

    Attributes:
      name: the stage's.
      found: where it is finished already, so that it takes nothing.
      steps: of training.
      trained_images: read from the data by these steps.
      evaluated_images: read by forward passes between and after them.
      parameters: of the largest network that is trained.
      trained_parameters: the most of them that are trained at once.
      operations: floating-point operations of steps and forward passes, as XLA counts them.
      memory: of the step that needs most.
    """

    name: str
    found: pathlib.Path | None = None
    steps: int = 0
    trained_images: int = 0
    evaluated_images: int = 0
    parameters: int = 0
    trained_parameters: int = 0
    operations: float = 0.0
    memory: Memory | None = None


@dataclasses.dataclass
class DryStage(Stage):
    """A stage whose artifacts stay in memory; a finished one's are read from its folder."""

    scratch: pathlib.Path
    on_disk: bool  # whether what lies in the folder can be this stage's
    arrays: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    measured: dict[str, Any] | None = None

    @property
    def found(self) -> bool:
        """Whether an earlier run finished the stage."""
        return self.on_disk and super().done

    @property
    def done(self) -> bool:
        """Whether an earlier run, or this one, finished the stage."""
        return self.measured is not None or self.found

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured, on zeros unless the stage was found."""
        return super().metrics if self.measured is None else json.loads(json.dumps(self.measured))

    def begin(self, identity: dict[str, Any]) -> None:
        """Give a method that writes files by itself a folder that will be gone."""
        self.folder = self.scratch / self.name
        self.folder.mkdir(parents=True, exist_ok=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Keep the metrics."""
        self.measured = metrics

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Keep an artifact."""
        self.arrays[name] = arrays

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """The artifact that was kept, or that lies in a finished stage's folder."""
        return dict(self.arrays[name]) if name in self.arrays else super().load_arrays(name)

    def save_json(self, name: str, value: Any) -> None:
        """Nothing is written."""

    def save_model(self, model: nnx.Module) -> None:
        """Nothing is written."""

    def restore_model(self, model: nnx.Module) -> None:
        """Parameters stay as they are."""
        model.eval()


@dataclasses.dataclass
class DryRun(Run):
    """A `Run` that does nothing but count.

    Attributes:
      scratch: a folder that will be removed.
      known: whether the dataset is the real one, so that finished stages can be told.
      compiles: whether steps are compiled for their memory and operations.
    """

    scratch: pathlib.Path = pathlib.Path()
    known: bool = True
    compiles: bool = True

    def __post_init__(self):
        super().__post_init__()
        self.costs: dict[str, Cost] = {}
        self._current = Cost("")  # the stage that work belongs to
        self._at_folder: dict[pathlib.Path, DryStage] = {}
        self._analyses: dict[Hashable, Any] = {}
        # The same for a network that is being trained, and so stays what it is from epoch to epoch.
        self._of_epochs: dict[Hashable, Any] = {}
        self._in_fit = False

    # Stages

    def stage(self, name: str, *settings: Any, **options: Any) -> Stage:
        """As a run's; what follows is counted as this stage's work."""
        stage = super().stage(name, *settings, **options)
        if name not in self.costs:
            found = cast(DryStage, stage).found
            self.costs[name] = Cost(name, stage.folder if found else None)
        self._current = self.costs[name]
        return stage

    def _at(self, folder: pathlib.Path, name: str, identity: Identity) -> Stage:
        if folder not in self._at_folder:
            self._at_folder[folder] = DryStage(
                name, folder, identity.fingerprint, scratch=self.scratch, on_disk=self.known
            )
        return self._at_folder[folder]

    def _reused(self, name: str, identity: Identity, *, shared: bool) -> Stage | None:
        return super()._reused(name, identity, shared=shared) if self.known else None

    def _begin(self, stage: Stage, identity: Identity) -> Stage:
        if self.known:
            return super()._begin(stage, identity)
        stage.begin(identity.values)
        return stage

    # Work

    def key(self, *path: str) -> jax.Array:
        """A key whose numbers mean nothing, of the generator that compiles in half the time."""
        del path
        return jax.random.key(0, impl="unsafe_rbg")

    def build_model(self, *, name: str = "model", pretrained: bool = True) -> models.Backbone:
        """The backbone with zeros for parameters."""
        del name, pretrained
        if "backbone" not in self._analyses:
            build = lambda: super(DryRun, self).build_model(pretrained=False)  # noqa: E731
            self._analyses["backbone"] = nnx.split(nnx.eval_shape(build))
        graph, state = self._analyses["backbone"]
        # NumPy's zeros take no memory until they are written to.
        return nnx.merge(graph, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state))

    def compute(self, function: Callable[[], T], *, instead: Callable[[], T]) -> T:
        """`instead()`."""
        del function
        return instead()

    def iterate(
        self,
        model: nnx.Module,
        source: ImageReader | Transform,
        rows: np.ndarray,
        *,
        batch_size: int,
        outputs_of: forward.OutputsOf,
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """All rows in one batch of zeros that take no memory."""
        if not len(rows):
            return
        example = transform_of(source)(0, int(rows[0]))
        batch = _batch_of(example, sharding.divisible(batch_size))
        outputs, operations = self._forward_analysis(model, outputs_of, batch)
        self._current.evaluated_images += len(rows) * _images_in(example)
        self._current.operations += operations * -(-len(rows) // sharding.divisible(batch_size))
        yield (
            {
                name: np.broadcast_to(np.zeros((), leaf.dtype), (len(rows), *leaf.shape[1:]))
                for name, leaf in outputs.items()
            },
            np.asarray(rows),
        )

    def _forward_analysis(
        self, model: nnx.Module, outputs_of: forward.OutputsOf, batch: Example
    ) -> tuple[dict[str, jax.ShapeDtypeStruct], float]:
        """Shapes of the outputs, and operations of a forward pass."""
        again = (id(model), outputs_of, _hashable(batch))
        if again in self._of_epochs:
            return self._of_epochs[again]
        model.eval()
        key = (nnx.split(model)[0], *again[1:])
        if key not in self._analyses:
            traced = forward.trace(model, outputs_of, batch)
            found = _operations(traced.lower()) if self.compiles else 0.0
            self._analyses[key] = traced.out_info, found
        if self._in_fit:
            self._of_epochs[again] = self._analyses[key]
        return self._analyses[key]

    def _fit(
        self,
        model: nnx.Module,
        loss: Loss,
        batches: fit.Batches,
        *,
        optimizer: Any,
        epochs: int,
        key: jax.Array,
        saving: Any,
        trainable: Any,
        ema: float,
        accumulate: int,
        before_epoch: Callable[..., Any] | None = None,
        evaluator: Callable[..., Any] | None = None,
        keep_best: bool = False,
        **others: Any,
    ) -> None:
        """What happens between the steps as `fit` does it, and the step once."""
        del others
        fit.require_micro_batches(batches.batch_size, accumulate)
        cost, statistics = self._current, {}
        model.eval()
        self._in_fit = True
        for epoch in range(epochs):
            if before_epoch is not None:
                statistics = before_epoch(model, epoch, key)
            looks = keep_best or fit.looks(saving, epoch + 1, epochs)
            if evaluator is not None and looks:
                evaluator(model, epoch + 1)
        self._in_fit = False
        self._of_epochs.clear()
        if not epochs:
            return
        example = cast(Example, batches.dataset[0])
        steps = epochs * batches.steps_per_epoch
        step = AbstractStep(
            model, loss, _batch_of(example, batches.batch_size),
            optimizer=optimizer, statistics=statistics, trainable=trainable, ema=ema,
            accumulate=accumulate,
        )  # fmt: skip
        cost.steps += steps
        cost.trained_images += steps * batches.batch_size * _images_in(example)
        cost.parameters = max(cost.parameters, _size(nnx.state(model, nnx.Param)))
        cost.trained_parameters = max(cost.trained_parameters, _size(step.state["trained"]))
        if self.compiles:
            if step.key not in self._analyses:
                self._analyses[step.key] = step.analyse()
            memory, operations = self._analyses[step.key]
            cost.operations += steps * operations
            peaks = [m for m in (cost.memory, memory) if m]
            cost.memory = max(peaks, default=None)  # by the peak, which stands first
        model.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what a method says about its results, which are zeros here."""
    log = logging.getLogger("fgjax")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class AbstractStep:
    """The step of `fit` by the shapes of what it is given."""

    def __init__(
        self,
        model: nnx.Module,
        loss: Loss,
        batch: Example,
        *,
        optimizer: Any,
        statistics: Any,
        trainable: Any = nnx.Param,
        ema: float = 0.0,
        accumulate: int = 1,
    ):
        fit.set_mode(model, trainable)
        graph, trained, rest = nnx.split(model, trainable, ...)
        init = functools.partial(jax.eval_shape, optimizer.init)
        self.state = sharding.abstract(initial_state(model, trainable, init, ema=ema))
        self.statistics = sharding.abstract(statistics)
        self.batch = sharding.abstract(batch, split=True)
        self.loss, self.accumulate = loss, accumulate
        self._make = functools.partial(
            fit.make_step, graph, trained, rest, loss, optimizer, trainable, jax.random.key(0),
            ema=ema,
        )  # fmt: skip
        # Learning rates and random keys differ from stage to stage, and take the same memory.
        given = _hashable((self.state, self.statistics, self.batch))
        self.key = (graph, loss, repr(trainable), accumulate, given)

    def compile(self) -> tuple[jax.stages.Lowered, jax.stages.Compiled]:
        """The step as `fit` compiles it, on a CPU without the optimizations of machine code."""
        lowered = self._lowered(self.accumulate)
        quick: dict[str, str | bool] = {}
        if jax.default_backend() == "cpu":
            quick = {"xla_backend_optimization_level": "0"}
        return lowered, lowered.compile(compiler_options=quick)

    def _lowered(self, accumulate: int) -> jax.stages.Lowered:
        step = self._make(accumulate=accumulate)
        return step.lower(self.state, self.statistics, self.batch, 0)

    def analyse(self) -> tuple[Memory | None, float]:
        """Memory on each device and operations on all of them."""
        lowered, compiled = self.compile()
        # XLA counts what a loop does once, so micro-batches are counted as the batch that they are.
        operations = _operations(lowered if self.accumulate == 1 else self._lowered(1))
        found = compiled.memory_analysis()
        if found is None:  # a backend that does not say
            return None, operations
        peak = (
            found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
            - found.alias_size_in_bytes
        )  # fmt: skip
        memory = Memory(
            peak,
            model=_bytes(self.state["trained"]) + _bytes(self.state["rest"]),
            optimizer=_bytes(self.state["optimizer"]) + _bytes(self.state.get("average", {})),
            batch=_bytes(self.batch) // jax.device_count(),
        )
        return memory, operations


def _batch_of(example: Example, size: int) -> Example:
    """Shapes of a batch of examples like one."""
    return {
        name: jax.ShapeDtypeStruct((size, *np.shape(value)), np.asarray(value).dtype)
        for name, value in example.items()
    }


def _images_in(example: Example) -> int:
    """How many images an example holds: sets and parts have more than one, features none."""
    return int(np.prod(np.shape(example["image"])[:-3])) if "image" in example else 0


def _operations(lowered: jax.stages.Lowered) -> float:
    return max((lowered.cost_analysis() or {}).get("flops", 0.0), 0.0)


def _size(tree: Any) -> int:
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _hashable(tree: Any) -> Hashable:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
