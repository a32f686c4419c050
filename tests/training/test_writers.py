"""Writers: what each keeps, offline, over a crash; and names that are none."""

import json
import pathlib
import struct
from typing import ClassVar

import pytest

from fgjax import config_files, dry_run
from fgjax.config import override
from fgjax.errors import UserError
from fgjax.training import writers
from fgjax.training.logging import read_metrics
from tests.training.test_fit import Interrupted, interrupting, train


class Remembering:
    """A writer of one's own."""

    made: ClassVar[list] = []

    def __init__(self, folder, title, resumed_step):
        self.lines, self.closed = [], False
        self.given = (folder, title, resumed_step)
        Remembering.made.append(self)

    def write(self, step, epoch, values):
        self.lines.append((step, epoch, values))

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing is sent anywhere, and nothing of the user's own settings is read."""
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))


def stopped_and_gone_on(folder, writing):
    with pytest.raises(Interrupted):
        train(folder, epochs=3, before_epoch=interrupting(2), writing=writing)
    train(folder, epochs=3, before_epoch=interrupting(-1), writing=writing)
    return {line["step"]: line["loss"] for line in read_metrics(folder)}


def test_one_of_ones_own(tmp_path):
    Remembering.made.clear()
    wanted = stopped_and_gone_on(tmp_path / "stage", f"{__name__}:Remembering")
    first, second = Remembering.made
    assert first.given == (tmp_path / "stage", "stage", 0) and second.given[2] == 6
    lines = [*first.lines, *second.lines]
    assert [line[:2] for line in lines] == [(3, 1), (6, 2), (9, 3)]
    assert {step: values["loss"] for step, _, values in lines} == wanted
    assert first.closed and second.closed
    assert not (tmp_path / "stage" / "tensorboard").exists()


def test_tensorboard_and_none(tmp_path):
    train(tmp_path / "a", epochs=1)
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    train(tmp_path / "b", epochs=1, writing="")
    assert not (tmp_path / "b" / "tensorboard").exists()
    assert read_metrics(tmp_path / "b")


def records_of(path):
    """The records of W&B's file: LevelDB's log of 32 KiB blocks after a header of seven bytes."""
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path):
    from wandb.proto import wandb_internal_pb2

    wanted = stopped_and_gone_on(tmp_path / "run" / "stage", "wandb")
    found, identities = {}, set()
    for path in sorted(tmp_path.rglob("*.wandb")):
        for data in records_of(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                identities.add(record.run.run_id)
                assert record.run.project == "fgjax" and record.run.run_group == "run"
                assert record.run.display_name == "run stage"
            if record.HasField("history"):
                items = {i.key or i.nested_key[0]: json.loads(i.value_json)
                         for i in record.history.item}  # fmt: skip
                found[items["_step"]] = items["loss"]
    assert len(identities) == 1  # the same run went on
    assert found == pytest.approx(wanted)


@pytest.mark.slow
def test_mlflow_in_a_folder(tmp_path):
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "run" / "stage"
    wanted = stopped_and_gone_on(folder, "mlflow")
    kept = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(tracking_uri=kept["tracking_uri"])
    experiment = client.get_experiment_by_name("fgjax")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [kept["run"]]  # the same run went on
    assert runs[0].info.status == "FINISHED" and runs[0].info.run_name == "run stage"
    history = client.get_metric_history(kept["run"], "loss")
    assert {metric.step: metric.value for metric in history} == pytest.approx(wanted)
    assert pathlib.Path(folder) in pathlib.Path(kept["tracking_uri"].split("://")[1]).parents


@pytest.mark.parametrize("names", ["paper", "nowhere:Writer", "tensorboard,", "tests.tiny:Nothing"])
def test_names(names, tmp_path):
    config = override(config_files.load("aircraft:lapm,demo"), {"writers": names})
    if names == "tensorboard,":
        assert dry_run.plan(config, tmp_path / "run", compiles=False)
        return
    with pytest.raises(UserError, match="but must be some of tensorboard, wandb, mlflow or a"):
        dry_run.plan(config, tmp_path / "run", compiles=False)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'names wandb, but .* pip install "fgjax\[writers\]"'):
        writers.check("wandb")
