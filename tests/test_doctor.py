"""The doctor: each finding, what it says to do, and when its exit code is 0."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fgjax import doctor, huge_pages
from fgjax.config import Config, Data
from fgjax.doctor import NOTE, OK, PROBLEM
from fgjax.errors import UserError
from tests import fake_archives, finished
from tests.data.test_folder import fill, picture


def levels(found):
    return [finding.level for finding in found]


def of_data(**fields):
    return doctor.dataset(Config(data=Data(**fields)))


def test_the_machine_is_fit_for_the_tests():
    found = doctor.machine()
    assert PROBLEM not in levels(found)
    assert "4 × cpu" in doctor.report(found)


def test_a_missing_and_an_old_package_are_named(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("# x\nnot-a-package>=1\nnumpy>=99  # far\njax\n")
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    (first, *_) = doctor.machine()
    assert first.level == PROBLEM and first.remedy == "install fgjax anew: pip install ."
    assert "not-a-package is missing" in first.text and "numpy is" in first.text
    assert "jax" not in first.text


@pytest.mark.parametrize("mode", ["always", "madvise", "never"])
def test_memory_in_small_pages_alone_is_said(mode, monkeypatch, tmp_path):
    (tmp_path / "enabled").write_text("always madvise never".replace(mode, f"[{mode}]"))
    monkeypatch.setattr(huge_pages, "FILE", tmp_path / "enabled")
    said = [one for one in doctor.machine() if "huge pages" in one.text]
    assert levels(said) == [NOTE] * (mode == "never")
    assert all("echo madvise | sudo tee" in one.remedy for one in said)


def test_a_dataset_without_an_address(tmp_path):
    (found,) = of_data(dataset="cars", data_dir=str(tmp_path))
    assert found.level == PROBLEM and "put cars_train.tgz" in found.remedy
    assert "look for copies" in found.remedy


def test_a_dataset_that_can_or_cannot_be_downloaded(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "reachable", lambda url: asked.append(url) or True)
    (found,) = of_data(dataset="dogs", data_dir=str(tmp_path))
    assert found.level == NOTE and "begins by downloading images.tar" in found.text
    assert len(asked) == 3
    monkeypatch.setattr(doctor, "reachable", lambda url: False)
    (found,) = of_data(dataset="dogs", data_dir=str(tmp_path))
    assert found.level == PROBLEM and str(tmp_path / "manual") in found.remedy


def test_nothing_answers_there():
    assert not doctor.reachable("http://127.0.0.1:9/x")
    assert not doctor.reachable("no address")


def test_an_incomplete_dataset(tmp_path):
    (tmp_path / "manual").mkdir()
    fake_archives.pets(tmp_path / "manual")
    (found,) = of_data(dataset="pets", data_dir=str(tmp_path))
    assert found.level == PROBLEM and "official data has 3,680" in found.remedy
    found = of_data(dataset="pets/subset", data_dir=str(tmp_path))
    assert PROBLEM not in levels(found) and "12 training and 12 test" in found[0].text


def test_unreadable_double_and_rare_images(tmp_path):
    root = fill(tmp_path / "insects" / "train", each=25).parent
    fill(root / "test", each=2)  # the same bytes as two of each class's training images
    (root / "train" / "Bee" / "bad.jpg").write_bytes(b"\xff\xd8")
    (root / "train" / "single").mkdir()
    (root / "train" / "single" / "one.png").write_bytes(picture(3, 0))
    found = of_data(dataset="folder", path=str(root), data_dir=str(tmp_path / "cache"))
    assert levels(found) == [OK, NOTE, NOTE, NOTE]
    text = doctor.report(found)
    assert "1 files cannot be read and are left out, the first: train/Bee/bad.jpg" in text
    assert "6 images are in both" in text and "train/Bee/0.png = test/Bee/0.png" in text
    assert "1 (single) to 25" in text


def test_a_folder_that_is_not_there(tmp_path):
    (found,) = of_data(dataset="folder", path=str(tmp_path / "none"), data_dir=str(tmp_path))
    assert found.level == PROBLEM and "is not a folder" in found.remedy


def test_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    save_file({"x": np.zeros(1, np.float32)}, str(tmp_path / "w.safetensors"))
    assert levels(doctor.weights(Config(pretrained=str(tmp_path / "w.safetensors")))) == [OK]
    assert levels(doctor.weights(Config(pretrained=""))) == [OK]
    (found,) = doctor.weights(Config(pretrained=str(tmp_path / "none.safetensors")))
    assert found.level == PROBLEM and "does not exist" in found.remedy
    (found,) = doctor.weights(Config(pretrained="weights.pth"))
    assert found.level == PROBLEM and "weights.pth does not exist" in found.remedy
    (found,) = doctor.weights(Config(backbone="resnet_small"))
    assert found.level == OK and "from scratch" in found.text
    for answer, level in ((True, NOTE), (False, PROBLEM)):
        monkeypatch.setattr(doctor, "reachable", lambda url, answer=answer: answer)
        (found,) = doctor.weights(Config(pretrained="nobody/resnet50.nothing"))
        assert found.level == level


def test_workdirs(tiny_config, tmp_path):
    from fgjax import main

    assert levels(doctor.workdir(tiny_config, tmp_path / "new" / "run")) == [OK]
    assert not (tmp_path / "new").exists()
    main.claim(tmp_path / "run", tiny_config)
    (found,) = doctor.workdir(tiny_config, tmp_path / "run")
    assert found.level == OK and "would resume" in found.text
    tiny_config.seed = 7
    (found,) = doctor.workdir(tiny_config, tmp_path / "run")
    assert found.level == PROBLEM and "seed: 0 -> 7" in found.remedy
    (tmp_path / "file").write_text("")
    (found,) = doctor.workdir(tiny_config, tmp_path / "file" / "run")
    assert found.level == PROBLEM


def test_impossible_settings(tiny_config):
    assert levels(doctor.settings(tiny_config)) == [OK]
    tiny_config.method.lambda_ = 2.0
    assert "lambda_ is 2.0" in doctor.settings(tiny_config)[0].remedy


def test_the_command_on_a_fit_machine(tmp_path, data_dir):
    """In a process of its own: JAX and the devices are as people have them."""
    environment = finished.environment(data_dir, tmp_path, HF_HUB_OFFLINE="1")
    said = finished.run("-m", "fgjax.doctor", environment=environment).stdout
    assert "This machine is fit. Begin with" in said
    for title in ("CUB-200-2011", "Stanford Cars", "FGVC-Aircraft", "DeepFashion",
                  "Stanford Dogs", "Oxford Flowers", "Oxford-IIIT Pets",
                  "images of your own"):  # fmt: skip
        assert title in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--config=aircraft:demo", "--config.data.dataset=synthetic_aircraft/4"], 0,
         "Training would start"),
        (["--config=cars", "--config.pretrained="], 1, "1 problem: training would not start"),
    ],
)  # fmt: skip
def test_what_is_found_decides_the_exit_code(
    command, capsys, monkeypatch, tmp_path, data_dir, words, code, says
):
    monkeypatch.setenv("FGJAX_DATA", data_dir if code == 0 else str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command("doctor", *words) == code
    assert says in capsys.readouterr().out


def test_words_that_the_doctor_does_not_know(command):
    with pytest.raises(UserError, match="seed"):
        command("doctor", "--config=aircraft:demo", "--config.seed=x")
