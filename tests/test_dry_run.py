"""A dry run: it agrees with real ones, needs nothing, leaves nothing, and says what it assumed."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from fgjax import config_files, dry_run, main, models, train
from fgjax.config import Checkpoints, override
from fgjax.data.datasets import assumed, load_dataset
from fgjax.errors import UserError
from fgjax.testing import shrink
from fgjax.training.dry import AbstractStep, Memory
from tests.counting import counting

ROOT = pathlib.Path(__file__).parents[1]
COUNTS = ("steps", "trained_images", "evaluated_images")


@pytest.fixture(autouse=True)
def relaxed():
    """Whole runs go through optax, which promotes types by itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def load(name: str):
    return config_files.load(f"{ROOT}/configs/{name.partition(':')[0]}.py:{name.partition(':')[2]}")


def tiny(argument: str, data_dir: str, changes: dict | None = None):
    """A demo, shrunk to seconds."""
    config = shrink(load(f"aircraft:{argument}"), data_dir)
    method = config.method
    if hasattr(method, "grouping"):
        method.grouping.rounds = method.grouping.classify_epochs = method.grouping.group_epochs = 1
    if hasattr(method, "part_image_size"):
        method.part_image_size, method.per_class = 16, 2
        method.tau, method.hard_negatives, method.max_attempts = 0.0, 3, 1024
    if hasattr(method, "crop_size"):
        method.crop_size, method.pyramid_width, method.per_class = 16, 8, 2
        method.explore_epochs = 0
    if hasattr(method, "samples"):
        method.samples = 10  # no multiple of the batch: what is padded does not count
    config.checkpoints = Checkpoints(evaluate_every=1)
    return override(config, changes or {})


def counts_of(plan: dry_run.Plan) -> dict[str, dict[str, int]]:
    return {cost.name: {name: getattr(cost, name) for name in COUNTS} for cost in plan.costs}


def without_data(config, tmp_path):
    """The same config on a machine that has no prepared dataset."""
    return override(config, {"data.data_dir": str(tmp_path / "none")})


# Agreement with real runs

CASES = {
    # 20 divides neither the 96 test nor the 24 held-out images: what is padded does not count.
    "hdcl,recognition,demo": {"method.embedding.epochs": 2, "method.beside_softmax": False,
                              "method.embedding.batch_size": 20},
    "hdcl,demo": {"method.loss": "crl", "method.beside_softmax": False,
                  "method.embedding.epochs": 2},
    "lapm,demo": {"method.margin.epochs": 2},
    "ghns,demo": {"method.extractors": "finetuned", "method.parts": "grid",
                  "method.parts_classifier.epochs": 2},
    "ccfr,demo": {"method.navigator.epochs": 2, "method.beside_nts": False},
    "probe,demo": {"backbone": "resnet_small", "pretrained": ""},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("argument", CASES)
def test_it_agrees_with_a_real_run_and_finds_it_finished(argument, data_dir, tmp_path):
    # A demo's own network in one of them: what is counted does not depend on it.
    network = {} if argument == "lapm,demo" else {"backbone": "tests.tiny:Net", "pretrained": ""}
    config = tiny(argument, data_dir, network | CASES[argument])
    load_dataset("synthetic_aircraft/4", data_dir=data_dir)  # so that nothing is assumed
    workdir = tmp_path / "run"
    plan = dry_run.plan(config, workdir, compiles=False)
    assert not workdir.exists()
    with counting() as counts:
        main.run(config, workdir, figures=False)
    assert counts_of(plan) == counts
    assert sum(c["evaluated_images"] for c in counts.values())
    trains = not argument.startswith("probe")
    assert bool(sum(c["steps"] for c in counts.values())) == trains
    again = dry_run.plan(config, workdir, compiles=False)
    assert [cost.name for cost in again.costs] == list(counts)
    assert all(cost.found == workdir / cost.name for cost in again.costs)
    assert all(sum(c.values()) == 0 for c in counts_of(again).values())
    other = dry_run.plan(
        override(config, {"reuse": str(workdir)}), tmp_path / "other", compiles=False
    )
    assert all(cost.found == workdir / cost.name for cost in other.costs)
    assert "Finished already" in dry_run.text(other)
    unknown = dry_run.plan(without_data(config, tmp_path), workdir, compiles=False)
    assert counts_of(unknown) == counts
    assert "cannot be told without the dataset" in dry_run.text(unknown)


def test_without_the_dataset_it_assumes_what_will_be_drawn(data_dir, tmp_path):
    """The drawn aircraft's counts are known, so the numbers are the same; only reuse is not."""
    config = tiny("hdcl,recognition,demo", data_dir)
    load_dataset("synthetic_aircraft/4", data_dir=data_dir)
    known = dry_run.plan(config, tmp_path, compiles=False)
    plan = dry_run.plan(without_data(config, tmp_path), tmp_path, compiles=False)
    assert counts_of(plan) == counts_of(known)
    assert "96 training and 96 test images of 24 classes are assumed" in plan.remarks[0]
    assert not any("assumed" in remark for remark in known.remarks)
    assert not any("weights" in remark for remark in plan.remarks)  # the demo's network has none


# Every shipped config

ARGUMENTS = [
    f"{name}:{method}" + (f",{flag}" if flag else "")
    for name in config_files.names()
    for offer in [config_files._module(ROOT / "configs" / f"{name}.py").OFFER]
    for method in offer.methods
    for flag in ("", *offer.flags(method))
]
FIRST = ("aircraft:lapm", "pets:hdcl", "cars:hdcl,recognition",
         "folder:hdcl,recognition")  # fmt: skip


@pytest.mark.parametrize(
    "argument",
    [pytest.param(a, marks=[] if a in FIRST else pytest.mark.slow) for a in ARGUMENTS],
)
def test_every_shipped_config_can_be_looked_at_without_data(argument, tmp_path):
    config = load(argument)
    config.backbone, config.data.image_size = "resnet_small", 64
    config.freeze = config.freeze and "stem,stage1"  # of three stages
    plan = dry_run.plan(without_data(config, tmp_path), tmp_path / "run", compiles=False)
    assert plan.costs and not (tmp_path / "run").exists() and not (tmp_path / "none").exists()
    for cost in plan.costs:
        assert bool(cost.steps) == bool(cost.parameters)
        assert cost.trained_parameters <= cost.parameters
    shown = dry_run.text(plan)
    assert "are assumed" in shown and "everything is to be trained" in shown
    assert all(cost.name in shown for cost in plan.costs)


def test_the_numbers_of_cub_by_hand(tmp_path):
    """5,994 images of 200 classes: 5,394 train (3 of each class are held out), 337 steps of 16."""
    config = load("cub:ccfr")
    config.backbone, config.data.image_size = "resnet_small", 64
    plan = dry_run.plan(without_data(config, tmp_path), tmp_path, compiles=False)
    cost = {one.name: one for one in plan.costs}["pretrain"]
    training = config.method.pretrain
    assert (training.epochs, training.batch_size) == (60, 16)
    assert cost.steps == 60 * 337 and cost.trained_images == 60 * 337 * 16
    # Twelve looks at 600 held-out images, and at the end all images once.
    assert cost.evaluated_images == 12 * 600 + 5994 + 5794


def test_halves_of_the_classes_are_the_official_ones(tmp_path):
    data = without_data(load("cub:hdcl"), tmp_path).data
    dataset, said = assumed.without_images(data)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (5864, 5924, 100)
    assert set(dataset.train.labels) == set(range(100))
    assert set(dataset.test.labels) == set(range(100, 200))
    assert "5,864 and 5,924" in said


# Memory and operations


def test_memory_parameters_and_operations_of_a_network(tmp_path):
    """SGD with momentum keeps a number for each parameter; the batch is split over the devices."""
    config = load("pets:hdcl,recognition")
    config.backbone, config.data.image_size = "resnet_small", 32
    plan = dry_run.plan(without_data(config, tmp_path), tmp_path)
    (cost,) = plan.costs
    size = config.method.embedding.batch_size
    model = models.build("resnet_small", num_classes=37, pooling=config.pooling, rngs=nnx.Rngs(0))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    parameters = sum(leaf.size for leaf in leaves)
    everything = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    assert cost.parameters == cost.trained_parameters == parameters
    assert cost.memory.model == 4 * everything
    assert 4 * parameters <= cost.memory.optimizer < 4 * parameters + 64
    assert cost.memory.batch == size * (32 * 32 * 3 + 4 + 4) // jax.device_count()
    given = cost.memory.model + cost.memory.optimizer + cost.memory.batch
    assert given < cost.memory.peak < 100 * given
    forward = jax.jit(lambda x: model(x)["logits"])
    model.eval()
    one = forward.lower(jnp.zeros((1, 32, 32, 3), jnp.uint8)).cost_analysis()["flops"]
    images = cost.trained_images * 3 + cost.evaluated_images
    assert cost.operations == pytest.approx(images * one, rel=0.15)
    shown = dry_run.text(plan)
    assert "4 simulated cpu" in shown and f"{parameters / 1e6:,.2f} M" in shown


def test_equal_steps_are_compiled_once(tmp_path, monkeypatch):
    config = load("aircraft:ghns")
    config.backbone, config.data.image_size = "resnet_small", 64
    compiled = []

    def analyse(step):
        compiled.append(step.loss)
        return Memory(1, 1, 1, 1), 0.0

    monkeypatch.setattr(AbstractStep, "analyse", analyse)
    dry_run.plan(without_data(config, tmp_path), tmp_path)
    # Once for the classifier and the parts' warm-up, for both rounds of the parts and for both
    # image classifiers.
    names = [type(loss).__name__ for loss in compiled]
    assert names == [
        "function", "MembershipLoss", "function", "GroupLoss", "PartLoss", "function", "ImageLoss",
        "PartsLoss",
    ]  # fmt: skip


_DEVICES = [sys.executable, "-m", "fgjax", "train", "--dry-run", "--config.data.image_size=32",
            "--config.backbone=resnet_small"]  # fmt: skip


def command(*words, cwd, code=0):
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT),
                   "FGJAX_DATA": f"{cwd}/none"}  # fmt: skip
    done = subprocess.run(
        [*_DEVICES, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_four_devices_on_a_machine_with_one(tmp_path):
    done = command("--config=pets:hdcl,recognition", "--devices=4", cwd=tmp_path)
    assert "each of 4 simulated cpu" in done.stdout
    assert "3,680 training and 3,669 test images of 37 classes are assumed" in done.stdout
    assert list(tmp_path.iterdir()) == []
    config = load("pets:hdcl,recognition")
    config.backbone, config.data.image_size = "resnet_small", 32
    here = dry_run.plan(without_data(config, tmp_path), tmp_path)  # on the tests' four devices
    assert f"{here.costs[0].memory.batch / 2**20:,.3g}" in done.stdout.split("total")[0]


@pytest.mark.parametrize("words", [["--devices=0", "--dry-run"], ["--devices=4"]])
def test_devices_go_with_a_dry_run_alone(words):
    with pytest.raises(UserError, match="goes with --dry-run and a number from 1 on"):
        train.command(["--config=pets:hdcl", *words])


# Bad input


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("cub:ccfr", {"method.rerank.top_n": 201}, "has only 200 classes"),
        ("cub:ccfr", {"data.image_size": 70}, "which the pyramid's 2 levels do not divide"),
        ("pets:hdcl", {"backbone": "resnet1"}, "backbone 'resnet1' is not known"),
        ("pets:hdcl", {"method.embedding.batch_size": 30}, "divisible by the 4 devices"),
        ("pets:hdcl", {"data.dataset": "birds"}, "dataset 'birds' is not known"),
        ("folder:lapm", {"data.path": "/nowhere"}, "is not a folder"),
        ("folder:lapm", {"method.objects": "annotated"}, "needs a box for every image"),
        ("cub:ghns", {"data.held_out": 0.0}, "none are held out"),
    ],
)
def test_what_cannot_work_is_refused_as_in_training(name, changes, says, tmp_path):
    config = load(name)
    config.backbone, config.data.image_size = "resnet_small", 64
    config = override(without_data(config, tmp_path), changes)
    with pytest.raises(UserError, match=says):
        dry_run.plan(config, tmp_path / "run", compiles=False)


def test_another_configs_workdir_is_refused_and_left_alone(tmp_path):
    config = without_data(load("pets:hdcl"), tmp_path)
    workdir = tmp_path / "run"
    main.claim(workdir, config)
    before = sorted(path.name for path in workdir.iterdir())
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        dry_run.plan(override(config, {"seed": 1}), workdir, compiles=False)
    assert sorted(path.name for path in workdir.iterdir()) == before


def test_stages_of_other_settings_are_refused_where_training_refuses_them(data_dir, tmp_path):
    config = tiny("hdcl,recognition,demo", data_dir)
    load_dataset("synthetic_aircraft/4", data_dir=data_dir)
    folder = tmp_path / "run" / "classifier"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"stage": "classifier", "seed": 7}))
    with pytest.raises(UserError, match=r"holds a stage of another config .*seed: 7 -> 0"):
        dry_run.plan(config, tmp_path / "run", compiles=False)
    unknown = dry_run.plan(without_data(config, tmp_path), tmp_path / "run", compiles=False)
    assert all(cost.found is None for cost in unknown.costs)


# A method of one's own, which knows nothing of dry runs

_OWN = """
import dataclasses
import numpy as np
from fgjax.config import Training
from fgjax.data.loading import training_stream
from fgjax.methods.shared.classifier import cross_entropy, whole_images

@dataclasses.dataclass
class Config:
    training: Training = dataclasses.field(default_factory=lambda: Training(epochs=3, batch_size=8))

    def validate(self):
        pass

def run(run):
    stage = run.stage("own", run.config.method.training)
    train, test = whole_images(run)
    model = run.build_model()
    stream = training_stream(train, run.train_indices, seed=run.seed("own"))
    run.train(stage, model, cross_entropy, stream, run.config.method.training)
    logits = run.outputs(model, test, np.arange(len(test.split)), batch_size=8)["logits"]
    (stage.folder / "note.txt").write_text(str(logits.shape))
    stage.save_model(model)
    stage.save_arrays("logits", logits=logits)
    stage.finish({"top1": float(np.mean(logits.argmax(1) == test.split.labels))})
    return {"metrics": stage.metrics, "protocol": {}}
"""


def test_a_method_of_ones_own_gets_it_for_nothing(tmp_path, monkeypatch, data_dir):
    (tmp_path / "own_dry_method.py").write_text(_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import own_dry_method

    config = tiny("hdcl,recognition,demo", data_dir)
    config.method = own_dry_method.Config()
    plan = dry_run.plan(without_data(config, tmp_path), tmp_path / "run", compiles=False)
    assert counts_of(plan) == {"own": {"steps": 27, "trained_images": 216, "evaluated_images": 96}}
    assert not (tmp_path / "run").exists()
