"""The examples of “write your own” do what their pages say."""

import csv
import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

from fgjax import config_files, main, methods, models
from fgjax.data import datasets, images
from fgjax.errors import UserError
from fgjax.training.logging import read_metrics
from tests.docs.pages import EXAMPLES


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_examples(monkeypatch, tmp_path):
    """As a person has them: files in the folder where the command is started."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    with jax.numpy_dtype_promotion("standard"):  # as it is outside of these tests
        yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.slow
def test_own_loss(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_loss

    logits, labels = jax.random.normal(jax.random.key(0), (5, 4)), jnp.array([0, 1, 2, 3, 0])
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(own_loss.focal_loss(logits, labels, gamma=0.0), plain, rtol=1e-6)
    sure = np.exp(-np.asarray(plain, np.float64))
    expected = (1 - sure) ** 2 * -np.log(sure)
    np.testing.assert_allclose(own_loss.focal_loss(logits, labels), expected, rtol=1e-5)

    folder = tmp_path / "run"
    options = {"epochs": 3, "images": 2, "size": 32}
    found = own_loss.train(folder, **options)
    losses = [line["loss"] for line in read_metrics(folder)]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert own_loss.train(folder, **options) == found  # resumes at its end
    assert len(read_metrics(folder)) == 3


def test_own_backbone():
    options = {"num_classes": 5, "rngs": nnx.Rngs(0), "pooling": "max_average", "last_stride": 1}
    model = models.build("own_backbone:PatchNet", **options)
    outputs = model(jnp.ones((4, 32, 32, 3)))
    assert [outputs[name].shape[1:] for name in ("stage1", "stage2", "stage3")] == [
        (8, 8, 24),
        (4, 4, 48),
        (4, 4, 96),
    ]
    assert outputs["pooled"].shape == (4, 192) and outputs["logits"].shape == (4, 5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_backbone:Missing", "no module own_backbone here that has Missing"),
        ("nowhere:Net", "no module nowhere here"),
        ("own_backbone", "say module:Class"),
    ],
)
def test_backbones_that_are_not_there_are_named(name, says):
    with pytest.raises(UserError, match=says):
        models.build(name, num_classes=2, rngs=nnx.Rngs(0))


def leaves(folder: pathlib.Path) -> list[dict]:
    """A table of images in two formats, as the page shows it."""
    folder.mkdir()
    rows = []
    for label, color in (("oak", 40), ("elm", 200)):
        for number in range(4):
            file = f"{label}-{number}.{'png' if number % 2 else 'jpg'}"
            Image.new("RGB", (40, 30), (color, color, 10 * number)).save(folder / file)
            rows.append({"file": file, "label": label, "split": "test" if number else "train"})
    with (folder / "labels.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, ["file", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_own_dataset(tmp_path):
    rows = leaves(tmp_path / "leaves")
    options = {"data_dir": str(tmp_path / "data"), "manual_dir": str(tmp_path / "leaves")}
    dataset = datasets.load_dataset("own_dataset", **options)
    assert dataset.class_names == ("elm", "oak")
    assert (len(dataset.train), len(dataset.test)) == (2, 6)
    expected = {row["file"]: row["label"] for row in rows if row["split"] == "test"}
    named = [dataset.class_names[label] for label in dataset.test.labels]
    assert dict(zip(dataset.test.filenames, named)) == expected
    row = dataset.test.filenames.index("elm-3.png")
    assert dataset.test.source[row]["image"][1:4] == b"PNG"  # the file's own bytes
    with pytest.raises(UserError, match="no variant 'small'"):
        datasets.load_dataset("own_dataset/small", **options)
    with pytest.raises(UserError, match="'nowhere' is not known"):
        datasets.load_dataset("nowhere", **options)


def test_own_method_with_own_backbone(tmp_path, data_dir):
    config = config_files.load("own_config.py:quick")
    config.data.data_dir, config.backbone = data_dir, "own_backbone:PatchNet"
    workdir = tmp_path / "run"
    results = main.run(config, workdir)
    assert results["protocol"]["backbone"] == "own_backbone:PatchNet"
    assert results["method"] == "own_method" and 0 <= results["metrics"]["top1"] <= 1
    assert json.loads((workdir / "means" / "stage.json").read_text())["temperature"] == 0.1

    opened = main.open_run(workdir)  # as prediction does, from the folder alone
    assert type(opened.build_model(pretrained=False)).__name__ == "PatchNet"
    predictor = methods.of(opened.config).load_predictor(opened)
    (found,) = predictor([images.decode(opened.dataset.test.source[0]["image"])])
    assert found.probabilities.shape == (24,)
    np.testing.assert_allclose(found.probabilities.sum(), 1, rtol=1e-5)

    config.method.temperature = -1.0
    with pytest.raises(UserError, match=r"method\.temperature"):
        main.run(config, tmp_path / "other")
