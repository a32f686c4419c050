"""Folders of one's own images: layouts, splits, odd files, odd names."""

import os

import cv2
import numpy as np
import pytest

from fgjax.config import Augmentation, Data
from fgjax.data import datasets
from fgjax.data.images import decode
from fgjax.data.loading import Reader, batches, training_stream
from fgjax.errors import UserError


def picture(label: int, number: int) -> bytes:
    rng = np.random.default_rng([label, number])
    pixels = rng.integers(0, 60, (20, 30, 3)).astype(np.uint8)
    pixels[..., label % 3] += 150
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def fill(folder, classes=("ant", "Bee", "cicada"), each=5):
    for label, name in enumerate(sorted(classes)):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            (folder / name / f"{number}.png").write_bytes(picture(label, number))
    return folder


def load(folder, tmp_path, **options):
    return datasets.of_config(
        Data(dataset="folder", path=str(folder), data_dir=str(tmp_path / "cache"), **options)
    )


def test_a_folder_for_each_class_is_split_by_class(tmp_path):
    dataset = load(fill(tmp_path / "insects"), tmp_path)
    assert dataset.class_names == ("Bee", "ant", "cicada")  # ASCII order
    assert np.bincount(dataset.train.labels).tolist() == [4, 4, 4]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]
    assert not set(dataset.train.filenames) & set(dataset.test.filenames)
    assert np.isnan(dataset.train.boxes).all()
    for row in range(12):
        pixels = decode(dataset.train.source[row]["image"])
        assert pixels.mean(axis=(0, 1)).argmax() == dataset.train.labels[row] % 3


def test_the_split_depends_on_its_seed_alone(tmp_path):
    folder = fill(tmp_path / "insects", each=20)
    one, again = (load(folder, tmp_path).test.filenames for _ in range(2))
    other = load(folder, tmp_path, split_seed=1).test.filenames
    assert one == again and one != other and len(one) == len(other) == 12
    assert len(load(folder, tmp_path, test_share=0.5).test) == 30


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders(tmp_path, test):
    fill(tmp_path / "data" / "train", each=3)
    fill(tmp_path / "data" / test, classes=("ant", "Bee"), each=2)
    dataset = load(tmp_path / "data", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (9, 4)
    assert dataset.train.filenames[0] == "train/Bee/0.png"


def test_zero_shot_halves(tmp_path):
    dataset = load(fill(tmp_path / "insects"), tmp_path, zero_shot=True)
    assert dataset.class_names == ("Bee", "ant") and dataset.unseen_names == ("cicada",)
    assert (len(dataset.train), len(dataset.test)) == (10, 5)


def test_other_files_are_counted_named_and_left_out(tmp_path, caplog):
    folder = fill(tmp_path / "insects")
    (folder / "ant" / "notes.txt").write_text("hello")
    (folder / "ant" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (folder / ".hidden").mkdir()
    dataset = load(folder, tmp_path)
    assert dataset.skipped == ("ant/broken.jpg", "ant/notes.txt")
    assert "2 of 17 files" in caplog.text and "broken.jpg" in caplog.text
    assert len(dataset.train) + len(dataset.test) == 15


def test_what_is_known_of_a_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    from fgjax.data import images

    folder = fill(tmp_path / "insects")
    first = load(folder, tmp_path)
    looked = []
    problem = images.problem
    monkeypatch.setattr(images, "problem", lambda data: looked.append(1) or problem(data))
    assert load(folder, tmp_path).fingerprint == first.fingerprint and not looked
    (folder / "ant" / "0.png").write_bytes(b"not a picture any more")
    changed = load(folder, tmp_path)
    assert len(looked) == 1 and changed.fingerprint != first.fingerprint
    assert changed.skipped == ("ant/0.png",)


def test_names_that_are_not_utf8(tmp_path):
    folder = fill(tmp_path / "insects")
    odd = os.fsencode(folder) + b"/K\xe4fer"
    os.mkdir(odd)
    for number in range(3):
        with open(odd + b"/%d.png" % number, "wb") as file:
            file.write(picture(3, number))
    dataset = load(folder, tmp_path)
    assert "K�fer" in dataset.class_names
    assert any(name.startswith("K�fer/") for name in dataset.train.filenames)


def test_a_class_of_one_image_only_trains(tmp_path):
    folder = fill(tmp_path / "insects")
    (folder / "single").mkdir()
    (folder / "single" / "one.png").write_bytes(picture(3, 0))
    dataset = load(folder, tmp_path)
    assert (dataset.train.labels == 3).sum() == 1 and not (dataset.test.labels == 3).any()


def test_folders_that_cannot_work(tmp_path):
    with pytest.raises(UserError, match=r"say --config\.data\.path=FOLDER"):
        load("", tmp_path)
    with pytest.raises(UserError, match="which is not a folder"):
        load(tmp_path / "none", tmp_path)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="has 0 classes with images"):
        load(tmp_path / "empty", tmp_path)
    fill(tmp_path / "one", classes=("ant",))
    with pytest.raises(UserError, match="has 1 classes with images"):
        load(tmp_path / "one", tmp_path)
    fill(tmp_path / "two" / "train", classes=("ant", "Bee"))
    fill(tmp_path / "two" / "test", classes=("ant", "wasp"))
    with pytest.raises(UserError, match=r"has the class wasp, but .* no image of it"):
        load(tmp_path / "two", tmp_path)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_that_changes_under_a_run_ends_it(tmp_path, workers):
    """In a sentence with its name; what was there before goes on."""
    dataset = load(fill(tmp_path / "insects", each=2), tmp_path)
    path = tmp_path / "insects" / dataset.train.filenames[1]
    before = path.read_bytes()
    reader = Reader(dataset.train, 16, Augmentation())
    stream = training_stream(reader, np.arange(len(dataset.train)), seed=0)

    def read():
        given = batches(stream, batch_size=3, stop=1, data=Data(workers=workers))
        return [batch["index"].tolist() for batch in given]

    known = read()
    path.write_bytes(before + b"more")
    changed = (
        rf"{path.name} has changed since the run began, from {len(before)} to {len(before) + 4}"
    )
    with pytest.raises(UserError, match=changed):
        read()
    assert load(tmp_path / "insects", tmp_path).fingerprint != dataset.fingerprint
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} cannot be read any more \(No such file"):
        read()
    path.write_bytes(before)
    assert read() == known


def test_another_folder_is_another_config(tmp_path):
    """A finished study or run must not be taken for one of other images."""
    from fgjax.config import Config, identity
    from fgjax.methods import lapm

    one, other = (
        identity(Config(data=Data(dataset="folder", path=path), method=lapm.Config()))
        for path in ("ants", "bees")
    )
    assert one != other
