"""Old runs are read, used and resumed; what computes something else is not taken."""

import dataclasses
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest

from fgjax import config as configlib
from fgjax import main, methods
from fgjax.config import Config, added, differences, identity, override, restore
from fgjax.errors import UserError
from fgjax.figures.common import image_of
from fgjax.predict import predict
from fgjax.training.run import Run, write_json

FOLDER = pathlib.Path(__file__).parent / "old_runs"
RUNS = sorted(path.parent for path in FOLDER.glob("*/*/results.json"))


@pytest.fixture
def copy_of(tmp_path, data_dir, tiny_dataset, monkeypatch):
    """Copies an old run, beside data prepared as it was then."""
    monkeypatch.setenv("FGJAX_DATA", data_dir)
    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)


def test_an_old_run_predicts_what_it_predicted(copy_of, tiny_dataset, tmp_path):
    workdir = copy_of(FOLDER / "0.1.0" / "lapm")
    files = [tmp_path / f"{row}.png" for row in range(3)]
    for row, file in enumerate(files):  # no JPEG, which is decoded at a reduced size today
        cv2.imwrite(str(file), image_of(tiny_dataset.test, row)[..., ::-1])
    found = predict(workdir, [str(file) for file in files])
    wanted = json.loads((FOLDER / "0.1.0" / "predictions.json").read_text())
    for one, other in zip(found, wanted, strict=True):
        assert [top["class"] for top in one["top"]] == [top["class"] for top in other["top"]]
        np.testing.assert_allclose(
            [top["probability"] for top in one["top"]],
            [top["probability"] for top in other["top"]],
            rtol=1e-3,
        )
        np.testing.assert_allclose(one["box"], other["box"], atol=1e-6)
        np.testing.assert_allclose(one["parts"], other["parts"], atol=1e-6)


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_stage_of_an_old_run_is_found(folder, copy_of):
    """The method goes through all its stages, finds each done, and reports the same numbers."""
    workdir = copy_of(folder)
    stages = {path.parent for path in workdir.rglob("stage.json")}
    run = main.open_run(workdir)
    outcome = methods.of(run.config).run(run)
    stored = json.loads((workdir / "results.json").read_text())
    found = {name: outcome["metrics"].get(name) for name in stored["metrics"]}
    assert found == stored["metrics"]
    assert {path.parent for path in workdir.rglob("stage.json")} == stages
    assert {stage.folder for stage in run.stages.values()} == stages
    assert not list(workdir.rglob("checkpoints"))
    main.claim(workdir, run.config)  # and the same words would resume it


@dataclasses.dataclass
class Inner:
    rate: float = 0.5
    kind: str = added("new", before="old")


@dataclasses.dataclass
class Method:
    alpha: float = 1.0
    sizes: tuple[int, ...] = added((1, 2), before=(3,))
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_absent_fields_count_as_what_was_done_then():
    old = {"name": "x", "method.alpha": 2.0, "method.inner.rate": 0.25}
    config = restore(Config(method=Method()), old)
    assert (config.method.alpha, config.method.sizes) == (2.0, (3,))
    assert (config.method.inner.rate, config.method.inner.kind) == (0.25, "old")
    of_config = configlib.before(Config())
    assert configlib.before(config) == {
        **of_config, "method.sizes": [3], "method.inner.kind": "old"
    }  # fmt: skip
    kept = identity(config)
    assert "method.sizes" not in kept and "method.inner.kind" not in kept
    today = identity(Config(method=Method()))
    assert today["method.sizes"] == [1, 2] and today["method.inner.kind"] == "new"
    assert differences(kept, identity(config)) == []


def test_overrides_leave_the_defaults_of_today():
    config = override(Config(method=Method()), {"method.alpha": 3.0})
    assert config.method.inner.kind == "new" and config.method.alpha == 3.0


@pytest.fixture
def runs(tiny_config, tiny_dataset, tmp_path):
    """Runs in one workdir; `finished` as predicting opens them."""

    def make(**changes):
        return Run(override(tiny_config, changes.pop("config", {})), tiny_dataset, tmp_path,
                   **changes)  # fmt: skip

    return make


def test_stage_json_says_the_revision(runs):
    stage = runs().stage("one", revision=2, alpha=1)
    assert json.loads((stage.folder / "stage.json").read_text())["revision"] == 2
    stage = runs().stage("other", alpha=1)
    assert json.loads((stage.folder / "stage.json").read_text())["revision"] == 1


def test_a_stage_that_computes_something_else_is_not_taken(runs, tmp_path):
    runs().stage("one", alpha=1).finish({"top1": 0.5})
    assert runs().stage("one", alpha=1).done
    with pytest.raises(UserError, match="revision: 1 -> 2"):
        runs().stage("one", revision=2, alpha=1)
    reusing = dataclasses.replace(
        runs(config={"reuse": str(tmp_path)}), workdir=tmp_path / "another"
    )
    assert not reusing.stage("one", revision=2, alpha=1).done
    assert reusing.stage("one", alpha=1).folder == tmp_path / "one"
    with pytest.raises(UserError, match=r"cannot be reused.*revision: 1 -> 2"):
        reusing.stage("one", shared=True, revision=2, alpha=1)


def test_a_finished_run_keeps_its_stages_and_those_after_them(runs):
    first = runs().stage("one", alpha=1)
    first.finish({})
    runs().stage("two", after=(first,)).finish({})
    opened = runs(finished=True)
    one = opened.stage("one", revision=3, alpha=1)
    assert one.done and opened.stage("two", after=(one,), revision=2).done
    with pytest.raises(UserError, match="alpha: 1 -> 2"):
        runs(finished=True).stage("one", revision=3, alpha=2)


def test_a_finished_run_in_a_pool_finds_its_revision(runs, tmp_path):
    pool = tmp_path / "pool"
    runs(pool=pool).stage("one", alpha=1).finish({})
    assert runs(pool=pool, finished=True).stage("one", revision=2, alpha=1).done
    assert not runs(pool=pool).stage("one", revision=2, alpha=1).done


def test_stages_without_a_revision_are_of_the_first(runs):
    stage = runs().stage("one", alpha=1)
    stage.finish({})
    record = stage.folder / "stage.json"
    stored = json.loads(record.read_text())
    del stored["revision"]
    write_json(record, stored)
    again = runs().stage("one", alpha=1)
    assert again.done and again.fingerprint == stage.fingerprint


@dataclasses.dataclass
class InnerOfThen:
    rate: float = 0.5


def test_a_field_that_is_added_later_changes_no_stage_that_does_as_before(runs):
    then = runs().stage("one", InnerOfThen(), alpha=1)
    then.finish({})
    now = runs().stage("one", Inner(kind="old"), alpha=1)
    assert now.done and now.fingerprint == then.fingerprint
    with pytest.raises(UserError, match="kind: 'old' -> 'new'"):
        runs().stage("one", Inner(), alpha=1)


def test_every_field_is_of_the_beginning_or_says_what_was_done_before():
    """A field that is simply added would make every earlier workdir another config's."""
    known = json.loads((FOLDER / "fields-0.1.0.json").read_text())
    assert known.keys() <= set(methods.names())
    for name in known:  # methods that came later have no earlier runs
        config = Config(method=methods.get(name).Config())
        new = configlib.flatten(config).keys() - set(known[name])
        assert new <= configlib.before(config).keys(), (
            f"{sorted(new)}: declare with config.added(default, before=what was done without it)"
        )
