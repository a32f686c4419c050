"""Model files of ONNX say what their runs say. CI runs these after all else: pip install -r
requirements-onnx.txt takes an older Orbax."""

import importlib.util
import io
import sys
import zipfile

import numpy as np
import pytest

import fgjax
from fgjax import main, opening
from fgjax.errors import UserError
from fgjax.export import difference, export
from fgjax.model_files import onnx_files
from tests.test_model_files import RUNS, image_files_of

MISSING = not all(map(importlib.util.find_spec, ("jax2onnx", "onnxruntime")))
needs_onnx = pytest.mark.skipif(MISSING, reason="pip install -r requirements-onnx.txt")


@needs_onnx
@pytest.mark.usefixtures("relaxed")
@pytest.mark.parametrize("name", RUNS)
def test_a_file_of_onnx_says_what_its_run_says(name, request, tmp_path):
    workdir = request.getfixturevalue(name)
    model = export(workdir, tmp_path / "bird.fgjax", onnx=True)
    run = main.open_run(workdir)
    assert difference(opening.of_run(run), model, image_files_of(run)) < 1e-4
    if model.class_names:
        wanted = opening.of_run(run).predict(image_files_of(run))
        for found, one in zip(model.predict(image_files_of(run)), wanted, strict=True):
            np.testing.assert_allclose(found.parts, one.parts, atol=1e-4)
            np.testing.assert_allclose(found.box, one.box, atol=1e-4)


@needs_onnx
@pytest.mark.usefixtures("relaxed")
def test_its_networks_can_be_taken_out(finished_probe, tmp_path, command, capsys):
    """By any zip, for any runtime: images in, named outputs out, of any number at once."""
    import onnxruntime

    out = tmp_path / "bird.fgjax"
    command("export", f"--workdir={finished_probe}", f"--out={out}", "--format=onnx")
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("largest difference from the run on 8 test images: ")
    assert float(said[1].split()[-1]) < 1e-4
    with zipfile.ZipFile(io.BytesIO(out.read_bytes())) as opened:
        names = [name for name in opened.namelist() if name.endswith(".onnx")]
        session = onnxruntime.InferenceSession(opened.read("networks/predictor.network.onnx"))
    assert len(names) == 2
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    (logits,) = session.run(["logits"], {"pixels": pixels})
    assert logits.shape == (5, len(fgjax.load(out).class_names))
    (alone,) = session.run(["logits"], {"pixels": pixels[3:4]})
    np.testing.assert_allclose(alone[0], logits[3], atol=1e-4)


@needs_onnx
def test_a_program_that_is_none(tmp_path):
    with pytest.raises(UserError, match="ONNX Runtime cannot read"):
        onnx_files.OnnxProgram(b"no program", (8, 8, 3))


def test_without_the_packages_it_says_what_to_install(finished_probe, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"package jax2onnx, .* pip install 'fgjax\[onnx\]'"):
        export(finished_probe, tmp_path / "bird.fgjax", onnx=True)
    assert not (tmp_path / "bird.fgjax").exists()


def test_a_file_that_says_something_else_is_not_kept(
    finished_probe, monkeypatch, tmp_path, command
):
    monkeypatch.setattr("fgjax.export.difference", lambda *_: 0.02)
    with pytest.raises(UserError, match=r"by 0\.02, so .* was removed: write it as onnx"):
        command("export", f"--workdir={finished_probe}", f"--out={tmp_path / 'bird.fgjax'}")
    assert not (tmp_path / "bird.fgjax").exists()
