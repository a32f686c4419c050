"""Every picture that a run or a study leaves: drawn from the artifacts of its stages."""

import importlib
import importlib.util
import logging

from fgjax import methods
from fgjax.figures import common
from fgjax.training.run import Run

log = logging.getLogger(__name__)


def draw(run: Run) -> None:
    """All pictures of a finished run into `workdir`/figures, those of its method included."""
    stages = run.stages
    common.curves(run)
    if "objects" in stages:
        common.localization(run, stages["objects"], stages.get("parts"))
    for stage in stages.values():
        if (stage.folder / "predictions.npz").exists():
            common.confusions(run, stage)
    name = f"{__name__}.{methods.of(run.config).__name__.rsplit('.', 1)[-1]}"
    if importlib.util.find_spec(name):
        importlib.import_module(name).draw(run)
    log.info("pictures are in %s", run.workdir / "figures")
