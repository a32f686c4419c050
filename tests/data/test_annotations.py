"""Parts and boxes of one's own images: COCO's and CUB's format, and files that do not fit."""

import json

import numpy as np
import pytest
from PIL import Image

from fgjax import main
from fgjax.config import Data, check, override
from fgjax.data import datasets
from fgjax.errors import UserError
from tests import tiny
from tests.data.test_folder import fill

# Of pictures of 30 × 20 pixels.
IMAGES = [{"id": 7, "file_name": "ant/0.png"}, {"id": 8, "file_name": "Bee/3.png"}]
KINDS = [{"id": 1, "name": "insect", "keypoints": ["head", "sting"]}]
FOUND = [
    {"image_id": 7, "category_id": 1, "bbox": [3, 2, 20, 10], "keypoints": [6, 5, 2, 22, 7, 1]},
    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 4], "keypoints": [1, 1, 2, 1, 1, 2]},
    {"image_id": 8, "category_id": 1, "keypoints": [15, 10, 2, 30, 20, 2]},
]


def coco(tmp_path, **changes):
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"images": IMAGES, "annotations": FOUND, "categories": KINDS}
                               | changes))  # fmt: skip
    return path


def cub(tmp_path):
    folder = tmp_path / "cub"
    (folder / "parts").mkdir(parents=True)
    (folder / "images.txt").write_text("1 ant/0.png\n2 Bee/3.png\n")
    (folder / "parts" / "parts.txt").write_text("1 head\n2 sting\n")
    (folder / "parts" / "part_locs.txt").write_text(
        "1 1 6.0 5.0 1\n1 2 22.0 7.0 0\n2 1 15.0 10.0 1\n2 2 30.0 20.0 1\n"
    )
    (folder / "bounding_boxes.txt").write_text("1 3.0 2.0 20.0 10.0\n")
    return folder


def load(tmp_path, annotations):
    folder = tmp_path / "insects"
    if not folder.exists():
        fill(folder)
    return datasets.of_config(
        Data(dataset="folder", path=str(folder), data_dir=str(tmp_path / "cache"),
             annotations=str(annotations))
    )  # fmt: skip


def rows(dataset):
    """{file: (box, parts)} of both splits."""
    return {
        name: (split.boxes[k], split.parts[k])
        for split in (dataset.train, dataset.test)
        for k, name in enumerate(split.filenames)
    }


@pytest.mark.parametrize("kind", [coco, cub])
def test_points_become_boxes_of_the_object_size(tmp_path, kind):
    dataset = load(tmp_path, kind(tmp_path))
    assert dataset.part_names == ("head", "sting")
    assert dataset.part_regions == {"head": (0,), "sting": (1,)}
    found = rows(dataset)
    box, parts = found["ant/0.png"]
    np.testing.assert_allclose(box, [2 / 20, 3 / 30, 12 / 20, 23 / 30], atol=1e-6)
    # A quarter of the box's longer side, 20: 5 pixels around (6, 5).
    np.testing.assert_allclose(parts[0], [2.5 / 20, 3.5 / 30, 7.5 / 20, 8.5 / 30], atol=1e-6)
    assert np.isnan(parts[1]).all()  # labelled, but not visible
    box, parts = found["Bee/3.png"]
    assert np.isnan(box).all()  # without one, of the image's longer side, 30, and cut at its border
    np.testing.assert_allclose(parts[0], [6.25 / 20, 11.25 / 30, 13.75 / 20, 18.75 / 30], atol=1e-6)
    np.testing.assert_allclose(parts[1], [16.25 / 20, 26.25 / 30, 1, 1], atol=1e-6)
    assert np.isnan(found["cicada/1.png"][1]).all()


def test_points_are_meant_on_the_image_as_it_is_seen(tmp_path):
    """A photograph that EXIF turns by a right angle: 20 wide and 30 high for whoever marks it."""
    load(tmp_path, "")  # makes the folder
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "insects" / "ant" / "turned.jpg", exif=exif)
    images = [{"id": 1, "file_name": "ant/turned.jpg"}]
    points = [{"image_id": 1, "keypoints": [10, 28, 2, 0, 0, 0]}]
    dataset = load(tmp_path, coco(tmp_path, images=images, annotations=points))
    _, parts = rows(dataset)["ant/turned.jpg"]
    np.testing.assert_allclose(parts[0, :3], [24.25 / 30, 6.25 / 20, 1], atol=1e-6)


def test_both_formats_say_the_same_and_change_the_dataset(tmp_path):
    plain = load(tmp_path, "")
    one, other = (rows(load(tmp_path, kind(tmp_path))) for kind in (coco, cub))
    for name, found in one.items():
        for mine, theirs in zip(found, other[name]):
            np.testing.assert_array_equal(mine, theirs)
    prints = {plain.fingerprint, load(tmp_path, coco(tmp_path)).fingerprint}
    moved = [FOUND[0] | {"bbox": [3, 2, 20, 11]}, *FOUND[1:]]
    prints.add(load(tmp_path, coco(tmp_path, annotations=moved)).fingerprint)
    assert len(prints) == 3 and plain.part_names == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [*IMAGES, {"id": 9, "file_name": "wasp/1.png"}],
          "annotations": [*FOUND, {"image_id": 9, "keypoints": [1, 1, 2, 1, 1, 2]}]},
         r"names the image wasp/1.png, which the folder of images does not have"),
        ({"annotations": [FOUND[0] | {"keypoints": [31.5, 5, 2, 1, 1, 0]}]},
         r"head of ant/0.png at \(31.5, 5\), but the image has 30 × 20"),
        ({"annotations": [FOUND[0] | {"keypoints": [1, 2]}]}, "2 numbers for 2 keypoints"),
        ({"annotations": [FOUND[0] | {"keypoints": [float("nan"), 1, 2, 1, 1, 2]}]}, "not finite"),
        ({"annotations": [{"image_id": 99}]}, "neither COCO keypoints nor.*no 99"),
        ({"categories": []}, "0 different lists of keypoints"),
        ({"categories": [*KINDS, {"id": 2, "keypoints": ["tail"]}]}, "2 different lists"),
        ({"categories": 7}, "neither COCO"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(tmp_path, changes, words):
    path = coco(tmp_path, **changes)
    with pytest.raises(UserError, match=words):
        load(tmp_path, path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.json cannot be read \(No such file"):
        load(tmp_path, tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="neither COCO keypoints"):
        load(tmp_path, tmp_path / "broken.json")
    folder = cub(tmp_path)
    (folder / "parts" / "part_locs.txt").write_text("1 9 6.0 5.0 1\n")
    with pytest.raises(UserError, match="no '9'"):
        load(tmp_path, folder)
    (folder / "parts" / "parts.txt").unlink()
    with pytest.raises(UserError, match=r"parts.txt cannot be read"):
        load(tmp_path, folder)


def test_official_datasets_have_their_own(data_dir):
    config = override(tiny.probe_config(data_dir), {"data.annotations": "points.json"})
    with pytest.raises(UserError, match=r"config\.data\.annotations is 'points\.json', but must"):
        check(config, devices=1)


@pytest.mark.slow
@pytest.mark.usefixtures("relaxed")
def test_lapm_trains_on_ones_own_parts_and_scores_them(tmp_path, data_dir):
    classes, folder = ("ant", "bee", "cicada"), tmp_path / "insects"
    fill(folder, classes, each=8)
    names = [f"{kind}/{number}.png" for kind in classes for number in range(8)]
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    points = [8, 6, 2, 22, 14, 2]
    found = [
        {"image_id": k, "bbox": [2, 2, 26, 16], "keypoints": points} for k in range(len(names))
    ]
    path = coco(tmp_path, images=images, annotations=found)
    config = tiny.shrink(data_dir)
    config.data.dataset, config.data.path = "folder", str(folder)
    config.data.annotations, config.data.held_out = str(path), 0.0
    config.method.parts, config.method.objects = "annotated", "annotated"
    results = main.run(config, tmp_path / "run", figures=False)
    assert results["protocol"]["dataset"] == "folder-insects"
    assert main.open_run(tmp_path / "run").dataset.part_names == ("head", "sting")
    scores = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    localized = str(scores)
    assert "'test_part_centers_inside': 1.0" in localized
    assert "'test_part_centers_inside_sting': 1.0" in localized
