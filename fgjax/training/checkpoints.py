"""Orbax checkpoints: everything that the next step depends on."""

import contextlib
import errno
import logging
import pathlib
import shutil
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from flax import nnx

from fgjax.errors import UserError

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one stage; the newest is kept."""

    def __init__(self, folder: pathlib.Path):
        self._folder = pathlib.Path(folder).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=True)
        with _disk_errors(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; a crash in the middle leaves the one before."""
        with _disk_errors(self._folder):
            _require_space(self._folder, state)
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: dict[str, Any]) -> dict[str, Any]:
        """The newest checkpoint, in the structure, types and sharding of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored = self._manager.restore(self.latest(), args=ocp.args.StandardRestore(abstract))
            return cast(dict[str, Any], restored)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint in {self._folder} does not fit this run "
                f"({str(error).splitlines()[0]}); choose another --workdir or remove it."
            ) from error

    def wait(self) -> None:
        """Block until pending writes are on disk."""
        with _disk_errors(self._folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish pending writes and release the folder."""
        self.wait()
        self._manager.close()


def _require_space(folder: pathlib.Path, state: dict[str, Any]) -> None:
    """Refuse before orbax begins, whose threads would print their tracebacks."""
    needed = 1.2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 2**20:.0f} MiB are needed and not left on the disk")


_DISK_SIGNS = {
    "No space left": "no space is left on the disk",
    "RESOURCE_EXHAUSTED": "no space is left on the disk",
    "Permission denied": "writing there is not permitted",
    "Read-only file system": "the disk is read-only",
}


@contextlib.contextmanager
def _disk_errors(folder: pathlib.Path):
    """Turn a full or read-only disk into one sentence; orbax wraps it in several exceptions."""
    try:
        yield
    except Exception as error:
        reasons = [said for sign, said in _DISK_SIGNS.items() if sign in str(error)]
        if isinstance(error, OSError):
            reasons.append(error.strerror or str(error))
        if not reasons:
            raise
        raise UserError(
            f"the checkpoint in {folder} could not be written: {reasons[0]}; free some space or "
            "choose another --workdir, and start again to resume."
        ) from error


def model_state(model: nnx.Module) -> dict[str, Any]:
    """All variables of a model as a plain nested dict of arrays."""
    return nnx.to_pure_dict(nnx.state(model))


def load_model(model: nnx.Module, state: dict[str, Any]) -> None:
    """Write `model_state` back, in place."""
    current = nnx.state(model)
    nnx.replace_by_pure_dict(current, state)
    nnx.update(model, current)


def save_model(folder: pathlib.Path, model: nnx.Module) -> None:
    """Write a finished stage's model (only) to `folder`/model."""
    path = pathlib.Path(folder).absolute() / "model"
    with _disk_errors(path), ocp.StandardCheckpointer() as checkpointer:
        _require_space(path.parent, model_state(model))
        checkpointer.save(path, model_state(model), force=True)


def restore_model(folder: pathlib.Path, model: nnx.Module) -> None:
    """Read a model written by `save_model`, in place."""
    path = pathlib.Path(folder).absolute() / "model"
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, model_state(model))
    with ocp.StandardCheckpointer() as checkpointer:
        load_model(model, checkpointer.restore(path, abstract))
