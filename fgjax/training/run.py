"""What a method gets to work with: config, data, folders of stages, seeds."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import shutil
from typing import Any, cast

import grain.python as grain
import jax
import numpy as np
from flax import nnx

from fgjax import models
from fgjax.config import Config, Training, before, differences, flatten, without_added
from fgjax.data.datasets import Dataset
from fgjax.data.loading import split_held_out
from fgjax.errors import UserError
from fgjax.training import checkpoints, optimizer
from fgjax.training.fit import Loss, dtype_of, epoch_batches, fit

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Stage:
    """One stage's folder: checkpoints, artifacts, and `done.json` once it has finished."""

    name: str
    folder: pathlib.Path
    fingerprint: str

    @property
    def done(self) -> bool:
        """Whether an earlier run finished the stage."""
        return (self.folder / "done.json").exists()

    @property
    def metrics(self) -> dict[str, Any]:
        """What the finished stage measured."""
        return json.loads((self.folder / "done.json").read_text())

    def finish(self, metrics: dict[str, Any]) -> None:
        """Mark the stage as done; its loop's checkpoints are not needed any more."""
        write_json(self.folder / "done.json", metrics)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write an artifact `name`.npz whole or not at all."""
        path = self.folder / f"{name}.npz"
        with disk_errors(path):
            temporary = path.with_name(f".{name}.tmp.npz")
            np.savez(temporary, **cast(dict[str, Any], arrays))
            temporary.replace(path)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read an artifact."""
        with np.load(self.folder / f"{name}.npz") as stored:
            return dict(stored)


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
        labels = self.dataset.train.labels
        self.train_indices, self.held_out_indices = split_held_out(
            labels, self.config.data.held_out, seed=self.config.seed
        )
        self.stages: dict[str, Stage] = {}

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
            if found.done and not _changed(found.folder, identity):
                self.stages[name] = found
                return found
        identity = self._identity(name, settings, after, {**extra, "revision": revision})
        self.stages[name] = self._begin(self._own(name, identity), identity)
        return self.stages[name]

    def _identity(
        self, name: str, settings: tuple, after: tuple[Stage, ...], extra: dict[str, Any]
    ) -> "_Identity":
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
            "dataset": self.dataset.name,
            "dataset_fingerprint": self.dataset.fingerprint,
            "held_out": config.data.held_out,
            "image_size": config.data.image_size,
            **flatten(config.data.augmentation, "augmentation."),
            **extra,
        }
        # What earlier versions left out, so that their stages are found: see `config.added`.
        earlier = {"revision": 1, **before(config), **before(config.method)}
        earlier |= before(config.data) | before(config.data.augmentation, "augmentation.")
        for setting in settings:
            values.update(flatten(setting))
            earlier |= before(setting)
        values.update({f"after.{stage.name}": stage.fingerprint for stage in after})
        return _Identity(json.loads(json.dumps(values, sort_keys=True)), earlier)

    def _reused(self, name: str, identity: "_Identity", *, shared: bool) -> Stage | None:
        """The stage of `config.reuse`, where it fits.

        Raises:
          UserError: it does not fit, or has not finished, and is one that must.
        """
        if not self.config.reuse:
            return None
        other = Stage(name, pathlib.Path(self.config.reuse) / name, identity.fingerprint)
        changed = _changed(other.folder, identity)
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

    def _own(self, name: str, identity: "_Identity") -> Stage:
        """The stage's folder under the workdir, or in the pool."""
        pooled = f"{name}-{identity.fingerprint}"
        folder = self.workdir / name if self.pool is None else self.pool / pooled
        return Stage(name, folder, identity.fingerprint)

    def _begin(self, stage: Stage, identity: "_Identity") -> Stage:
        """Make the folder this stage's own.

        Raises:
          UserError: it is another's; names the fields.
        """
        changed = _changed(stage.folder, identity)
        if changed:
            raise UserError(
                f"{stage.folder} holds a stage of another config ({'; '.join(changed)}): choose "
                "another --workdir or remove that folder."
            )
        with disk_errors(stage.folder):
            stage.folder.mkdir(parents=True, exist_ok=True)
        write_json(stage.folder / "stage.json", identity.values)
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
        images_per_example: int = 1,
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
          images_per_example: for the rate that is shown.
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
        fit(
            model,
            loss,
            batches,
            optimizer=optimizer.make(training.optimizer, steps_per_epoch=steps, epochs=epochs),
            epochs=epochs,
            key=self.key(name or stage.name),
            folder=stage.folder,
            saving=self.config.checkpoints,
            title=title or stage.name,
            **options,
        )

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
        )
        if config.pretrained and pretrained:
            models.load_pretrained(model, config.pretrained)
        return model

    def load_model(self, stage: Stage) -> models.Backbone:
        """The backbone as a finished stage left it."""
        model = self.build_model(pretrained=False)
        checkpoints.restore_model(stage.folder, model)
        model.eval()
        return model


@dataclasses.dataclass(frozen=True)
class _Identity:
    """What decides a stage, and what earlier versions did where they left a value out."""

    values: dict[str, Any]
    earlier: dict[str, Any]

    @functools.cached_property
    def essential(self) -> dict[str, Any]:
        """Without values that say what earlier versions did anyway."""
        return without_added(self.values, self.earlier)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Differs wherever a result could."""
        text = json.dumps(self.essential, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _changed(folder: pathlib.Path, identity: _Identity) -> list[str]:
    """The values in which the stage that a folder holds differs; none where it holds none."""
    record = folder / "stage.json"
    if not record.exists():
        return []
    stored = json.loads(record.read_text())
    absent = {k: v for k, v in identity.earlier.items() if k in identity.values}
    return differences({**absent, **stored}, identity.values)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    with disk_errors(path):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
        temporary.replace(path)


@contextlib.contextmanager
def disk_errors(path: pathlib.Path):
    """Turn a full or read-only disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free some space or choose "
            "another --workdir; the same command resumes."
        ) from error


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
