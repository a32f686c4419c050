"""What a method gets to work with: config, data, folders of stages, seeds."""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grain.python as grain
import jax
import numpy as np
import optax
from flax import nnx

from fgjax import models
from fgjax.config import Config, Data, Training, before, flatten
from fgjax.data import choosing
from fgjax.data.datasets import Dataset
from fgjax.data.loading import (
    ImageReader,
    Transform,
)
from fgjax.data.splits import few_of_each_class, split_held_out, split_held_out_classes
from fgjax.errors import UserError
from fgjax.training import forward, freezing, layer_decay, optimizer
from fgjax.training.fit import Batches, dtype_of, epoch_batches, fit
from fgjax.training.stage import Identity, Stage, changed_fields, disk_errors, write_json
from fgjax.training.step import Loss

__all__ = ["Run", "Stage", "disk_errors", "write_json"]

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclasses.dataclass
class Run:
    """A config, its dataset and its folders.

    Attributes:
      pool: where stages are kept by content instead of under the workdir; studies share stages.
      finished: whether its stages are used as they were trained, of whatever revision.
    """

    config: Config
    dataset: Dataset
    workdir: pathlib.Path
    pool: pathlib.Path | None = None
    finished: bool = False

    def __post_init__(self):
        self.config = models.name_weights(self.config)
        labels = self.dataset.train.labels
        data = self.config.data
        split = split_held_out_classes if data.zero_shot else split_held_out
        self.train_indices, self.held_out_indices = split(
            labels, data.held_out, seed=self.config.seed
        )
        if data.shots:
            own = np.asarray(labels)[self.train_indices]
            kept = few_of_each_class(own, data.shots, seed=self.config.seed)
            self.train_indices = self.train_indices[kept]
        self.stages: dict[str, Stage] = {}

    @property
    def database_indices(self) -> np.ndarray:
        """Training images that test images may be compared with: all; of `data.shots`, those."""
        if self.config.data.shots:
            return self.train_indices
        return np.arange(len(self.dataset.train))

    def key(self, *path: str) -> jax.Array:
        """A random key that depends on the seed and a name."""
        return jax.random.fold_in(jax.random.key(self.config.seed), _number("/".join(path)))

    def seed(self, *path: str) -> int:
        """A seed for NumPy and grain that depends on the config's seed and a name."""
        return _number(f"{self.config.seed}/{'/'.join(path)}") & 0x7FFFFFFF

    def stage(
        self,
        name: str,
        *settings: Any,
        after: tuple[Stage, ...] = (),
        shared: bool = False,
        revision: int = 1,
        **extra: Any,
    ) -> Stage:
        """The folder of a stage, decided by everything that its result depends on.

        Args:
          name: of the stage.
          *settings: config dataclasses that the stage reads.
          after: stages whose results it uses.
          shared: whether `config.reuse` must have it as this run wants it; any other stage is taken
            from there if it fits and trained if it does not.
          revision: raised whenever the stage's code computes something else from the same
            settings. Training takes no stage of another revision; a finished run keeps its own.
          **extra: further values that it depends on, fields of the method's config by their names.

        Raises:
          UserError: the folder holds a stage made with other settings; names the fields.
        """
        # A finished run is used as it was trained, whatever the code computes today.
        for used in range(revision, 0, -1) if self.finished else (revision,):
            identity = self._identity(name, settings, after, {**extra, "revision": used})
            found = self._reused(name, identity, shared=shared) or self._own(name, identity)
            if found.done and not changed_fields(found.folder, identity):
                self.stages[name] = found
                return found
        identity = self._identity(name, settings, after, {**extra, "revision": revision})
        self.stages[name] = self._begin(self._own(name, identity), identity)
        return self.stages[name]

    def _identity(
        self, name: str, settings: tuple, after: tuple[Stage, ...], extra: dict[str, Any]
    ) -> Identity:
        """Everything that a stage's result depends on."""
        config = self.config
        values = {
            "stage": name,
            "seed": config.seed,
            "backbone": config.backbone,
            "pretrained": config.pretrained,
            "dtype": config.dtype,
            "last_stride": config.last_stride,
            "pooling": config.pooling,
            "dropout": config.dropout,
            "freeze": config.freeze,
            "dataset": self.dataset.name,
            "dataset_fingerprint": self.dataset.fingerprint,
            "held_out": config.data.held_out,
            "shots": config.data.shots,
            "image_size": config.data.image_size,
            **flatten(config.data.augmentation, "augmentation."),
            **extra,
        }
        if config.data.zero_shot and config.data.held_out:
            values["held_out_by"] = "class"
        # What earlier versions left out, so that their stages are found: see `config.added`.
        earlier = {"revision": 1, **before(config), **before(config.method)}
        earlier |= before(config.data) | before(config.data.augmentation, "augmentation.")
        for setting in settings:
            values.update(flatten(setting))
            earlier |= before(setting)
        values.update({f"after.{stage.name}": stage.fingerprint for stage in after})
        return Identity(json.loads(json.dumps(values, sort_keys=True)), earlier)

    def _reused(self, name: str, identity: Identity, *, shared: bool) -> Stage | None:
        """The stage of `config.reuse`, where it fits.

        Raises:
          UserError: it does not fit, or has not finished, and is one that must.
        """
        if not self.config.reuse:
            return None
        other = self._at(pathlib.Path(self.config.reuse) / name, name, identity)
        changed = changed_fields(other.folder, identity)
        if changed and shared:
            raise UserError(
                f"{other.folder} cannot be reused: it holds a stage of another config "
                f"({'; '.join(changed)}); leave out --config.reuse or name another run."
            )
        if shared and not other.done:
            raise UserError(
                f"{self.config.reuse} cannot be reused: it has no finished stage {name}."
            )
        if not other.done or changed:
            return None
        log.info("%s: taken from %s", name, other.folder)
        return other

    def _own(self, name: str, identity: Identity) -> Stage:
        """The stage's folder under the workdir, or in the pool."""
        pooled = f"{name}-{identity.fingerprint}"
        folder = self.workdir / name if self.pool is None else self.pool / pooled
        return self._at(folder, name, identity)

    def _at(self, folder: pathlib.Path, name: str, identity: Identity) -> Stage:
        """The stage in a folder, whether or not there is one."""
        return Stage(name, folder, identity.fingerprint)

    def _begin(self, stage: Stage, identity: Identity) -> Stage:
        """Make the folder this stage's own.

        Raises:
          UserError: it is another's; names the fields.
        """
        changed = changed_fields(stage.folder, identity)
        if changed:
            raise UserError(
                f"{stage.folder} holds a stage of another config ({'; '.join(changed)}): choose "
                "another --workdir or remove that folder."
            )
        stage.begin(identity.values)
        return stage

    def train(
        self,
        stage: Stage,
        model: nnx.Module,
        loss: Loss,
        stream: grain.MapDataset,
        training: Training,
        *,
        name: str = "",
        step: str = "",
        images_per_example: int = 1,
        trainable: Any = nnx.Param,
        title: str = "",
        **options: Any,
    ) -> None:
        """`fit` on the training images of this run, in a stage's folder.

        Args:
          stage: where checkpoints and metrics go.
          model: trained in place.
          loss: as `fit` takes it.
          stream: of examples.
          training: epochs, batch size and optimizer.
          name: whose key decides the random numbers; the stage's by default.
          step: of a stage that trains several times, each in a sub-folder of its own.
          images_per_example: for the rate that is shown.
          trainable: nnx filter; what `config.freeze` names of a backbone in the model is left out.
          title: for the progress bar; the stage's name by default.
          **options: further arguments of `fit`.
        """
        batches = epoch_batches(
            stream,
            len(self.train_indices),
            training.batch_size,
            self.config.data,
            images_per_example=images_per_example,
        )
        steps, epochs = batches.steps_per_epoch, training.epochs
        updates = optimizer.make(training.optimizer, steps_per_epoch=steps, epochs=epochs)
        if (decay := training.optimizer.layer_decay) < 1:
            updates = optax.chain(updates, layer_decay.scale(model, decay))
        path = (name or stage.name, step) if step else (name or stage.name,)
        self._fit(
            model,
            loss,
            batches,
            optimizer=updates,
            trainable=freezing.unfrozen(model, trainable, self.config.freeze),
            ema=training.optimizer.ema,
            accumulate=training.optimizer.accumulate,
            epochs=epochs,
            keep_best=training.keep_best,
            key=self.key(*path),
            folder=stage.folder / step,
            saving=self.config.checkpoints,
            writing=self.config.writers,
            title=title or ": ".join(path),
            **options,
        )

    def _fit(self, model: nnx.Module, loss: Loss, batches: Batches, **options: Any) -> None:
        """The loop."""
        fit(model, loss, dataclasses.replace(batches, data=self._reading), **options)

    @functools.cached_property
    def _reading(self) -> Data:
        """The config's, with workers that the run's first loop measures if they are left open."""
        data = self.config.data
        return dataclasses.replace(data, workers=choosing.workers(self.dataset.train, data))

    def iterate(
        self,
        model: nnx.Module,
        source: ImageReader | Transform,
        rows: np.ndarray,
        *,
        batch_size: int,
        outputs_of: forward.OutputsOf,
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """`forward.iterate`: a network's outputs, batch by batch, and their rows."""
        return forward.iterate(model, source, rows, batch_size=batch_size, outputs_of=outputs_of)

    def outputs(
        self,
        model: nnx.Module,
        source: ImageReader | Transform,
        rows: np.ndarray,
        *,
        batch_size: int,
        outputs_of: forward.OutputsOf = forward.logits_of,
    ) -> dict[str, np.ndarray]:
        """The same for all rows at once: {name: [len(rows), …]}; logits by default."""
        found = self.iterate(model, source, rows, batch_size=batch_size, outputs_of=outputs_of)
        chunks = [outputs for outputs, _ in found]
        if len(chunks) == 1:
            return chunks[0]
        return {name: np.concatenate([one[name] for one in chunks]) for name in chunks[0]}

    def compute(self, function: Callable[[], T], *, instead: Callable[[], T]) -> T:
        """`function()`: work on results that means nothing, or takes long, without real ones.

        A dry run has only zeros; it takes `instead()`, which has the same shapes.
        """
        del instead
        return function()

    def build_model(self, *, name: str = "model", pretrained: bool = True) -> models.Backbone:
        """The config's backbone with a head for the dataset's classes."""
        config = self.config
        rngs = nnx.Rngs(self.key(name))
        model = models.build(
            config.backbone,
            num_classes=self.dataset.num_classes,
            rngs=rngs,
            dtype=dtype_of(config.dtype),
            last_stride=config.last_stride,
            pooling=config.pooling,
            dropout=config.dropout,
            remat=config.remat,
        )
        if config.pretrained and pretrained:
            models.load_pretrained(model, config.pretrained)
        return model

    def load_model(self, stage: Stage) -> models.Backbone:
        """The backbone as a finished stage left it."""
        model = self.build_model(pretrained=False)
        stage.restore_model(model)
        return model


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
