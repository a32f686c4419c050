"""Orbax checkpoints: everything that the next step depends on."""

import contextlib
import errno
import hashlib
import json
import logging
import pathlib
import shutil
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from flax import nnx

from fgjax.errors import UserError

log = logging.getLogger(__name__)

_DIGESTS = "digests.json"


class Checkpoints:
    """The checkpoints of one stage; the newest `keep` stay.

    A digest of each lies beside them. Where the newest is not what was written, the one before it
    is taken.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        self._folder = pathlib.Path(folder).absolute() / "checkpoints"
        self._unsealed: int | None = None  # the step that is being written
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        with _disk_errors(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """Step of the newest checkpoint that was written to its end."""
        return self._manager.latest_step()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; a crash in the middle leaves the ones before."""
        self.wait()
        with _disk_errors(self._folder):
            _require_space(self._folder, state)
            self._manager.save(step, args=ocp.args.StandardSave(state))
        self._unsealed = step

    def restore(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Step and state of the newest whole checkpoint, in the structure and types of `like`.

        A damaged one is named in the log, and removed once another was read.

        Raises:
          UserError: there is none, or it is another network's.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            sealed = self._digests().get(str(step))
            problem = "its bytes have changed" if sealed not in (None, self._digest(step)) else ""
            if not problem:
                try:
                    found = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
                    for other in damaged:  # orbax saves no step before its newest
                        self._manager.delete(other)
                    return step, cast(dict[str, Any], found)
                except Exception as error:  # whatever orbax and its libraries meet there
                    problem = str(error).splitlines()[0]
                    if sealed:
                        raise UserError(
                            f"the checkpoint in {self._folder} does not fit this run ({problem}); "
                            "choose another --workdir or remove it."
                        ) from error
            log.warning("The checkpoint of step %d in %s is damaged (%s): the one before it is "
                        "taken.", step, self._folder, problem)  # fmt: skip
            damaged.append(step)
        raise UserError(
            f"no checkpoint in {self._folder} is whole: remove the folder to train the stage anew."
        )

    def wait(self) -> None:
        """Block until pending writes are on disk, and keep their digest."""
        with _disk_errors(self._folder):
            self._manager.wait_until_finished()
            if self._unsealed is not None:
                kept = {str(step) for step in self._manager.all_steps()}
                digests = {k: v for k, v in self._digests().items() if k in kept}
                digests[str(self._unsealed)] = self._digest(self._unsealed)
                part = self._folder / f"{_DIGESTS}.part"
                part.write_text(json.dumps(digests))
                part.replace(self._folder / _DIGESTS)
                self._unsealed = None

    def close(self) -> None:
        """Finish pending writes and release the folder."""
        self.wait()
        self._manager.close()

    def _digests(self) -> dict[str, str]:
        try:
            return json.loads((self._folder / _DIGESTS).read_text())
        except (OSError, ValueError):
            return {}

    def _digest(self, step: int) -> str:
        """SHA-256 of a checkpoint's files and their names."""
        folder, found = self._folder / str(step), hashlib.sha256()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            found.update(str(path.relative_to(folder)).encode())
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()


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
    "Disk quota exceeded": "your quota on the disk is used up",
    "File too large": "a file would be larger than is allowed there",
    "Input/output error": "the disk does not answer",
}


@contextlib.contextmanager
def _disk_errors(folder: pathlib.Path):
    """Turn what keeps a file from being written into one sentence.

    Orbax wraps it in several exceptions: ValueError and RuntimeError come from its libraries.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reasons = [said for sign, said in _DISK_SIGNS.items() if sign in str(error)]
        if isinstance(error, OSError):
            reasons.append(error.strerror or str(error))
        reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
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
