"""A model's networks from its config alone, for files whose programs JAX does not read any more."""

import logging
import pathlib
import tempfile
from typing import Any

import numpy as np

from fgjax import methods
from fgjax.config import Config, flatten, restore
from fgjax.data.datasets.assumed import Blank
from fgjax.data.datasets.splits import Dataset, Split
from fgjax.errors import UserError
from fgjax.localization import boxes
from fgjax.methods.shared.predictor import Network
from fgjax.model_files.tree import networks_in
from fgjax.training.dry import DryRun, quiet
from fgjax.training.run import Run

log = logging.getLogger(__name__)

# Where things lie on the machine that trained; nobody else's business.
_PLACES = ("data.data_dir", "data.manual_dir", "data.path", "data.annotations", "reuse")
_EACH = 30  # images of a class in the dataset that stands for the real one


def described(run: Run) -> dict[str, Any]:
    """What `networks` needs, as JSON."""
    dataset = run.dataset
    return {
        "config": {k: v for k, v in flatten(run.config).items() if k not in _PLACES},
        "dataset": dataset.name,
        "classes": list(dataset.class_names),
        "unseen": len(dataset.unseen_names),
        "part_names": list(dataset.part_names),
        "part_regions": {name: list(parts) for name, parts in dataset.part_regions.items()},
    }


def networks(card: dict[str, Any]) -> dict[str, Network]:
    """The networks of a file's predictor and embedder by name, without their weights.

    Raises:
      UserError: the file does not say what they are, or this version cannot build them.
    """
    if "rebuilding" not in card:
        raise UserError("it was written before files said how")
    found, known = {}, card["rebuilding"]
    config = Config(method=methods.get(card["method"]).Config())
    restore(config, known["config"])
    method = methods.of(config)
    log.warning("This model's programs are too old for this JAX: its networks are built anew.")
    with tempfile.TemporaryDirectory() as folder, quiet():
        scratch = pathlib.Path(folder)
        run = DryRun(
            config, _standing_for(known), scratch / "run", scratch=scratch, known=False,
            compiles=False,
        )  # fmt: skip
        method.run(run)
        for name in ("predictor", "embedder"):
            load = getattr(method, f"load_{name}", None)
            try:
                found |= networks_in(load(run), name) if load else {}
            except UserError:  # of a run that has none
                continue
    return found


def _standing_for(known: dict[str, Any]) -> Dataset:
    """A dataset of as many classes and parts, without images."""
    classes, unseen = len(known["classes"]), known["unseen"]
    labels = np.repeat(np.arange(classes, dtype=np.int32), _EACH)
    test = labels if not unseen else classes + np.repeat(np.arange(unseen, dtype=np.int32), _EACH)

    def split(own: np.ndarray) -> Split:
        parts = np.tile(boxes.WHOLE, (len(own), len(known["part_names"]), 1))
        return Split(
            source=Blank(len(own)), labels=own, boxes=np.tile(boxes.WHOLE, (len(own), 1)),
            parts=parts if known["part_names"] else None, filenames=("blank",) * len(own),
        )  # fmt: skip

    return Dataset(
        name=known["dataset"], class_names=tuple(known["classes"]), train=split(labels),
        test=split(test), fingerprint="assumed", part_names=tuple(known["part_names"]),
        part_regions={name: tuple(parts) for name, parts in known["part_regions"].items()},
        unseen_names=tuple(f"class {number + 1}" for number in range(unseen)),
    )  # fmt: skip
