"""Whole runs with a frozen first map: every stage of every method leaves it as it was."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from fgjax import main, methods
from fgjax.config import override
from fgjax.models import Backbone
from fgjax.training.run import Run
from tests import tiny


def backbones_of(model: nnx.Module) -> list[Backbone]:
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, Backbone)]


def variables_of(model: Backbone, number: int) -> list[np.ndarray]:
    """Kernel, scale, bias, mean and variance of one of the three maps."""
    parts = (getattr(model, f"conv{number}"), model.norms[number - 1])
    return [np.asarray(leaf) for part in parts for leaf in jax.tree.leaves(nnx.state(part))]


def restored(monkeypatch) -> dict[str, list[Backbone]]:
    """{stage: the backbones that it saved}, filled while a run goes."""
    found: dict[str, list[Backbone]] = {}
    from fgjax.training.stage import Stage

    save = Stage.save_model

    def save_model(stage, model):
        found[stage.name] = [nnx.clone(backbone) for backbone in backbones_of(model)]
        save(stage, model)

    monkeypatch.setattr(Stage, "save_model", save_model)
    return found


CASES = {
    "recognition": (tiny.recognition_config, {}, {"classifier", "embedding"}),
    "lapm": (tiny.shrink, {}, {"classifier", "parts", "margin"}),
    "ghns": (tiny.ghns_config, {"method.extractors": "finetuned", "method.tau": 0.0},
             {"classifier", "part_networks", "object_classifier", "original_classifier",
              "parts_classifier"}),
    "ccfr": (tiny.ccfr_config, {}, {"classifier", "pretrain", "navigator", "enhance"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_stage_changes_what_is_frozen(name, data_dir, tmp_path, relaxed, monkeypatch):
    make, changes, trained = CASES[name]
    config = override(make(data_dir), {"freeze": "stage1", **changes})
    found = restored(monkeypatch)
    main.run(config, tmp_path / "run", figures=False)
    stages = {stage for stage, backbones in found.items() if backbones}
    assert stages >= trained
    run = Run(config, main.fetch(config), tmp_path / "run")
    begin = run.build_model()
    for stage in stages:
        for backbone in found[stage]:
            for before, after in zip(
                variables_of(begin, 1), variables_of(backbone, 1), strict=True
            ):
                np.testing.assert_array_equal(before, after)
            for number in (2, 3):
                pairs = zip(variables_of(begin, number), variables_of(backbone, number))
                assert all(not np.array_equal(one, other) for one, other in pairs), stage
    for stage in stages:
        identity = json.loads((tmp_path / "run" / stage / "stage.json").read_text())
        assert identity["freeze"] == "stage1"
    again = methods.of(config).run(Run(config, run.dataset, tmp_path / "run", finished=True))
    assert again["metrics"]
