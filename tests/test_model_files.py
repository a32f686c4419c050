"""A model file says what its run says, without run and dataset, and no bad file gets through."""

import hashlib
import io
import json
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import fgjax
from fgjax import compilation, main, methods
from fgjax.data.images import Encoded, decode
from fgjax.errors import UserError
from fgjax.export import export
from fgjax.model_files import archive, networks, tree
from tests import finished

slow = pytest.mark.slow
PROBE = "finished_probe"
RUNS = [PROBE, *(pytest.param(f"finished_{name}", marks=slow)
                 for name in ("lapm", "ghns", "hdcl", "recognition", "ccfr"))]  # fmt: skip


def image_files_of(run, count: int = 10) -> list[bytes]:
    """Of the test split."""
    return [run.dataset.test.source[row]["image"] for row in range(count)]


def exported(shared, workdir):
    """A finished run in one file."""

    def make(folder):
        folder.mkdir()
        export(workdir, folder / "bird.fgjax")

    return finished.once(shared / "models" / workdir.name, make) / "bird.fgjax"


@pytest.fixture(scope="session")
def probe_file(shared, finished_probe):
    """The probe's run in one file."""
    return exported(shared, finished_probe)


@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", RUNS)
def test_a_file_says_what_its_run_says(name, request, shared):
    workdir = request.getfixturevalue(name)
    model = fgjax.load(exported(shared, workdir))
    run = main.open_run(workdir)
    method, files = methods.of(run.config), image_files_of(run)
    if model.class_names:
        assert model.class_names == tuple(run.dataset.class_names)
        wanted = method.load_predictor(run)([Encoded(data) for data in files])
        for found, other in zip(model.predict(files), wanted, strict=True):
            np.testing.assert_allclose(found.probabilities, other.probabilities, atol=1e-5)
            np.testing.assert_allclose(found.box, other.box, atol=1e-5)
            np.testing.assert_allclose(found.parts, other.parts, atol=1e-5)
            assert (other.false_accepts is None) == (name == "finished_recognition")
            assert found.false_accepts == pytest.approx(other.false_accepts, abs=0.1)
        (alone,) = model.predict(files[3:4])  # another batch, another program
        np.testing.assert_allclose(alone.probabilities, wanted[3].probabilities, atol=1e-5)
    else:
        with pytest.raises(UserError, match="knows no classes"):
            model.predict(files)
    if hasattr(method, "load_embedder"):
        size = run.config.data.image_size
        whole = np.stack([np.array(Image.open(io.BytesIO(f)).resize((size, size))) for f in files])
        wanted = method.load_embedder(run)(np.concatenate([whole, whole[:2]]))[:10]
        np.testing.assert_allclose(model.embed(list(whole)), wanted, atol=1e-5)
    else:
        with pytest.raises(UserError, match="no embeddings"):
            model.embed(files)
    explained = model.explain(files[0])
    assert explained.map.shape == decode(files[0]).shape[:2]
    assert np.ptp(explained.map) > 0


@slow
def test_another_process_needs_neither_run_nor_dataset(probe_file, finished_probe, shared):
    program = f"""
import fgjax, numpy as np
model = fgjax.load({str(probe_file)!r})
rng = np.random.default_rng(0)
images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((1, 1), (50, 31), (200, 90))]
print(max(abs(float(p.probabilities.sum()) - 1) for p in model.predict(images)) < 1e-5)
print(model.embed(images).shape)
"""
    environment = finished.environment("/nowhere", shared, XLA_FLAGS=finished.HASTY)
    said = finished.run("-c", program, environment=environment).stdout
    assert said.split("\n")[:2] == ["True", "(3, 32)"]


def test_any_kind_of_image_is_the_same_image(probe_file, tmp_path):
    model = fgjax.load(probe_file)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    kinds = [pixels, Image.fromarray(pixels), buffer.getvalue(), tmp_path / "a.png",
             str(tmp_path / "a.png")]  # fmt: skip
    found = model.embed(kinds)
    np.testing.assert_array_equal(found, np.repeat(found[:1], 5, axis=0))
    for wrong, words in (
        (pixels.astype(np.float32), r"image 0 is an array float32 \[40, 60, 3\]"),
        (pixels[..., 0], "uint8"),
        (7, "image 0 is a int"),
        (b"no image", "image 0: not a readable image"),
        ("nowhere.png", "nowhere.png cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            model.predict([wrong])
    with pytest.raises(UserError, match="a list of images"):
        model.predict(pixels)


CANARY = """
import jax
if {early}: jax.devices()  # XLA_FLAGS are read now, before fgjax can protect the process
import numpy as np
from fgjax import compilation
from fgjax.model_files import networks

(points, turn, tables), wanted = compilation._known(np.float32)

def programs(weights, pixels):
    nothing = jax.numpy.zeros((pixels.shape[0],), np.float32).sum()
    return {{name: value + nothing for name, value in compilation._programs(*weights).items()}}

weights, pixels = [points, turn, tables], np.zeros((5, 2, 2, 3), np.uint8)
written = networks.program_of(programs, weights, (2, 2, 3), ("cpu",))
plain = jax.jit(jax.export.deserialize(bytearray(written)).call)(weights, pixels)
ours = networks.Program(written, weights, (2, 2, 3))(pixels)
for found in (ours, plain):
    print(max(float(np.max(np.abs(np.asarray(found[name]) - value)) / np.max(np.abs(value)))
              for name, value in wanted.items()))
"""


@slow
@pytest.mark.parametrize("early", [False, True])
def test_the_canary_in_a_model_file_computes_right_numbers(early, shared):
    """Called plainly, where JAX started first, an exported program computes XLA's wrong ones."""
    environment = finished.environment("/nowhere", shared)
    said = finished.run("-c", CANARY.format(early=early), environment=environment).stdout
    ours, plain = map(float, said.split())
    assert ours < 2**10 * np.finfo(np.float32).eps
    assert early or plain < 2**10 * np.finfo(np.float32).eps


def test_programs_are_compiled_by_our_options(probe_file, monkeypatch):
    asked = []
    real = compilation.jit
    monkeypatch.setattr(compilation, "jit", lambda f, **k: asked.append(f) or real(f, **k))
    fgjax.load(probe_file)
    assert len(asked) == 2  # predictor and embedder


def test_there_is_a_program_for_every_kind_of_device(probe_file):
    members, _ = archive.read(probe_file)
    platforms = [
        jax.export.deserialize(bytearray(members[name])).platforms
        for name in sorted(members)
        if name.startswith("networks/predictor")
    ]
    assert platforms == [("cuda", "tpu"), ("cpu",)]


def test_equal_weights_are_kept_once(probe_file):
    members, _ = archive.read(probe_file)
    card = json.loads(members["model.json"])
    used = [set(card[name].get("fields", {})["network"]["network"]["weights"])
            for name in ("predictor", "embedder")]  # fmt: skip
    assert used[1] & used[0]
    assert card["licence"] and card["protocol"]["dataset"] and card["scores"]["top1"] >= 0
    assert card["image"]["size"] == 32


# Commands


def images_in(folder, run, count: int = 3) -> list:
    folder.mkdir()
    for number, data in enumerate(image_files_of(run, count)):
        (folder / f"{number}.jpg").write_bytes(data)
    return sorted(folder.iterdir())


@slow
@pytest.mark.usefixtures("relaxed")
def test_predict_and_search_take_a_model_file(
    probe_file, finished_probe, copy_of, command, capsys, tmp_path
):
    workdir, model = copy_of(finished_probe), tmp_path / "bird.fgjax"
    model.write_bytes(probe_file.read_bytes())
    images_in(tmp_path / "images", main.open_run(workdir))
    told = []
    for source in (f"--workdir={workdir}", f"--model={model}"):
        command("predict", source, "--json", tmp_path / "images")
        told.append([(one["file"], one["top"]) for one in json.loads(capsys.readouterr().out)])
        words = (f"--index={tmp_path / 'images'}", f"--query={tmp_path / 'images' / '1.jpg'}")
        command("search", source, "--json", *words)
        told[-1].append(json.loads(capsys.readouterr().out)[0]["matches"])
    (*of_run, searched), (*of_file, also) = told
    for (name, top), (other, same) in zip(of_run, of_file, strict=True):
        assert name == other
        assert [one["probability"] for one in top] == pytest.approx(
            [one["probability"] for one in same], abs=1e-5
        )
    assert [one["file"] for one in searched] == [one["file"] for one in also]
    assert searched[0]["file"].endswith("1.jpg")
    assert len(list((tmp_path / "bird-predictions").iterdir())) == 3
    assert (tmp_path / "bird-search.png").exists()
    with pytest.raises(UserError, match="was made by another model"):
        command("search", f"--model={model}", "--query", tmp_path / "images" / "1.jpg",
                f"--file={workdir / 'index'}")  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--workdir=a", "--model=b")])
def test_one_model_is_wanted(command, words):
    for name in ("predict", "search"):
        with pytest.raises(UserError, match="one of them"):
            command(name, *words, *(["x"] if name == "predict" else ["--index=x"]))
    with pytest.raises(UserError, match="no model file b: write one with fgjax export"):
        command("predict", "--model=b", "x")


@pytest.mark.usefixtures("relaxed")
def test_export_prints_size_and_latency(finished_probe, command, capsys, tmp_path):
    command("export", f"--workdir={finished_probe}", f"--out={tmp_path / 'bird.fgjax'}")
    size, apart, one, many = capsys.readouterr().out.splitlines()
    assert apart.startswith("largest difference from the run on 8 test images: ")
    assert float(apart.split()[-1]) < 1e-5
    assert size.endswith(f"{(tmp_path / 'bird.fgjax').stat().st_size / 1e6:.1f} MB")
    assert one.startswith("batch 1: ") and many.startswith("batch 32: ") and " ms on " in many
    with pytest.raises(UserError, match="holds no finished run"):
        command("export", f"--workdir={tmp_path}", f"--out={tmp_path / 'x'}")


# Bad files


def sealed(content: bytes) -> bytes:
    """A zip with the comment that `archive.read` wants."""
    where = content.rindex(b"PK\5\6")
    start = content[:where] + content[where : where + 20]
    start += archive._SEAL.to_bytes(2, "little")
    return start + archive._MARK + hashlib.sha256(start).hexdigest().encode()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def refused(path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        fgjax.load(path)
    assert str(caught.value).count("\n") == 0 and str(path) in str(caught.value)


def test_a_sealed_file_is_read(probe_file, tmp_path):
    members, _ = archive.read(probe_file)
    (tmp_path / "again").write_bytes(sealed(zipped(members)))
    assert fgjax.load(tmp_path / "again").class_names == fgjax.load(probe_file).class_names


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_file_cut_short(probe_file, tmp_path, share):
    data = probe_file.read_bytes()
    refused(tmp_path / "cut", data[: int(len(data) * share)], "cut short")


def test_one_byte_changed(probe_file, tmp_path):
    data = probe_file.read_bytes()
    places = [0, *np.random.default_rng(0).integers(0, len(data), 20).tolist(), len(data) - 1]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        refused(tmp_path / "changed", bytes(changed), "changed or damaged|cut short")


def test_a_changed_member_with_a_new_seal(probe_file, tmp_path):
    members, _ = archive.read(probe_file)
    members["weights.safetensors"] = members["weights.safetensors"][:-1] + b"\1"
    refused(tmp_path / "changed", sealed(zipped(members)), "other members than model.json names")


def card_changed(probe_file, **changes) -> bytes:
    members, _ = archive.read(probe_file)
    card = {**json.loads(members["model.json"]), **changes}
    return sealed(zipped({**members, "model.json": json.dumps(card).encode()}))


def test_a_newer_format(probe_file, tmp_path):
    refused(tmp_path / "new", card_changed(probe_file, format=2), "format 2.*install a newer fgjax")


@pytest.mark.parametrize(
    "node",
    [
        {"dataclass": "os:Popen", "fields": {}},
        {"dataclass": "methods.os:Popen", "fields": {}},
        {"dataclass": "methods.shared.predictor:Prediction", "fields": {}},
        {"dataclass": "methods.shared.predictor:Embedder", "fields": {}},
        {"network": {}},
        {"array": "nowhere"},
        [1],
        3,
    ],
)
def test_a_card_that_names_no_predictor(probe_file, tmp_path, node):
    refused(tmp_path / "odd", card_changed(probe_file, predictor=node), "holds no model")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:\\x", "a\\x", "a\0b"])
def test_paths_of_members(probe_file, tmp_path, name):
    members, _ = archive.read(probe_file)
    stand_in = b"z" * len(name)  # `zipfile` would mend some of them while it writes
    data = zipped({**members, stand_in.decode(): b"bad"}).replace(stand_in, name.encode())
    refused(tmp_path / "path", sealed(data), "no name of a model file's member|readable model file")


def test_a_bomb_of_zeros(probe_file, tmp_path):
    members, _ = archive.read(probe_file)
    bomb = {**members, "zeros": bytes(50_000_000)}
    refused(tmp_path / "bomb", sealed(zipped(bomb, zipfile.ZIP_DEFLATED)), "compressed member")
    # A stored member whose header promises more than the file has.
    data = zipped({**members, "zeros": b"\7" * 12_345})
    size, more = (12_345).to_bytes(4, "little"), (2**31).to_bytes(4, "little")
    assert data.count(size * 2) == 2
    refused(tmp_path / "more", sealed(data.replace(size * 2, more * 2)), "more bytes than it has")


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read: No such file"):
        fgjax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        fgjax.load(tmp_path)


def test_a_predictor_of_ones_own_is_refused():
    with pytest.raises(UserError, match="cannot be exported"):
        tree.pack(object(), "predictor", networks.Package())


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        archive.write(tmp_path / "no" / "x", {"a": b""})
    assert not list(tmp_path.iterdir())
