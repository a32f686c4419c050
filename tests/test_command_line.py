"""What people type, as processes: `python train.py`, `fgjax WORD`, `python -m fgjax.predict`."""

import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest

from fgjax import main, predict
from fgjax.errors import UserError
from fgjax.training import checkpoints
from fgjax.training.run import Stage
from tests import fake_aircraft, finished
from tests.finished import DEMO, HASTY, ROOT, TINY, run
from tests.models.test_resnet import torchvision_file


@pytest.fixture
def environment(data_dir, tmp_path):
    """A machine of one device with nothing on it and no way out."""
    return finished.environment(data_dir, tmp_path)


@pytest.fixture
def clone(tmp_path):
    """The files that a person starts from."""
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copy(ROOT / "train.py", folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


def sentence_of(done):
    """The one line on standard error that is meant for people."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_the_literal_order_on_a_machine_with_nothing(environment, clone, tmp_path):
    environment["FGJAX_DATA"] = str(tmp_path / "empty")
    done = run(
        "train.py", "--config=configs/aircraft.py", environment=environment, cwd=clone, code=2
    )
    sentence = sentence_of(done)
    assert "fgvc-aircraft-2013b.tar.gz" in sentence
    assert str(tmp_path / "empty" / "manual") in sentence
    assert "timm/resnet50.tv_in1k" in sentence
    assert "--config.pretrained" in sentence
    assert "fgjax train --config=aircraft:demo" in sentence


@pytest.mark.slow
def test_the_literal_order_on_a_small_archive_with_local_weights(environment, clone, tmp_path):
    environment["FGJAX_DATA"] = str(tmp_path / "data")
    fake_aircraft.write(tmp_path / "data" / "manual")
    torchvision_file(tmp_path / "weights.safetensors", "resnet18")
    small = [
        "--config.data.dataset=fgvc_aircraft/subset",
        "--config.backbone=resnet18", f"--config.pretrained={tmp_path}/weights.safetensors",
        "--config.data.image_size=64", "--config.data.workers=1", "--config.method.samples=4",
        *[f"--config.method.{stage}.{field}" for field in ("epochs=1", "batch_size=4")
          for stage in ("classifier", "grouping.warmup", "margin")],
        "--config.method.grouping.rounds=1", "--config.method.grouping.classify_epochs=1",
        "--config.method.grouping.group_epochs=1",
    ]  # fmt: skip
    done = run(
        "train.py", "--config=configs/aircraft.py", *small, environment=environment, cwd=clone
    )
    results = json.loads((clone / "runs" / "aircraft-lapm" / "results.json").read_text())
    protocol = results["protocol"]
    assert protocol["dataset"] == "fgvc_aircraft" and protocol["test_images"] == 12
    assert protocol["pretrained"].endswith("weights.safetensors")
    assert protocol["boxes_used"] is False and protocol["test_split_used_for_selection"] is False
    assert protocol["packages"]["jax"]
    assert 0 <= results["metrics"]["top1"] <= 1
    assert "is replaced by a new head" in done.stderr


def test_a_run_leaves_what_the_readme_says(finished_lapm):
    figures = {p.name for p in (finished_lapm / "figures").iterdir()}
    assert figures == {
        "mixing.webp", "localization.webp", "margins.png", "bands.png", "tsne.png", "curves.png",
        "confusions.webp", "captions.json",
    }  # fmt: skip
    said = json.loads((finished_lapm / "figures" / "captions.json").read_text())
    assert set(said) == figures - {"captions.json"} and all(said.values())
    for name in said:
        assert cv2.imread(str(finished_lapm / "figures" / name)).std() > 5
    lines = (finished_lapm / "margin" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    for name in ("m1", "m2", "share_below_m1", "feature_norm", "held_out_top1", "loss"):
        assert name in last
    assert list((finished_lapm / "margin" / "tensorboard").iterdir())
    metrics = json.loads((finished_lapm / "results.json").read_text())["metrics"]
    assert 0 < metrics["localization"]["test_object_iou"] <= 1
    assert "test_part_centers_inside_random" in metrics["localization"]


def test_the_same_command_again_finds_everything_done(finished_lapm, copy_of, environment):
    """Named as the command does it, where `train.py` made the run."""
    workdir = copy_of(finished_lapm)
    before = (workdir / "results.json").read_text()
    words = ("train", "--config=aircraft:demo", *TINY, f"--workdir={workdir}")
    done = run("-m", "fgjax", *words, environment=environment)
    assert "step/s" not in done.stderr  # nothing was trained
    assert (workdir / "results.json").read_text() == before


def test_another_config_in_the_same_workdir_is_refused(
    finished_lapm, command, monkeypatch, data_dir
):
    monkeypatch.setenv("FGJAX_DATA", data_dir)
    words = ("--config=aircraft:demo", *TINY, "--config.method.alpha=1.5")
    with pytest.raises(UserError, match=r"method\.alpha: 1\.0 -> 1\.5"):
        command("train", *words, f"--workdir={finished_lapm}")


def test_predictions_equal_evaluation(finished_lapm, tiny_dataset, environment, tmp_path):
    """The same test images as files give the probabilities that evaluation stored."""
    dataset = tiny_dataset
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    for row in range(12):
        (tmp_path / "images" / f"{row:02d}.jpg").write_bytes(dataset.test.source[row]["image"])
    done = run("-m", "fgjax.predict", f"--workdir={finished_lapm}", tmp_path / "images", "--json",
               f"--out={tmp_path}/out", environment=environment)  # fmt: skip
    found = json.loads(done.stdout)
    assert len(found) == 12 and "notes.txt" in done.stderr
    with np.load(finished_lapm / "margin" / "predictions.npz") as stored:
        logits = stored["logits"][:12].astype(np.float64)
    logits /= json.loads((finished_lapm / "results.json").read_text())["metrics"]["temperature"]
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    with np.load(finished_lapm / "objects" / "boxes.npz") as stored:
        boxes = stored["test"][:12]
    for row, result in enumerate(found):
        np.testing.assert_allclose(result["box"], boxes[row], atol=1e-6)
        best = [dataset.class_names.index(entry["class"]) for entry in result["top"]]
        np.testing.assert_allclose(
            [entry["probability"] for entry in result["top"]], wanted[row, best], rtol=1e-3
        )
        assert len(result["top"]) == 5 and len(result["parts"]) == 3
        assert cv2.imread(result["picture"]) is not None


def test_an_image_is_timed_by_itself_and_after_compiling(monkeypatch):
    """As the papers time: nothing is shared between images, and the first call does not count."""
    now, asked = [0.0], []

    class Fake:
        def predict(self, files):
            asked.append(list(files))
            now[0] += 60 if len(asked) == 1 else 0.002 * files[0]

    monkeypatch.setattr(predict.time, "perf_counter", lambda: now[0])
    assert predict.milliseconds(Fake(), [3, 1, 2]) == pytest.approx([6, 2, 4])
    assert asked == [[3], [3], [1], [2]]


def test_prediction_refuses_what_is_not_there(finished_lapm, command, tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg does not exist"):
        command("predict", f"--workdir={finished_lapm}", tmp_path / "none.jpg")
    with pytest.raises(UserError, match="no finished run"):
        command("predict", f"--workdir={tmp_path}", ROOT / "README.md")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train.py", "--config=configs/none.py"), "configs/none.py"),
        (("-m", "fgjax", "train", "--config=aircraft:hal"), "'hal' is neither a method nor a flag"),
    ],
)
def test_bad_words_give_one_sentence(environment, clone, words, says):
    """As people meet it; every other kind of bad word is below and in test_cli.py."""
    assert says in sentence_of(run(*words, environment=environment, cwd=clone, code=2))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--config.method.lambda_=1.5",), r"lambda_ is 1\.5"),
        (("--config.method.samples=1",), "at least 2"),
        (("--workdir=/proc/nowhere",), "cannot be written"),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_trained(command, words, says):
    with pytest.raises(UserError, match=says):
        command("train", "--config=aircraft:demo", "--workdir=/proc/nowhere", *words)


def test_training_asks_for_a_config(command):
    with pytest.raises(UserError, match="name a config: fgjax train --config=aircraft:demo"):
        command("train")


def parameters(workdir):
    """All variables of a finished run's last model."""
    run = main.open_run(workdir)
    return checkpoints.model_state(run.load_model(Stage("margin", workdir / "margin", "")))


def kill_in(stage, command, workdir, environment):
    """Start a training and SIGKILL it once the stage has a checkpoint, or has begun without one."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 300
    loops = stage not in ("hard_negatives", "hierarchy", "rerank")
    seen = f"{stage}/**/checkpoints/[0-9]*" if loops else f"{stage}/stage.json"
    while not list(workdir.glob(seen)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workdir / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["classifier", "parts", "margin"])
def test_killed_anywhere_and_started_again(
    finished_lapm, environment, tmp_path, stage, monkeypatch
):
    """SIGKILL in the middle of a stage; the same command ends with the same parameters."""
    whole, environment = finished_lapm, {**environment, "XLA_FLAGS": HASTY}
    monkeypatch.setenv("FGJAX_DATA", environment["FGJAX_DATA"])
    workdir = tmp_path / "run"
    command = [sys.executable, "train.py", DEMO, *TINY, f"--workdir={workdir}",
               "--config.checkpoints.every_steps=3"]  # fmt: skip
    kill_in(stage, command, workdir, environment)
    run(*command[1:], environment=environment)
    jax.tree.map(np.testing.assert_array_equal, parameters(whole), parameters(workdir))
    assert (
        json.loads((workdir / "results.json").read_text())["metrics"]["top1"]
        == (json.loads((whole / "results.json").read_text())["metrics"]["top1"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["classifier", "margin"])
def test_sigterm_saves_the_step_and_says_so(finished_lapm, environment, tmp_path, stage):
    """Long epochs and no checkpoint between: without a save the stage would begin anew."""
    environment = {**environment, "XLA_FLAGS": HASTY}
    workdir = tmp_path / "run"
    command = [sys.executable, "train.py", DEMO, *TINY, f"--workdir={workdir}"]
    errors = tmp_path / "errors.txt"
    with errors.open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=said)
        deadline = time.monotonic() + 300
        while f"{stage}:" not in errors.read_text():  # its progress bar
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 75
    assert "SIGTERM: " in errors.read_text() and "Traceback" not in errors.read_text()
    assert not (workdir / "results.json").exists()
    run(*command[1:], environment=environment)
    jax.tree.map(np.testing.assert_array_equal, parameters(finished_lapm), parameters(workdir))


GHNS = [
    "train.py", "--config=configs/aircraft.py:ghns,demo", "--config.checkpoints.every_steps=3",
    *TINY[:3], *TINY[4:7], "--config.method.part_image_size=16", "--config.method.tau=0.05",
    "--config.method.hard_negatives=3", "--config.method.filter.epochs=2",
    *[f"--config.method.{stage}.epochs=1"
      for stage in ("part_networks", "parts_classifier", "image_classifiers")],
]  # fmt: skip


@pytest.fixture(scope="module")
def trained_ghns(data_dir, tmp_path_factory):
    """A tiny finished run of GHNS."""
    folder = tmp_path_factory.mktemp("ghns")
    environment = finished.environment(data_dir, folder)
    run(*GHNS, f"--workdir={folder}/run", environment=environment)
    return folder / "run", environment


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["part_networks", "filter", "hard_negatives", "parts_classifier", "object_classifier"]
)
def test_ghns_killed_in_any_stage_gives_the_same_numbers(trained_ghns, tmp_path, stage):
    whole, environment = trained_ghns
    workdir = tmp_path / "run"
    command = [*GHNS, f"--workdir={workdir}"]
    kill_in(stage, [sys.executable, *command], workdir, environment)
    run(*command, environment=environment)
    results = [json.loads((w / "results.json").read_text()) for w in (whole, workdir)]
    assert results[0] == results[1]
    for name in ("kept", "distances"):
        one, other = (dict(np.load(w / "hard_negatives" / f"{name}.npz")) for w in (whole, workdir))
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key])


CCFR = [
    "train.py", "--config=configs/aircraft.py:ccfr,demo", "--config.checkpoints.every_steps=3",
    *TINY[:3], "--config.method.classifier.epochs=1", "--config.method.crop_size=16",
    "--config.method.pyramid_width=8", "--config.method.explore_epochs=1",
    "--config.method.navigator.epochs=2", "--config.method.pretrain.epochs=1",
    "--config.method.enhance.epochs=1", "--noconfig.method.beside_nts",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained_ccfr(data_dir, tmp_path_factory):
    """A tiny finished run of CCFR."""
    folder = tmp_path_factory.mktemp("ccfr")
    environment = finished.environment(data_dir, folder)
    run(*CCFR, f"--workdir={folder}/run", environment=environment)
    return folder / "run", environment


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["hierarchy", "pretrain", "navigator", "enhance", "rerank"])
def test_ccfr_killed_in_any_stage_gives_the_same_numbers(trained_ccfr, tmp_path, stage):
    whole, environment = trained_ccfr
    workdir = tmp_path / "run"
    command = [*CCFR, f"--workdir={workdir}"]
    kill_in(stage, [sys.executable, *command], workdir, environment)
    run(*command, environment=environment)
    results = [json.loads((w / "results.json").read_text()) for w in (whole, workdir)]
    assert results[0] == results[1]
    for name in ("pretrain/features", "enhance/features", "enhance/regions", "rerank/predictions"):
        one, other = (dict(np.load(w / f"{name}.npz")) for w in (whole, workdir))
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key])


@pytest.mark.slow
def test_a_study_shares_stages_resumes_and_writes_its_table(environment, clone, tmp_path):
    settings = [f"--set={word.removeprefix('--config.')}" for word in TINY]
    command = ["-m", "fgjax.study", "configs/aircraft.py:lapm,demo", "table5", "--seeds=2",
               f"--workdir={tmp_path}/study", *settings]  # fmt: skip
    run(*command, "--jobs=2", environment=environment, cwd=clone)
    stages = sorted(p.name.split("-")[0] for p in (tmp_path / "study" / "stages").iterdir())
    assert stages == ["classifier"] * 2 + ["margin"] * 8 + ["objects"] * 2 + ["parts"] * 2
    table = (tmp_path / "study" / "table5" / "table5.md").read_text()
    assert table.count("±") == 5 and "89.23" in table
    assert (tmp_path / "study" / "table5" / "table5.png").stat().st_size > 5000
    again = run(*command, environment=environment, cwd=clone)
    assert "step/s" not in again.stderr
    done = run(*command[:3], "table9", environment=environment, cwd=clone, code=2)
    assert "table5: Adaptive margin" in sentence_of(done)
