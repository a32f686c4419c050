"""The JSON API: answers, limits, refusals, and nothing of this machine."""

import asyncio
import io
import json
import subprocess
import sys
import threading
from typing import ClassVar

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fgjax import export, search
from fgjax.data.images import Encoded
from fgjax.errors import UserError
from fgjax.galleries import Entry, Store
from fgjax.opening import open_model
from fgjax.serve.answers import Answers
from fgjax.serve.app import Limits, create_app
from fgjax.serve.batching import Batcher, Busy


def picture(height=40, width=60, seed=0, suffix=".png"):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


class Known:
    """Answers that say how many images came together."""

    title, batch_size = "known", 4
    about: ClassVar = {
        "name": "known", "method": "none", "dataset": "none", "classes": ["<b>ant</b>"],
        "top1": 0.5, "recall_at_1": None, "calibrated": False, "unknown_accepted": None, "index": 0,
    }  # fmt: skip

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, images):
        self.gate.wait(10)
        self.batches.append(len(images))
        return [{"top": [{"class": image.name, "probability": 1.0}], "box": None, "parts": [],
                 "neighbours": []} for image in images]  # fmt: skip

    def explain(self, image):
        self.gate.wait(10)
        return {"class": image.name, "squares": [[0.5, 0.0]], "where": "top left"}


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def client(known):
    limits = Limits(images=3, bytes=200_000, pixels=10_000, waiting=4)
    with TestClient(create_app(known, limits)) as found:
        yield found


def send(client, *files):
    return client.post("/api/predict", files=[("files", (name, data)) for name, data in files])


def test_answers_come_in_the_order_of_the_files(client, known):
    answer = send(client, ("a.png", picture()), ("b.jpg", picture(suffix=".jpg")))
    assert answer.status_code == 200
    assert [one["top"][0]["class"] for one in answer.json()] == ["a.png", "b.jpg"]
    assert known.batches == [2]


BAD = {
    "text": (b"root:x:0:0", "is no image that can be read"),
    "nothing": (b"", "is empty"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no image that can be read"),
    "pdf": (b"%PDF-1.7\n", "is no image that can be read"),
    "cut": (picture(90, 90, suffix=".jpg")[:900], "cut short"),
    "large": (b"\x89PNG" + bytes(200_001), "is larger than 200,000 bytes"),
    "wide": (picture(1, 20_000, suffix=".jpg"), "20000 × 1 pixels, more than 10,000"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_says_so_and_the_others_are_answered(client, kind):
    data, says = BAD[kind]
    bad, good = send(client, (kind, data), ("good.png", picture())).json()
    assert says in bad["error"] and bad["top"] == [] and good["error"] is None
    assert good["top"][0]["class"] == "good.png"


def test_an_image_of_one_pixel_and_a_gif_are_images(client):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    found = send(client, ("one.png", picture(1, 1)), ("moves.gif", file.getvalue())).json()
    assert [one["error"] for one in found] == [None, None]


def test_too_many_images_and_too_large_requests_are_refused(client):
    answer = send(client, *[(f"{n}.png", picture()) for n in range(4)])
    assert answer.status_code == 413 and "at most 3 at once" in answer.json()["detail"]
    answer = client.post("/api/predict", content=b"x", headers={"Content-Length": "99999999"})
    assert answer.status_code == 413 and "too large" in answer.json()["detail"]
    answer = client.post("/api/predict", content=iter([b"x"]))  # of no announced length
    assert answer.status_code == 411
    for wrong in ({"data": {"files": "text"}}, {"data": {}}, {"content": b"{}"}):
        answer = client.post("/api/predict", **wrong)
        assert answer.status_code == 422 and "named `files`" in answer.json()["detail"]


def test_a_name_has_no_folders(client):
    found = send(client, ("../../etc/passwd.png", picture()), (r"C:\secret\a.png", picture()))
    assert [one["file"] for one in found.json()] == ["passwd.png", "a.png"]


def test_a_full_queue_sends_away_and_serves_on(client, known):
    known.gate.clear()
    codes = []
    ask = lambda: codes.append(send(client, *[(f"{n}.png", picture()) for n in range(3)]))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    while len(codes) < 3:  # three wait for nothing: 3 images work, 3 more wait, others do not fit
        pass
    assert {answer.status_code for answer in codes} == {429}
    assert codes[0].headers["retry-after"] == "2"
    known.gate.set()
    for thread in threads:
        thread.join(10)
    assert sorted(answer.status_code for answer in codes) == [200, 200, 429, 429, 429]


def test_the_page_runs_its_own_script_alone(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in answer.text and "NONCE" not in answer.text
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert nonce not in client.get("/").headers["content-security-policy"]
    for name in ("x-content-type-options", "referrer-policy", "cache-control"):
        assert name in answer.headers
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert "innerHTML" not in answer.text  # names are text


def test_there_is_a_schema_and_no_page_from_elsewhere(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/api/model", "/api/predict", "/api/explain"}
    assert {"413", "422", "429"} <= set(schema["paths"]["/api/predict"]["post"]["responses"])
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert client.get("/api/model").json()["classes"] == ["<b>ant</b>"]


def explain(client, name, data):
    return client.post("/api/explain", files={"file": (name, data)})


def test_an_explanation_is_of_one_image(client):
    found = explain(client, "../a.png", picture()).json()
    assert found == {"file": "a.png", "error": None, "class": "a.png", "squares": [[0.5, 0.0]],
                     "where": "top left"}  # fmt: skip
    bad = explain(client, "text", b"root:x:0:0").json()
    assert "is no image that can be read" in bad["error"] and bad["squares"] == []
    answer = client.post("/api/explain", data={})
    assert answer.status_code == 422 and "named `file`" in answer.json()["detail"]


def test_few_explanations_wait_and_answers_do_not_wait_behind_more(known):
    limits = Limits(explanations=2)
    with TestClient(create_app(known, limits)) as client:
        known.gate.clear()
        codes = []
        ask = lambda: codes.append(explain(client, "a.png", picture()).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not codes:
            pass
        assert codes == [429]
        known.gate.set()
        for thread in threads:
            thread.join(10)
    assert sorted(codes) == [200, 200, 429]


def test_a_failure_belongs_to_its_request():
    def work(items):
        if "bad" in items:
            raise ValueError("no")
        return [len(items)] * len(items)

    async def story():
        batcher = Batcher(work, most=2, waiting=2)
        batcher.start()
        with pytest.raises(ValueError, match="no"):
            await batcher(["bad"])
        assert await batcher(["good", "good"]) == [2, 2]
        with pytest.raises(Busy):
            await batcher(["a"] * 3)
        assert await batcher([]) == []
        await batcher.stop()

    asyncio.run(story())


# A finished run


@pytest.mark.usefixtures("relaxed")
def test_a_runs_answers_are_its_predictions_and_similar_images(
    finished_probe, command, tmp_path, copy_of
):
    from fgjax.predict import predict

    workdir = copy_of(finished_probe)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(picture(50, 50, seed=number))
    index = tmp_path / "index"
    search.build_index(workdir, [str(folder)], index)
    answers = Answers.open(workdir, index=index, thumbnails=True)
    with TestClient(create_app(answers)) as client:
        files = sorted(folder.iterdir())
        found = send(client, *[(file.name, file.read_bytes()) for file in files]).json()
        told = explain(client, "0.png", files[0].read_bytes()).json()
    wanted = predict(workdir, [str(folder)])
    for one, known in zip(found, wanted, strict=True):
        mine, theirs = ({g["class"]: g["probability"] for g in x["top"]} for x in (one, known))
        assert mine == pytest.approx(theirs)
        nearest = one["neighbours"][0]
        assert nearest["name"] == one["file"] and nearest["similarity"] == pytest.approx(
            1, abs=1e-4
        )
        assert nearest["thumbnail"].startswith("data:image/webp;base64,")
    assert told["class"] == found[0]["top"][0]["class"] and np.shape(told["squares"]) == (7, 7)
    assert told["where"].partition(" ")[0] in ("", "top", "middle", "bottom")
    assert str(tmp_path) not in json.dumps([found, told])
    Store(tmp_path / "other", "x").add(np.ones((1, 2)), [Entry("a.jpg", "a")])
    with pytest.raises(UserError, match="was made by another model"):
        Answers.open(workdir, index=tmp_path / "other")
    with pytest.raises(UserError, match="there is no index"):
        Answers.open(workdir, index=tmp_path / "none")
    model = tmp_path / "probe.fgjax"
    export.export(workdir, model)
    with TestClient(create_app(Answers.open(model))) as client:
        again = send(client, *[(file.name, file.read_bytes()) for file in files]).json()
        assert client.get("/api/model").json()["name"] == "tiny"
    for one, other in zip(found, again, strict=True):
        mine, theirs = ({g["class"]: g["probability"] for g in x["top"]} for x in (one, other))
        assert mine == pytest.approx(theirs, abs=1e-5)
    hidden = Answers.open(workdir, index=index)([Encoded(files[0].read_bytes())])
    assert [one["thumbnail"] for one in hidden[0]["neighbours"]] == [""] * 5


@pytest.mark.usefixtures("relaxed")
def test_a_model_without_classes_wants_an_index_and_one_without_embeddings_takes_none(
    finished_hdcl, finished_lapm, tmp_path
):
    with pytest.raises(UserError, match=r"trained for retrieval.* wants an index: --index=FOLDER"):
        Answers.open(finished_hdcl)
    store = search.store_of(open_model(finished_lapm), finished_lapm, tmp_path / "index")
    store.add(np.ones((1, 2)), [Entry("a.jpg", "a")])
    with pytest.raises(UserError, match="makes no embeddings"):
        Answers.open(finished_lapm, index=tmp_path / "index")


def test_without_the_extra_a_sentence_says_what_to_install():
    program = """
import sys
sys.modules["uvicorn"] = None
from fgjax import cli
cli.dispatch(["serve", "--workdir=x"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'fgjax serve wants uvicorn: pip install "fgjax[serve]".' in done.stderr
    program = program.replace("uvicorn", "fastapi")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'fgjax serve wants fastapi: pip install "fgjax[serve]".' in done.stderr
