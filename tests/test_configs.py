"""Every shipped config: fake official archive → prepared files → every method that it offers."""

import pathlib

import jax
import numpy as np
import pytest

from fgjax import config_files, main, models
from fgjax.config import Config, check, flatten
from fgjax.errors import UserError
from fgjax.testing import shrink_in_place
from tests import fake_aircraft, fake_archives
from tests.data.test_folder import fill

ROOT = pathlib.Path(__file__).parents[1]
BOTH = ("hdcl", "hdcl,recognition")
OFFERED = {
    "aircraft": ("lapm", "ghns", *BOTH, "ccfr", "probe"),
    "cub": ("lapm", "ghns", *BOTH, "ccfr", "probe"),
    "cars": ("lapm", "ghns", *BOTH, "ccfr", "probe"),
    "deepfashion": ("lapm", "ghns", "ccfr", "probe"),
    "dogs": (*BOTH, "ccfr", "probe"),
    "flowers": (*BOTH, "ccfr", "probe"),
    "pets": (*BOTH, "ccfr", "probe"),
    "folder": ("lapm", "ghns", *BOTH, "ccfr", "probe"),
}
WRITERS = {
    "aircraft": fake_aircraft.write,
    "cub": fake_archives.cub,
    "cars": lambda folder: fake_archives.cars(folder, single=False),
    "deepfashion": lambda folder: fake_archives.deepfashion(folder, folders=True),
    "dogs": fake_archives.dogs,
    "flowers": fake_archives.flowers,
    "pets": fake_archives.pets,
    "folder": lambda folder: fill(folder / "own", classes=("ant", "Bee", "cicada", "wasp")),
}
CASES = [(name, method) for name, methods in OFFERED.items() for method in methods]
QUICK = {("folder", "hdcl,recognition")}


def differing(one: Config, other: Config):
    ones, others = flatten(one), flatten(other)
    return [(name, ones[name], others[name]) for name in ones if ones[name] != others[name]]


def load(name: str, argument: str = "") -> Config:
    return config_files.load(f"{ROOT}/configs/{name}.py:{argument}")


@pytest.mark.parametrize(("name", "method"), [case for case in CASES if case[1] != "probe"])
def test_the_paper_configs_are_valid_and_named(name, method):
    config = load(name, method)
    check(config, devices=4)
    assert config.name == "-".join([name, *method.split(",")])
    assert config.backbone == "resnet50"
    assert models.name_weights(config).pretrained == "timm/resnet50.tv_in1k"
    assert config.data.zero_shot == (method == "hdcl")


@pytest.mark.parametrize(("name", "method"), CASES)
def test_small_is_offered_everywhere(name, method):
    paper, small = load(name, method), load(name, f"{method},small")
    check(small, devices=1)
    assert small.name == "-".join([name, *method.split(","), "small"])
    assert (small.backbone, small.data.image_size) == ("efficientnet_lite0", 128)
    assert small.data.dataset == paper.data.dataset
    assert small.data.zero_shot == paper.data.zero_shot
    assert load(name, f"small,{method}") == small


@pytest.mark.parametrize(
    "words", ["lapm", "ghns", "ghns,small", "hdcl", "hdcl,recognition", "ccfr"]
)
def test_paper_holds_nothing_out_and_searches_nothing(words):
    """All training images train, and what a search would choose is as the papers print it."""
    usual, paper = load("cub", words), load("cub", f"{words},paper")
    check(paper, devices=1)
    changed = {name for name, _, _ in differing(usual, paper)}
    assert paper.data.held_out == 0.0
    chosen = {"ccfr": "method.rerank.thresholds", "ghns": "method.fusion"}.get(words.split(",")[0])
    assert changed - {"data.held_out", "name"} == ({chosen} if chosen else set())
    if chosen:
        assert flatten(paper)[chosen] == "preset"


@pytest.mark.parametrize("method", ["lapm", "ghns", "hdcl", "ccfr", "probe"])
def test_small_and_demo_exclude_each_other(method):
    with pytest.raises(UserError, match="small is for photographs and demo for the drawn"):
        load("aircraft", f"{method},small,demo")


@pytest.mark.parametrize("method", ["lapm", "ghns", "ccfr", "hdcl,recognition"])
def test_classifiers_refuse_classes_that_they_have_not_seen(method):
    config = load("cub", method)
    config.data.zero_shot = True
    with pytest.raises(UserError, match=r"data\.zero_shot is True.*this method classifies"):
        check(config, devices=4)


def test_every_config_file_is_tested():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert files == set(OFFERED)


def test_the_papers_values():
    """LAPM IV.B; GHNS 4.2; MA-CNN's part sizes; HDCL 4.1."""
    lapm = {name: load(name, "lapm").method for name in ("cub", "cars", "aircraft", "deepfashion")}
    assert [m.lambda_ for m in lapm.values()] == [0.75, 0.8, 0.8, 0.75]
    assert [m.alpha for m in lapm.values()] == [1.0, 1.2, 1.0, 1.0]
    assert [round(448 * m.grouping.part_size) for m in lapm.values()] == [128, 96, 96, 96]
    # Nothing is selected, so all images train; GHNS's fusion is searched on held-out ones.
    assert [load(name, "lapm").data.held_out for name in lapm] == [0] * 4
    assert [load(name, "ghns").data.held_out for name in lapm] == [0.1] * 4
    ghns = {name: load(name, "ghns").method for name in lapm}
    assert [m.hard_negatives for m in ghns.values()] == [150, 200, 200, 150]
    assert [m.preset for m in ghns.values()] == [
        (0.3, 0.3, 0.4), (0.5, 0.2, 0.3), (0.4, 0.4, 0.2), (0.35, 0.3, 0.35),
    ]  # fmt: skip
    weights = [(m.alpha, m.beta, m.gamma) for m in ghns.values()]
    assert weights == [(1, 0.8, 1)] * 3 + [(1, 1, 0.5)]
    for method in ghns.values():
        assert method.tau == 0.95 and method.extractors == "finetuned"
        assert (method.lambda_parts, method.lambda_original, method.lambda_object) == (
            0.75, 0.8, 0.8,
        )  # fmt: skip
        assert [getattr(method, stage).epochs for stage in
                ("part_networks", "filter", "parts_classifier")] == [300, 200, 200]  # fmt: skip
    for name in ("cub", "cars", "aircraft", "dogs", "flowers", "pets"):
        config = load(name, "hdcl")
        assert (config.data.image_size, config.method.embedding.batch_size) == (280, 60)
        assert (config.method.top_k, config.method.warmup_epochs, config.last_stride) == (2, 0, 1)
        assert load(name, "hdcl,recognition").method.warmup_epochs == 5
    for name, threshold in (("cub", 0.5), ("cars", 0.7), ("aircraft", 0.7)):  # CCFR 4.2
        method = load(name, "ccfr").method
        chosen = method.rerank
        assert (chosen.top_n, chosen.alpha, chosen.beta) == (5, 0, 1)
        assert (chosen.probability_threshold, chosen.top_m) == (threshold, 50)
        assert [round(448 * scale) for scale in method.scales] == [96, 192]
        assert (method.per_scale, method.iou_threshold, method.crop_size) == (2, 0.25, 224)
        rates = {(t.optimizer.learning_rate, t.optimizer.decay_epochs, t.batch_size)
                 for t in (method.pretrain, method.navigator, method.enhance)}  # fmt: skip
        assert rates == {(0.001, 30, 16)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Fake archives of all datasets."""
    home = tmp_path_factory.mktemp("official")
    (home / "manual").mkdir()
    for write in WRITERS.values():
        write(home / "manual")
    return home


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case))
        for case in CASES
    ],
)
def test_from_archive_to_result(name, method, prepared, tmp_path):
    config = load(name, method)
    shrink_in_place(config.method)
    config.backbone, config.pretrained = "tests.tiny:Net", ""
    config.data.data_dir, config.data.image_size, config.data.workers = str(prepared), 32, 0
    config.data.held_out = 0.34 if method in ("ghns", "ccfr") else 0.0
    if name == "folder":
        config.data.path = str(prepared / "manual" / "own")
    else:
        config.data.dataset += "/subset"
    settings = config.method
    if method in ("lapm", "ghns"):
        settings.grouping.rounds = settings.grouping.classify_epochs = 1
        settings.grouping.group_epochs = 1
    if method == "lapm":
        settings.samples = 4
    if method == "ghns":
        settings.tau, settings.hard_negatives, settings.part_image_size = 0.0, 2, 16
    if method == "ccfr":
        settings.crop_size, settings.pyramid_width = 16, 8
        settings.rerank.top_n, settings.rerank.top_m = 2, 4
    with jax.numpy_dtype_promotion("standard"):  # optax's SGD under float32 weights
        results = main.run(config, tmp_path, figures=False)
    metrics, protocol = results["metrics"], results["protocol"]
    measured = "recall@1" if method == "hdcl" else "top1"
    assert 0 <= metrics[measured] <= 1 and np.isfinite(metrics[measured])
    assert protocol["zero_shot"] == (method == "hdcl")
    assert protocol["boxes_used"] is False
    if name == "deepfashion":
        assert metrics["top1"] <= metrics["top3"] <= metrics["top5"]
