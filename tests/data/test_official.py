"""The other official datasets from tiny archives in their layouts: archive to batch."""

import itertools
import sys

import numpy as np
import pytest

from fgjax.config import Augmentation
from fgjax.data import datasets, loading
from fgjax.data.datasets import cars, cub, deepfashion, dogs, fgvc_aircraft, flowers, pets
from fgjax.data.images import decode
from fgjax.data.loading import Reader
from fgjax.errors import UserError
from tests import fake_archives as fake

WRITERS = {
    "cub": fake.cub,
    "cars": lambda folder: fake.cars(folder, single=True),
    "dogs": fake.dogs,
    "flowers": fake.flowers,
    "pets": fake.pets,
    "deepfashion": lambda folder: fake.deepfashion(folder, folders=False),
}
X0, Y0, X1, Y1 = fake.BOX
BOX = np.array([Y0 / fake.HEIGHT, X0 / fake.WIDTH, Y1 / fake.HEIGHT, X1 / fake.WIDTH], np.float32)


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    return folder


def load(name, tmp_path, **options):
    return datasets.load_dataset(f"{name}/subset", data_dir=str(tmp_path), **options)


def assert_labels_boxes_and_pictures_agree(dataset, *, boxes=True):
    for split in (dataset.train, dataset.test):
        for row in range(len(split)):
            pixels = decode(split.source[row]["image"])
            assert pixels.shape == (fake.HEIGHT, fake.WIDTH, 3)
            assert pixels[(Y0 + Y1) // 2, (X0 + X1) // 2].argmax() == split.labels[row] % 3
        if boxes:
            np.testing.assert_allclose(split.boxes, np.tile(BOX, (len(split), 1)), rtol=1e-6)


@pytest.mark.parametrize("name", WRITERS)
def test_from_archive_to_batch(name, tmp_path, manual):
    WRITERS[name](manual)
    dataset = load(name, tmp_path)
    assert "tensorflow" not in sys.modules
    assert not set(zip(dataset.train.filenames, ["train"])) & set(dataset.test.filenames)
    reader = Reader(dataset.train, 32, Augmentation())
    stream = loading.training_stream(reader, np.arange(len(dataset.train)), seed=0)
    for batch in itertools.islice(loading.batches(stream, batch_size=4), 2):
        assert batch["image"].shape == (4, 32, 32, 3) and batch["image"].dtype == np.uint8
    left = [p for p in manual.iterdir() if p.name.startswith(".unpacked")]
    assert not left  # what was unpacked is gone


def test_cub(tmp_path, manual):
    names = fake.cub(manual)
    dataset = load("cub", tmp_path)
    assert dataset.class_names == tuple(names)
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert_labels_boxes_and_pictures_agree(dataset)
    parts = dataset.train.parts
    head = [dataset.part_names[place] for place in dataset.part_regions["head"]]
    assert head == ["beak", "crown", "forehead", "left eye", "right eye", "nape", "throat"]
    assert sorted(sum(dataset.part_regions.values(), ())) == list(range(15))
    assert dataset.part_names[13] == "tail" and parts.shape == (12, 15, 4)
    assert np.isnan(parts[:, 1]).all() and not np.isnan(np.delete(parts, 1, axis=1)).any()
    # A quarter of the longer side (30 px) around (30, 20); the tail's is clipped at the border.
    wanted = np.array([16.25 / 40, 26.25 / 60, 23.75 / 40, 33.75 / 60])
    np.testing.assert_allclose(parts[0, 0], wanted, rtol=1e-6)
    np.testing.assert_allclose(parts[0, 13], [35.25 / 40, 55.25 / 60, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("single", [True, False])
def test_cars_in_both_layouts(tmp_path, manual, single):
    names = fake.cars(manual, single=single)
    dataset = load("cars", tmp_path)
    assert dataset.class_names == tuple(names)
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert_labels_boxes_and_pictures_agree(dataset, boxes=False)
    for name, box in zip(dataset.train.filenames, dataset.train.boxes):
        over = int(name.removesuffix(".jpg")) % 4 == 0  # reaches a pixel over the border: clipped
        np.testing.assert_allclose(box, [*BOX[:2], 1, 1] if over else BOX, rtol=1e-6)


def test_cars_say_what_to_look_for(tmp_path, manual):
    with pytest.raises(UserError, match=r"original site .* is gone, so look for .*car_ims\.tgz"):
        load("cars", tmp_path)
    (manual / "cars_annos.mat").write_bytes(b"x")  # one of two: still the other layout is asked for
    with pytest.raises(UserError, match=r"has no public address: put cars_train\.tgz"):
        load("cars", tmp_path)


def test_dogs_with_several_boxes(tmp_path, manual):
    names = fake.dogs(manual)
    dataset = load("dogs", tmp_path)
    assert dataset.class_names == tuple(names)
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert_labels_boxes_and_pictures_agree(dataset)


def test_flowers_train_on_validation_images_too(tmp_path, manual):
    fake.flowers(manual)
    dataset = load("flowers", tmp_path)
    assert len(dataset.class_names) == 102 and dataset.class_names[0] == "pink primrose"
    assert dataset.class_names[50] == "petunia" and dataset.class_names[101] == "blackberry lily"
    assert (len(dataset.train), len(dataset.test)) == (16, 8)
    assert np.isnan(dataset.train.boxes).all()
    assert_labels_boxes_and_pictures_agree(dataset, boxes=False)
    halves = dataset.zero_shot()
    assert set(halves.train.labels) == {0, 1} and set(halves.test.labels) == {51, 101}


def test_pets_in_ascii_order_with_missing_annotations(tmp_path, manual):
    names = fake.pets(manual)
    assert names == ["Abyssinian", "Bengal", "american_bulldog", "yorkshire_terrier"]
    dataset = load("pets", tmp_path)
    assert dataset.class_names == tuple(names)
    assert_labels_boxes_and_pictures_agree(dataset, boxes=False)
    missing = np.isnan(dataset.train.boxes).any(axis=1)
    assert [dataset.train.filenames[k] for k in np.flatnonzero(missing)] == ["Abyssinian_1.jpg"]
    np.testing.assert_allclose(dataset.train.boxes[~missing][0], BOX, rtol=1e-6)
    assert np.isnan(dataset.test.boxes).all()
    species, parent = dataset.hierarchy["species"]
    assert [species[k] for k in parent] == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize("folders", [True, False])
def test_deepfashion_keeps_its_empty_categories(tmp_path, manual, folders):
    names = fake.deepfashion(manual, folders=folders)
    dataset = load("deepfashion", tmp_path)
    assert dataset.class_names == tuple(names)
    assert set(dataset.train.labels) == {0, 1, 3}
    assert (len(dataset.train), len(dataset.test)) == (9, 9)  # validation images are left out
    assert_labels_boxes_and_pictures_agree(dataset)
    types, parent = dataset.hierarchy["type"]
    assert [types[k] if k >= 0 else None for k in parent] == [
        "upper body", "upper body", None, "lower body",
    ]  # fmt: skip


def test_deepfashion_lists_that_are_cut_short_are_refused(tmp_path, manual):
    fake.deepfashion(manual, folders=True)
    path = manual / "deepfashion" / "Anno" / "list_bbox.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-5]))
    with pytest.raises(UserError, match=r"list_bbox\.txt announces 27 rows but has 22"):
        load("deepfashion", tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_wrong_counts_are_refused_unless_a_subset_is_asked_for(name, tmp_path, manual):
    WRITERS[name](manual)
    with pytest.raises(UserError, match=r"official data has .* missing.*/subset"):
        datasets.load_dataset(name, data_dir=str(tmp_path))


def test_a_listed_image_that_is_missing_is_named(tmp_path, manual):
    fake.deepfashion(manual, folders=True)
    next((manual / "deepfashion" / "Img").rglob("*_0001/*.jpg")).unlink()
    with pytest.raises(UserError, match=r"Sheer_Anorak_0001/\S* is listed but missing"):
        load("deepfashion", tmp_path)


def test_official_counts_are_the_papers():
    """HDCL Table 2 and METHODS: splits, classes, and halves of the classes."""
    wanted = {
        cub.Cub: ((5994, 5794, 200), (5864, 5924)),
        cars.Cars: ((8144, 8041, 196), (8054, 8131)),
        fgvc_aircraft.FgvcAircraft: ((6667, 3333, 100), (5000, 5000)),
        dogs.Dogs: ((12000, 8580, 120), (10651, 9929)),
        flowers.Flowers: ((2040, 6149, 102), (3493, 4696)),
        pets.Pets: ((3680, 3669, 37), (3766, 3583)),
        deepfashion.DeepFashion: ((209222, 40000, 50), None),
    }
    for kind, (counts, halves) in wanted.items():
        assert tuple(kind.official_counts) == counts
        assert kind.zero_shot_counts == halves
        if halves:
            assert sum(halves) == sum(counts[:2])


@pytest.mark.parametrize(("name", "seen"), [("cub", 2), ("pets", 2), ("dogs", 2)])
def test_zero_shot_halves(name, seen, tmp_path, manual):
    WRITERS[name](manual)
    dataset = load(name, tmp_path, zero_shot=True)
    assert set(dataset.train.labels) == set(range(seen))
    assert set(dataset.test.labels) == set(range(seen, 4))


def test_an_odd_number_of_classes_gives_the_training_split_one_more(tmp_path, manual):
    fake.cub(manual, classes=3)
    dataset = load("cub", tmp_path, zero_shot=True)
    assert dataset.num_classes == 2 and len(dataset.unseen_names) == 1


def test_another_variant_is_refused(tmp_path):
    with pytest.raises(UserError, match="CUB-200-2011 has no variant '2010'"):
        datasets.load_dataset("cub/2010", data_dir=str(tmp_path))
