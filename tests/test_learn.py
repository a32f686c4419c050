"""Images and classes that a finished run learns afterwards, and forgets again."""

import json

import cv2
import numpy as np
import pytest

from fgjax import learn as commands
from fgjax import main
from fgjax.config import override
from fgjax.errors import UserError
from fgjax.learn import forget, learn
from fgjax.opening import open_model
from fgjax.predict import predict


def stripes(number: int, wide: int = 1) -> bytes:
    """Of a thing that no drawn aircraft looks like."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :: wide + 1] = (20, 250, 30 + number)
    pixels[number] = 255
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def things(tmp_path):
    """A folder of two new classes; another image of the first is not in it."""
    for name, wide in (("stripe", 1), ("bar", 9)):
        (tmp_path / "things" / name).mkdir(parents=True)
        for number in range(4):
            path = tmp_path / "things" / name / f"{number}.png"
            path.write_bytes(stripes(number, wide))
    (tmp_path / "another.png").write_bytes(stripes(17))
    return tmp_path / "things"


@pytest.fixture(scope="session", params=["knn", "cosine"])
def finished_head(request, finished_probe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head") / request.param
    config = main.open_run(finished_probe).config
    changes = {
        "method.head": request.param,
        "reuse": str(finished_probe),
        "method.neighbours": (1,),
    }
    main.run(override(config, changes), folder, figures=False)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_new_classes_are_learned_and_forgotten(finished_head, things, copy_of, capsys):
    run = copy_of(finished_head)
    files = [str(things.parent / "another.png"), str(things / "bar" / "0.png")]
    before = predict(run, files, top=30)
    results = (run / "results.json").read_bytes()
    commands.command([str(things), f"--workdir={run}"])
    said = capsys.readouterr().out
    assert "learned 4 images of stripe" in said and "it remembers 8 images" in said
    found = predict(run, files, top=30)
    assert [one["top"][0]["class"] for one in found] == ["stripe", "bar"]
    assert len(found[0]["top"]) == len(before[0]["top"]) + 2
    # The same again is passed over, and an image that was trained on, too.
    assert learn(run, [str(things)]).images == {}
    source = main.open_run(run).dataset.train.source
    (things.parent / "known.png").write_bytes(source[0]["image"])
    assert learn(run, [str(things.parent / "known.png")], name="known").images == {}
    # A model file has what was learned.
    assert open_model(run).class_names[-2:] == ("bar", "stripe")
    assert forget(run, ["bar"]).images == {"bar": 4}
    assert predict(run, files, top=1)[1]["top"][0]["class"] != "bar"
    assert forget(run, [str(things / "stripe" / "1.png")]).total == 3
    commands.forget_command([f"--workdir={run}", "--all"])
    assert predict(run, files, top=30) == before
    assert (run / "results.json").read_bytes() == results
    with pytest.raises(UserError, match="learned nothing of stripe after its training"):
        forget(run, ["stripe"])


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_more_images_of_a_class_change_it(finished_head, things, copy_of):
    run = copy_of(finished_head)
    name = main.open_run(run).dataset.class_names[0]
    files = [str(things.parent / "another.png")]
    for _ in range(2):
        learn(run, [str(things / "stripe")], name=name)
    found = predict(run, files, top=30)[0]["top"]
    assert found[0]["class"] == name and len(found) == len(main.open_run(run).dataset.class_names)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_ccfr_takes_images_of_its_classes_alone(finished_ccfr, things, copy_of):
    run = copy_of(finished_ccfr)
    with pytest.raises(UserError, match="bar is none of them"):
        learn(run, [str(things)])
    assert not (run / "memory").exists()
    before = open_model(run).predictor
    name = main.open_run(run).dataset.class_names[3]
    assert learn(run, [str(things / "stripe")], name=name).images == {name: 4}
    after = open_model(run).predictor
    assert len(after.database) == len(before.database) + 4
    assert after.labels[-4:].tolist() == [3] * 4
    np.testing.assert_array_equal(after.database[:-4], before.database)
    forget(run, [], everything=True)
    assert len(open_model(run).predictor.database) == len(before.database)


@pytest.mark.usefixtures("relaxed")
def test_who_cannot_learn_says_so(finished_probe, things, copy_of):
    with pytest.raises(UserError, match="has the head linear, which cannot learn without training"):
        learn(finished_probe, [str(things)])
    with pytest.raises(UserError, match="say what to forget"):
        commands.forget_command([f"--workdir={finished_probe}"])


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_what_cannot_be_learned(finished_head, finished_lapm, things, copy_of, tmp_path):
    run = copy_of(finished_head)
    with pytest.raises(UserError, match="which learns by training alone"):
        learn(finished_lapm, [str(things)])
    (things / "empty").mkdir()
    with pytest.raises(UserError, match="the class empty has no image"):
        learn(run, [str(things)])
    assert not (run / "memory").exists()  # nothing of the others was added
    with pytest.raises(UserError, match=r"0.png is no folder: name one with"):
        learn(run, [str(things / "bar" / "0.png")])
    with pytest.raises(UserError, match="no folder of images for each class"):
        learn(run, [str(things / "bar")])
    with pytest.raises(UserError, match="does not exist"):
        learn(run, [str(tmp_path / "nowhere")], name="x")
    # A memory that other weights made.
    learn(run, [str(things / "bar")], name="bar")
    manifest = json.loads((run / "memory" / "manifest.json").read_text())
    (run / "memory" / "manifest.json").write_text(json.dumps(manifest | {"model": "other"}))
    with pytest.raises(UserError, match="made by another model"):
        predict(run, [str(things / "bar" / "0.png")])
