"""The training loop. There is one."""

import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import chex
import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fgjax import hosts
from fgjax.config import Checkpoints as CheckpointConfig
from fgjax.config import Data
from fgjax.data import loading
from fgjax.errors import UserError
from fgjax.training import checkpoints, preemption, sharding
from fgjax.training.logging import MetricsWriter
from fgjax.training.stage import write_json
from fgjax.training.step import Batch, Loss, Metrics, initial_state, make_step, variables

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batches:
    """A stream of examples and how it is cut into steps and epochs."""

    dataset: grain.MapDataset
    batch_size: int
    steps_per_epoch: int
    data: Data
    images_per_example: int = 1


def epoch_batches(
    dataset: grain.MapDataset,
    count: int,
    batch_size: int,
    data: Data,
    *,
    images_per_example: int = 1,
) -> Batches:
    """Batches of a stream over `count` examples; an epoch has count // batch_size steps, or 1."""
    steps = max(count // batch_size, 1)
    return Batches(dataset, batch_size, steps, data, images_per_example)


def fit(
    model: nnx.Module,
    loss: Loss,
    batches: Batches,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    folder: pathlib.Path,
    trainable: Any = nnx.Param,
    ema: float = 0.0,
    accumulate: int = 1,
    before_epoch: Callable[[nnx.Module, int, jax.Array], Any] | None = None,
    evaluator: Callable[[nnx.Module, int], dict[str, float]] | None = None,
    keep_best: bool = False,
    saving: CheckpointConfig | None = None,
    writing: str = "tensorboard",
    title: str = "",
) -> None:
    """Train a model in place, resuming where an earlier call with the same folder stopped.

    Args:
      model: trained in place.
      loss: pure `loss(model, batch, statistics, key) -> (scalar, metrics)`.
      batches: the data; step k always sees the same batch.
      optimizer: applied to the trainable variables.
      epochs: passes to make.
      key: from which each step's and epoch's key is folded.
      folder: for checkpoints and metrics.
      trainable: nnx filter. A module without a trainable parameter keeps its batch norm in
        evaluation mode.
      ema: decay of the parameters' and running statistics' average (`step.moved`), which the
        evaluator sees and which the model ends with; 0: none.
      accumulate: micro-batches that a batch is cut into; the loss sees one at a time.
      before_epoch: `(model, epoch, key) -> statistics`, arrays of fixed shape that every step of
        the epoch gets, from the parameters that are trained, not their average; they are saved,
        because in mid-epoch they cannot be recomputed.
      evaluator: `(model, epoch) -> metrics`, called every `saving.evaluate_every` epochs.
      keep_best: with an evaluator, call it after every epoch, and end with the network of the one
        whose first metric was highest; of equal ones the last.
      saving: when to save and to evaluate.
      writing: names of writers, as `config.writers`.
      title: for the progress bar.

    Raises:
      UserError: a loss or gradient is not finite; the last checkpoint is intact. Or batches cannot
        be cut into micro-batches.
    """
    saving = saving or CheckpointConfig()
    require_micro_batches(batches.batch_size, accumulate)
    set_mode(model, trainable)
    graph, trained, rest = nnx.split(model, trainable, ...)
    state = sharding.replicate(initial_state(model, trainable, optimizer.init, ema=ema))
    step_function = make_step(
        graph, trained, rest, loss, optimizer, trainable, key, ema=ema, accumulate=accumulate
    )

    def current_model(*, averaged: bool) -> nnx.Module:
        current = nnx.merge(graph, trained, rest, copy=True)
        checkpoints.load_model(current, variables(state, averaged=averaged))
        current.eval()
        return current

    def statistics_for(epoch: int) -> Any:
        if before_epoch is None:
            return {}
        model = current_model(averaged=False)
        drawn = before_epoch(model, epoch, jax.random.fold_in(key, 2**31 - 1 - epoch))
        return sharding.replicate(drawn)

    keep_best = keep_best and evaluator is not None
    store = checkpoints.Checkpoints(folder, keep=saving.keep, best=keep_best)
    latest = store.latest()
    step, total = latest or 0, epochs * batches.steps_per_epoch
    statistics: Any = None
    if latest is not None:
        statistics = statistics_for(0)  # for its structure
        step, restored = store.restore({**state, "statistics": statistics})
        statistics = restored.pop("statistics")
        state.update(restored)
        log.info("%s resumes at step %d of %d", title or folder.name, step, total)
    writer = MetricsWriter(
        folder, resumed_step=step, total_steps=total, title=title or folder.name, writing=writing
    )
    feed = _prefetch(
        loading.batches(
            batches.dataset,
            batch_size=batches.batch_size,
            start=step,
            stop=total,
            data=batches.data,
        )
    )
    pending: list[tuple[int, Metrics]] = []
    history = _EpochClock(batches, folder)
    history.resume(step)
    with preemption.loop() as asked_to_end, closing(store), closing(writer):
        while step < total:
            epoch = step // batches.steps_per_epoch
            if step % batches.steps_per_epoch == 0:
                statistics = statistics_for(epoch)
                history.start()
            batch = next(feed)
            chex.assert_tree_shape_prefix(batch, (batches.batch_size,))
            state, metrics = step_function(state, statistics, batch, step)
            step += 1
            pending.append((step, metrics))
            history.step()
            if len(pending) >= 2:  # wait for the step before, so that the queue stays short
                jax.block_until_ready(pending[-2][1])
            writer.advance(1, **history.rates())
            ends_epoch = step % batches.steps_per_epoch == 0
            saves = ends_epoch or (saving.every_steps and step % saving.every_steps == 0)
            ends = asked_to_end() and step < total
            if saves or ends:
                means = _flush(pending, history, folder)
                score = None
                if ends_epoch:
                    means.update(history.summary())
                    done = epoch + 1
                    if evaluator is not None and (keep_best or looks(saving, done, epochs)):
                        seen = evaluator(current_model(averaged=True), done)
                        score = next(iter(seen.values())) if keep_best else None
                        means.update(seen)
                    writer.write(step, done, means)
                else:
                    history.keep(step)
                # Last: a crash before it makes the resumed run write the epoch's metrics again.
                store.save(step, {**state, "statistics": statistics}, score=score)
            if ends:
                store.wait()
                raise preemption.Preempted(
                    f"SIGTERM: {title or folder.name} is saved at step {step} of {total}; the "
                    "same command goes on there."
                )
        if keep_best and total:
            step, best = store.restore_best({**state, "statistics": statistics})
            log.info("%s: the best epoch on held-out images was %d of %d", title or folder.name,
                     step // batches.steps_per_epoch, epochs)  # fmt: skip
            state.update({name: best[name] for name in state})
    compiled = step_function.programs()
    log.debug("%s: the step was compiled %d times", title, compiled)
    checkpoints.load_model(model, variables(state))
    model.eval()


def looks(saving: CheckpointConfig, done: int, epochs: int) -> bool:
    """Whether the evaluator is called after `done` of so many epochs; at the end it always is."""
    return done == epochs or bool(saving.evaluate_every and done % saving.evaluate_every == 0)


def require_micro_batches(batch_size: int, accumulate: int) -> None:
    """Refuse batches that cannot be cut evenly; config.check has seen those that a config says.

    Raises:
      UserError: they cannot.
    """
    if accumulate > 1 and batch_size % (accumulate * len(hosts.devices())):
        raise UserError(
            f"batches of {batch_size} cannot be cut into {accumulate} micro-batches that split "
            f"over {len(hosts.devices())} device(s): choose another optimizer.accumulate."
        )


def set_mode(model: nnx.Module, trainable: Any) -> None:
    """Training mode for modules with a trainable parameter, evaluation mode for all others."""
    trained = set(nnx.to_flat_state(nnx.state(model, trainable)).paths)
    model.eval()
    for path, module in nnx.iter_modules(model):
        # Dropout has no parameters of its own: it goes with the module that it stands in.
        scope = path[:-1] if hasattr(module, "deterministic") else path
        if any(p[: len(scope)] == scope for p in trained):
            for name in {"use_running_average", "deterministic"} & vars(module).keys():
                setattr(module, name, False)


def _prefetch(iterator: Iterator[Any]) -> Iterator[Batch]:
    """Keep one batch on its way to the devices while the step runs."""
    ready = None
    for batch in iterator:
        following = sharding.shard(batch)
        if ready is not None:
            yield ready
        ready = following
    if ready is not None:
        yield ready


def _flush(pending: list[tuple[int, Metrics]], history: "_EpochClock", folder) -> dict[str, float]:
    """Fetch the pending metrics, refuse what is not finite, and return the epoch's means."""
    fetched = jax.device_get(pending)
    pending.clear()
    for step, metrics in fetched:
        for name in ("loss", "gradient_norm"):
            if not np.isfinite(metrics[name]):
                raise UserError(
                    f"the {name.replace('_', ' ')} is {metrics[name]} at step {step} of "
                    f"{folder.name}: lower its learning_rate or set optimizer.clip; the last "
                    "checkpoint is intact, and the same command resumes there."
                )
    return history.add([metrics for _, metrics in fetched])


class _EpochClock:
    """Rates and means of the running epoch.

    What was seen of an epoch that is saved in its midst lies beside the checkpoint.
    """

    def __init__(self, batches: Batches, folder: pathlib.Path):
        self._images = batches.batch_size * batches.images_per_example
        self._steps_per_epoch = batches.steps_per_epoch
        self._path = folder / "checkpoints" / "epoch.json"
        self.start()

    def keep(self, step: int) -> None:
        """Write down the metrics of the epoch's steps so far."""
        write_json(self._path, {"began": step - len(self._metrics), "metrics": self._metrics})

    def resume(self, step: int) -> None:
        """Read them, where the loop goes on in mid-epoch, at that step or an earlier one."""
        known, done = hosts.same(self._kept), step % self._steps_per_epoch
        if known.get("began") == step - done and len(known["metrics"]) >= done:
            self._metrics = known["metrics"][:done]

    def _kept(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}

    def start(self) -> None:
        self._began, self._steps, self._metrics = time.monotonic(), 0, []

    def step(self) -> None:
        self._steps += 1

    def rates(self) -> dict[str, str]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {"images/s": f"{self._steps * self._images / seconds:.0f}"}

    def add(self, metrics: list[Metrics]) -> dict[str, float]:
        self._metrics += [{name: float(value) for name, value in one.items()} for one in metrics]
        names = self._metrics[0]
        return {n: float(np.mean([m[n] for m in self._metrics])) for n in names}

    def summary(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {"images_per_second": self._steps * self._images / seconds, "epoch_seconds": seconds}


def dtype_of(name: str) -> Any:
    """The compute dtype by its config name."""
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[name]
