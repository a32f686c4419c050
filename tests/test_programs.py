"""Programs of model files: for any batch on any device, and built anew where JAX reads them not."""

import hashlib
import json

import jax
import numpy as np
import pytest
from flax import nnx

import fgjax
from fgjax import main, models
from fgjax.errors import UserError
from fgjax.methods.shared.predictor import Network
from fgjax.model_files import archive, networks, tree
from fgjax.models import sums
from tests.test_model_files import RUNS, exported, image_files_of

slow = pytest.mark.slow


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", RUNS)
def test_programs_that_are_too_old_are_built_anew(name, request, shared, monkeypatch):
    """From the config and the weights in the file: the same answers."""
    workdir = request.getfixturevalue(name)
    path = exported(shared, workdir)
    model = fgjax.load(path)
    files = image_files_of(main.open_run(workdir))

    def too_old(_):
        raise ValueError("the artifact's version is not supported any more")

    monkeypatch.setattr(networks.export, "deserialize", too_old)
    again = fgjax.load(path)
    assert again.class_names == model.class_names
    if model.class_names:
        assert all(isinstance(one, Network)
                   for one in tree.networks_in(again.predictor, "predictor").values())  # fmt: skip
        for found, wanted in zip(again.predict(files), model.predict(files), strict=True):
            np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
            np.testing.assert_allclose(found.parts, wanted.parts, atol=1e-5)
    if name not in ("finished_lapm", "finished_ghns"):
        np.testing.assert_allclose(again.embed(files), model.embed(files), atol=1e-5)


def test_a_file_that_does_not_say_how_is_refused(shared, finished_probe, tmp_path, monkeypatch):
    members, _ = archive.read(exported(shared, finished_probe))
    card = json.loads(members["model.json"])
    assert not [v for k, v in card["rebuilding"]["config"].items() if str(v).startswith("/")]
    del card["rebuilding"]
    members["model.json"] = json.dumps(card).encode()
    digests = {name: hashlib.sha256(members[name]).hexdigest() for name in card["members"]}
    assert digests == card["members"]
    archive.write(tmp_path / "old", members)

    def too_old(_):
        raise ValueError("version 1 is not supported")

    monkeypatch.setattr(networks.export, "deserialize", too_old)
    with pytest.raises(UserError, match=r"version 1 .* nor the network be built anew.*export"):
        fgjax.load(tmp_path / "old")


@slow
@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet50", {"last_stride": 1}),
        ("vgg16_bn", {"head": "original"}),
        ("densenet161", {"pooling": "max_average"}),
        ("inception_v3", {}),
        ("efficientnet_lite0", {"last_stride": 1}),
        ("efficientnet_b0", {}),
        ("convnext_tiny", {}),
        ("dinov2_vits14_reg", {}),
    ],
)
def test_every_family_is_written_for_any_batch(name, options):
    """By shapes alone; a length that Python asks for would need a batch of known size."""
    size = {"vgg16_bn": 224, "inception_v3": 299, "dinov2_vits14_reg": 70}.get(name, 64)
    make = lambda: models.build(name, num_classes=7, rngs=nnx.Rngs(0), **options)  # noqa: E731
    model = nnx.eval_shape(make)
    model.eval()
    graph, state = nnx.split(model)
    leaves, structure = jax.tree_util.tree_flatten(state)

    def said(leaves, pixels):
        return dict(nnx.merge(graph, jax.tree_util.tree_unflatten(structure, leaves))(pixels))

    for platform, devices in networks.PLATFORMS.items():
        with sums.written_for(platform):
            written = networks.program_of(said, leaves, (size, size, 3), devices)
        found = jax.export.deserialize(bytearray(written))
        assert found.platforms == devices
        shapes = {str(aval.shape[0]) for aval in found.out_avals}
        assert shapes == {"batch"}
