"""To the Hub and back: a real client against a server on loopback, in processes of their own."""

import pathlib

import pytest

import fgjax
from fgjax import model_files, push
from fgjax.errors import UserError
from tests import finished
from tests.fake_hub import Shelf
from tests.test_model_files import exported

_LOAD = """
import fgjax
model = fgjax.load("user/birds")
print(len(model.class_names), model.card["name"])
"""


@pytest.fixture
def client(shared, tmp_path):
    """Runs words with a Hub at an address and a cache of its own."""

    def run(hub, *words, token=Shelf.TOKEN, code=0):
        environment = finished.environment(
            "/nowhere", shared, HF_ENDPOINT=hub if isinstance(hub, str) else hub.address,
            HF_HOME=str(tmp_path / "hf"), HF_TOKEN=token, HF_HUB_DISABLE_XET="1",
            XLA_FLAGS=finished.HASTY, http_proxy="", https_proxy="",
        )  # fmt: skip
        return finished.run(*words, environment=environment, code=code)

    return run


@pytest.mark.slow
def test_a_model_goes_to_the_hub_and_comes_back(client, shared, finished_probe):
    path = exported(shared, finished_probe)
    model = fgjax.load(path)
    with Shelf() as hub:
        said = client(hub, "-m", "fgjax", "push", path, "user/birds").stdout
        assert said.startswith(f"{hub.address}/user/birds") and "only you see it" in said
        assert hub.made[0].get("visibility", hub.made[0].get("private")) in ("private", True)
        assert hub.files["model.fgjax"] == path.read_bytes()
        assert hub.files["README.md"].decode() == push.card(model, "user/birds")
        said = client(hub, "-c", _LOAD).stdout
        assert said.split() == [str(len(model.class_names)), model.card["name"]]
    assert client("http://127.0.0.1:9", "-c", _LOAD).stdout == said, "it is cached"


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_sentence(client, shared, finished_probe):
    path = exported(shared, finished_probe)
    words = ("-m", "fgjax", "push", path, "user/birds")
    with Shelf() as hub:
        said = client(hub, *words, token="hf_other", code=2).stderr
        assert "could not be pushed to user/birds (" in said and "hf auth login" in said
        assert "Traceback" not in said and not hub.files
        said = client(hub, "-c", _LOAD, code=1).stderr.splitlines()[-1]
        assert "the files of the model user/birds are not cached and could not be" in said


def test_the_card_says_what_the_model_is(shared, finished_probe):
    model = fgjax.load(exported(shared, finished_probe))
    text = push.card(model, "user/birds")
    top1 = model.card["scores"]["top1"]
    assert text.startswith("---\nlibrary_name: fgjax\npipeline_tag: image-classification\n")
    for words in (f"| First answer right | {100 * top1:.1f} % (", 'fgjax.load("user/birds")',
                  "| Anything chosen on test images | no |", model.card["licence"],
                  "| Test images | ", ", ".join(model.class_names)):  # fmt: skip
        assert words in text
    confusions = model.card["confusions"]
    assert confusions and all(one["times"] <= one["total"] for one in confusions)
    one = confusions[0]
    assert f"| {one['true']} | {one['other']} | {one['times']} of {one['total']} |" in text


@pytest.mark.parametrize("name", ["birds", "a/b/c", "../x", "a b/c", "https://hub/x/y"])
def test_names_that_are_no_repositories(name, tmp_path):
    (tmp_path / "bird.fgjax").write_bytes(b"")
    with pytest.raises(UserError, match="is no repository: say USER/NAME"):
        push.push(tmp_path / "bird.fgjax", name)
    with pytest.raises(UserError, match="there is no model file"):
        push.push(tmp_path / "other", "user/birds")


def test_a_file_that_is_here_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path("models")
    folder.mkdir()
    (folder / "bird").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a model file"):
        model_files.load("models/bird")
    with pytest.raises(UserError, match=r"models/bird\.fgjax cannot be read"):
        model_files.load("models/bird.fgjax")
