"""A stage's folder, and what decides whether it is the one that a run wants."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from typing import Any, cast

import numpy as np
from flax import nnx

from fgjax import hosts
from fgjax.config import differences, without_added
from fgjax.errors import UserError
from fgjax.training import checkpoints


@dataclasses.dataclass
class Stage:
    """One stage's folder: checkpoints, artifacts, and `done.json` once it has finished."""

    name: str
    folder: pathlib.Path
    fingerprint: str

    @property
    def done(self) -> bool:
        """Whether an earlier run finished the stage."""
        return hosts.same(lambda: (self.folder / "done.json").exists())

    @property
    def metrics(self) -> dict[str, Any]:
        """What the finished stage measured."""
        return json.loads((self.folder / "done.json").read_text())

    def begin(self, identity: dict[str, Any]) -> None:
        """Make the folder, and write down what decides the stage."""

        def make() -> None:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "stage.json", identity)

        hosts.first(make)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Mark the stage as done; its loop's checkpoints are not needed any more."""

        def end() -> None:
            write_json(self.folder / "done.json", metrics)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

        hosts.first(end)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write an artifact `name`.npz whole or not at all."""
        path = self.folder / f"{name}.npz"

        def write() -> None:
            with disk_errors(path):
                temporary = path.with_name(f".{name}.tmp.npz")
                np.savez(temporary, **cast(dict[str, Any], arrays))
                temporary.replace(path)

        hosts.first(write)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read an artifact."""
        with np.load(self.folder / f"{name}.npz") as stored:
            return dict(stored)

    def save_json(self, name: str, value: Any) -> None:
        """Write `name`.json, for people."""
        write_json(self.folder / f"{name}.json", value)

    def save_model(self, model: nnx.Module) -> None:
        """Write the stage's network (only)."""
        checkpoints.save_model(self.folder, model)

    def restore_model(self, model: nnx.Module) -> None:
        """Read what `save_model` wrote into a network of the same kind, in evaluation mode."""
        checkpoints.restore_model(self.folder, model)
        model.eval()


@dataclasses.dataclass(frozen=True)
class Identity:
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


def changed_fields(folder: pathlib.Path, identity: Identity) -> list[str]:
    """The values in which the stage that a folder holds differs; none where it holds none."""
    record = folder / "stage.json"
    if not record.exists():
        return []
    stored = json.loads(record.read_text())
    absent = {k: v for k, v in identity.earlier.items() if k in identity.values}
    return differences({**absent, **stored}, identity.values)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""

    def write() -> None:
        with disk_errors(path):
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
            temporary.replace(path)

    hosts.first(write)


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
