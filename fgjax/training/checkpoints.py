"""Orbax checkpoints: everything that the next step depends on."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import pathlib
import shutil
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint import checkpoint_managers as policies

from fgjax import hosts
from fgjax.errors import UserError

log = logging.getLogger(__name__)

_DIGESTS = "digests.json"


class Checkpoints:
    """The checkpoints of one stage; the newest `keep` stay, and with `best` that of highest score.

    A digest of each lies beside them. Where the newest is not what was written, the one before it
    is taken.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, best: bool = False):
        self._folder = pathlib.Path(folder).absolute() / "checkpoints"
        self._unsealed: int | None = None  # the step that is being written
        stay: list[policies.PreservationPolicy] = [policies.LatestN(n=keep)]
        if best:
            highest = policies.BestN(
                get_metric_fn=_score_of, n=1, keep_checkpoints_without_metrics=False
            )
            stay.append(highest)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(stay),
            best_fn=_score_of if best else None,
            enable_async_checkpointing=True,
        )
        with _disk_errors(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """Step of the newest checkpoint that was written to its end."""
        return self._manager.latest_step()

    def save(self, step: int, state: dict[str, Any], *, score: float | None = None) -> None:
        """Write a checkpoint; a crash in the middle leaves the ones before.

        `score`: how good it is on held-out images, where that was looked at.
        """
        metrics = None if score is None else {"score": score}
        self.wait()
        with _disk_errors(self._folder):
            _require_space(self._folder, state)
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)
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
            sealed, problem = hosts.same(functools.partial(self._seal, step))
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

    def restore_best(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Step and state of highest score; of equal ones the newest.

        Raises:
          UserError: it is damaged; another one would be another result.
        """
        self.wait()
        step = self._manager.best_step()
        assert step is not None  # a loop that looks saves what it saw
        if hosts.same(functools.partial(self._seal, step))[1]:
            raise UserError(
                f"the best checkpoint in {self._folder}, of step {step}, is damaged: remove the "
                "folder to train the stage anew."
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return step, cast(dict[str, Any], found)

    def wait(self) -> None:
        """Block until pending writes are on disk, and keep their digest."""
        with _disk_errors(self._folder):
            self._manager.wait_until_finished()
            if self._unsealed is not None and not hosts.index():
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

    def _seal(self, step: int) -> tuple[str | None, str]:
        """A checkpoint's digest, where one was kept, and what is wrong with its bytes."""
        sealed = self._digests().get(str(step))
        changed = sealed not in (None, self._digest(step))
        return sealed, "its bytes have changed" if changed else ""

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


def _score_of(metrics: dict[str, float]) -> float:
    return metrics["score"]


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
    state = _on_hosts(model_state(model))

    def write() -> None:
        with _disk_errors(path), _checkpointer() as checkpointer:
            _require_space(path.parent, state)
            checkpointer.save(path, state, force=True)

    hosts.first(write)


def restore_model(folder: pathlib.Path, model: nnx.Module) -> None:
    """Read a model written by `save_model`, in place."""
    path = pathlib.Path(folder).absolute() / "model"
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _on_hosts(model_state(model)))
    with _checkpointer() as checkpointer:
        load_model(model, jax.tree.map(jnp.asarray, checkpointer.restore(path, wanted)))


def _on_hosts(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it is; of several processes in NumPy, as one of them can write and read it."""
    return jax.tree.map(np.asarray, state) if jax.process_count() > 1 else state


def _checkpointer() -> ocp.StandardCheckpointer:
    """One that waits for no other process."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)
