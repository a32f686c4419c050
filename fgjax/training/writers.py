"""Where a stage's metrics go besides `metrics.jsonl`: TensorBoard, W&B, MLflow, or yours.

`config.writers` names them, `,` between. One of your own is `module:Class`, made and called as
`Writer` says.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable
from typing import Protocol, cast

from fgjax import own_modules
from fgjax.errors import UserError


class Writer(Protocol):
    """What is made of (stage's folder, title, step that it resumes at) and gets the numbers."""

    def __init__(self, folder: pathlib.Path, title: str, resumed_step: int): ...

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """The finite numbers of a step."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class TensorBoard:
    """Event files in the stage's folder `tensorboard`."""

    def __init__(self, folder: pathlib.Path, title: str, resumed_step: int):
        from tensorboardX import SummaryWriter

        del title
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """A scalar for each number."""
        del epoch
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file."""
        self._board.close()


class WeightsAndBiases:
    """A run of W&B for each stage, grouped by workdir; WANDB_PROJECT and WANDB_MODE are obeyed.

    A stage that resumes goes on in its run, whose id comes from the folder.
    """

    def __init__(self, folder: pathlib.Path, title: str, resumed_step: int):
        import wandb

        del resumed_step  # W&B leaves out steps that it has
        path = folder.absolute()
        identity = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=_project("WANDB_PROJECT"), group=path.parent.name, id=identity,
            name=f"{path.parent.name} {title}", dir=str(path), resume="allow", reinit="create_new",
        )  # fmt: skip

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """One line of the run's history."""
        self._run.log({**values, "epoch": epoch}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow for each stage; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME are obeyed.

    Without the first they lie in the stage's folder `mlflow`. A stage that resumes goes on in its
    run, whose id `mlflow.json` keeps.
    """

    def __init__(self, folder: pathlib.Path, title: str, resumed_step: int):
        from mlflow.tracking import MlflowClient

        # A folder needs no database; MLflow 3 wants to be asked for it.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        path = folder.absolute()
        place = os.environ.get("MLFLOW_TRACKING_URI") or (path / "mlflow").as_uri()
        self._client = MlflowClient(tracking_uri=place)
        kept = path / "mlflow.json"
        if resumed_step and kept.exists():
            self._id = json.loads(kept.read_text())["run"]
            return
        name = _project("MLFLOW_EXPERIMENT_NAME")
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=f"{path.parent.name} {title}")
        self._id = run.info.run_id
        kept.write_text(json.dumps({"run": self._id, "tracking_uri": place}))

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """A metric for each number."""
        for name, value in {**values, "epoch": float(epoch)}.items():
            self._client.log_metric(self._id, _plain(name), value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


# Name, class, the package that it needs.
KNOWN: dict[str, tuple[type, str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "wandb": (WeightsAndBiases, "wandb"),
    "mlflow": (MLflow, "mlflow"),
}


def check(names: str) -> None:
    """Refuse what is no writer, or needs a package that is not here.

    Raises:
      UserError: naming it.
    """
    for name in filter(None, names.split(",")):
        if name in KNOWN:
            package = KNOWN[name][1]
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"config.writers names {name}, but {package} is not installed: "
                    'pip install "fgjax[writers]".'
                )
        elif _own(name) is None:
            raise UserError(
                f"config.writers names {name!r}, but must be some of {', '.join(KNOWN)} or a "
                "module:Class of your own, with commas between."
            )


def make(names: str, folder: pathlib.Path, title: str, resumed_step: int) -> list[Writer]:
    """The writers of a stage; names as `check` allows them."""
    found = []
    for name in filter(None, names.split(",")):
        kind = KNOWN[name][0] if name in KNOWN else cast(Callable[..., Writer], _own(name))
        found.append(kind(folder, title, resumed_step))
    return found


def _own(name: str) -> Callable[..., Writer] | None:
    module, _, kind = name.partition(":")
    found = own_modules.find(module, having=kind) if kind else None
    return getattr(found, kind) if found else None


def _project(variable: str) -> str:
    return os.environ.get(variable) or "fgjax"


def _plain(name: str) -> str:
    """MLflow knows letters, digits, and _ - . / and spaces in a name."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)
