"""Tiny archives in the official layouts of the other datasets, awkward parts included.

Every picture is 40 × 60 pixels, dark, with one bright rectangle whose colour is its class's, so
that a test can tell whether label, box and picture belong together.
"""

import io
import pathlib
import tarfile
import zipfile

import cv2
import numpy as np
from scipy import io as matlab

HEIGHT, WIDTH = 40, 60
BOX = (15, 10, 45, 30)  # x0, y0, x1, y1: exclusive, 0-based


def picture(number: int, label: int) -> bytes:
    """The JPEG of an image of a class."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    x0, y0, x1, y1 = BOX
    pixels[y0:y1, x0:x1] = 40
    pixels[y0:y1, x0:x1, label % 3] = 240
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def mat(**values) -> bytes:
    """A MATLAB file."""
    stream = io.BytesIO()
    matlab.savemat(stream, values)
    return stream.getvalue()


def structs(rows: list[dict]) -> np.ndarray:
    """A MATLAB struct array [1, N]."""
    table = np.zeros((1, len(rows)), [(key, object) for key in rows[0]])
    for place, row in enumerate(rows):
        for key, value in row.items():
            table[0, place][key] = value
    return table


def cell(values: list[str], *, column: bool) -> np.ndarray:
    """A MATLAB cell array of strings."""
    array = np.array([np.array(v, object) for v in values], object)
    return array.reshape(-1, 1) if column else array.reshape(1, -1)


def tar(path: pathlib.Path, files: dict[str, bytes]) -> None:
    """Write a tar file, compressed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def cub(folder: pathlib.Path, *, classes: int = 4, each: int = 6) -> list[str]:
    """CUB_200_2011.tgz; returns the class names. Half of each class trains, sizes are w and h."""
    names = [f"{k + 1:03d}.Bird_{'ABCD'[k]}" for k in range(classes)]
    parts = ["back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg",
             "left wing", "nape", "right eye", "right leg", "right wing", "tail",
             "throat"]  # fmt: skip
    lines: dict[str, list[str]] = {key: [] for key in (
        "images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt",
        "parts/part_locs.txt")}  # fmt: skip
    lines["classes.txt"] = [f"{k + 1} {name}" for k, name in enumerate(names)]
    lines["parts/parts.txt"] = [f"{k + 1} {name}" for k, name in enumerate(parts)]
    files, number = {}, 0
    for label, name in enumerate(names):
        for copy in range(each):
            number += 1
            path = f"{name}/Bird_{number:04d}.jpg"
            files[f"images/{path}"] = picture(number, label)
            lines["images.txt"].append(f"{number} {path}")
            lines["image_class_labels.txt"].append(f"{number} {label + 1}")
            lines["train_test_split.txt"].append(f"{number} {copy % 2}")
            x0, y0, x1, y1 = BOX
            lines["bounding_boxes.txt"].append(f"{number} {x0}.0 {y0}.0 {x1 - x0}.0 {y1 - y0}.0")
            for part in range(15):  # the second part is never visible, the tail is at the border
                visible = int(part != 1)
                x, y = (59.0, 39.0) if part == 13 else (30.0, 20.0)
                place = f"{x} {y} 1" if visible else "0.0 0.0 0"
                lines["parts/part_locs.txt"].append(f"{number} {part + 1} {place}")
    files |= {name: "\n".join(rows).encode() + b"\n" for name, rows in lines.items()}
    listed = {f"CUB_200_2011/{name}": data for name, data in files.items()}
    tar(folder / "CUB_200_2011.tgz", {**listed, "attributes.txt": b"1 has_bill_shape\n"})
    return names


CARS = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012", "Audi R8", "BMW M3"]


def _car(number: int, label: int, **more) -> dict:
    x0, y0, x1, y1 = BOX
    if number % 4 == 0:  # some official boxes reach a pixel over the border
        x1, y1 = WIDTH + 1, HEIGHT + 1
    return {"bbox_x1": x0 + 1, "bbox_y1": y0 + 1, "bbox_x2": x1, "bbox_y2": y1,
            "class": label + 1, **more}  # fmt: skip


def cars(folder: pathlib.Path, *, single: bool, each: int = 3) -> list[str]:
    """Stanford Cars in the single-archive layout or the devkit's."""
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    images: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    number = 0
    for split in ("train", "test"):
        for label in range(len(CARS)):
            for _ in range(each):
                number += 1
                name = f"{number:06d}.jpg" if single else f"{number:05d}.jpg"
                images[split][name] = picture(number, label)
                more = (
                    {"relative_im_path": f"car_ims/{name}", "test": int(split == "test")}
                    if single
                    else {"fname": name}
                )
                rows[split].append(_car(number, label, **more))
    names = cell(CARS, column=False)
    if single:
        both = {**images["train"], **images["test"]}
        tar(folder / "car_ims.tgz", {f"car_ims/{name}": data for name, data in both.items()})
        annotations = structs(rows["train"] + rows["test"])
        data = mat(annotations=annotations, class_names=names)
        (folder / "cars_annos.mat").write_bytes(data)
        return CARS
    for split in ("train", "test"):
        listed = {f"cars_{split}/{name}": data for name, data in images[split].items()}
        tar(folder / f"cars_{split}.tgz", listed)
    unlabelled = [{k: v for k, v in row.items() if k != "class"} for row in rows["test"]]
    tar(folder / "car_devkit.tgz", {
        "devkit/cars_meta.mat": mat(class_names=names),
        "devkit/cars_train_annos.mat": mat(annotations=structs(rows["train"])),
        "devkit/cars_test_annos.mat": mat(annotations=structs(unlabelled)),
    })  # fmt: skip
    data = mat(annotations=structs(rows["test"]))
    (folder / "cars_test_annos_withlabels.mat").write_bytes(data)
    return CARS


def _object(x0, y0, x1, y1) -> str:
    corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    return f"<object><bndbox>{corners}</bndbox></object>"


def dogs(folder: pathlib.Path, *, each: int = 3) -> list[str]:
    """Three tar files; every other picture has two dogs, whose boxes together are BOX."""
    names = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02107574-Greater_Swiss_dog",
             "n02116738-African_hunting_dog"]  # fmt: skip
    images, boxes, number = {}, {}, 0
    lists: dict[str, list[str]] = {"train": [], "test": []}
    x0, y0, x1, y1 = BOX
    for split in ("test", "train"):
        for label, name in enumerate(names):
            for _ in range(each):
                number += 1
                path = f"{name}/{name.split('-')[0]}_{number}"
                images[f"Images/{path}.jpg"] = picture(number, label)
                found = [(x0, y0, x0 + 9, y1 - 4), (x0 + 5, y0 + 3, x1, y1)]
                found = found if number % 2 else [BOX]
                text = "".join(_object(*box) for box in found)
                boxes[f"Annotation/{path}"] = f"<annotation>{text}</annotation>".encode()
                lists[split].append(f"{path}.jpg")
    tar(folder / "images.tar", images)
    tar(folder / "annotation.tar", boxes)
    files = {
        f"{split}_list.mat": mat(
            file_list=cell(paths, column=True), labels=np.ones((len(paths), 1))
        )
        for split, paths in lists.items()
    }
    tar(folder / "lists.tar", files)
    return names


def flowers(folder: pathlib.Path, *, each: int = 6) -> None:
    """102flowers.tgz and the two lists, with two classes of each half of the 102.

    Of each class a third trains, validates, tests.
    """
    classes = 4
    labels = np.tile([0, 1, 51, 101], each)
    files = {f"jpg/image_{n + 1:05d}.jpg": picture(n, int(label)) for n, label in enumerate(labels)}
    tar(folder / "102flowers.tgz", files)
    numbers = np.arange(1, len(labels) + 1)
    thirds = (numbers - 1) // classes % 3
    (folder / "imagelabels.mat").write_bytes(mat(labels=labels[None].astype(np.uint8) + 1))
    sets = {key: numbers[thirds == k][None] for k, key in enumerate(("trnid", "valid", "tstid"))}
    (folder / "setid.mat").write_bytes(mat(**sets))


def pets(folder: pathlib.Path, *, each: int = 3) -> list[str]:
    """Two archives; official numbers ignore capitals; test images and one other have no box."""
    official = ["Abyssinian", "american_bulldog", "Bengal", "yorkshire_terrier"]
    species = [1, 2, 1, 2]
    images, xmls, number = {}, {}, 0
    lists: dict[str, list[str]] = {"trainval": ["#Image CLASS-ID SPECIES BREED ID"], "test": []}
    for split in ("trainval", "test"):
        for place, name in enumerate(official):
            for _ in range(each):
                number += 1
                image = f"{name}_{number}"
                label = sorted(official).index(name)
                images[f"images/{image}.jpg"] = picture(number, label)
                lists[split].append(f"{image} {place + 1} {species[place]} 1")
                if split == "trainval" and number != 1:
                    text = f"<annotation>{_object(*BOX)}</annotation>"
                    xmls[f"annotations/xmls/{image}.xml"] = text.encode()
    images["images/Abyssinian_100.mat"] = b"left over in the official archive"
    tar(folder / "images.tar.gz", images)
    texts = {f"annotations/{k}.txt": ("\n".join(v) + "\n").encode() for k, v in lists.items()}
    tar(folder / "annotations.tar.gz", {**texts, **xmls})
    return sorted(official)


def deepfashion(folder: pathlib.Path, *, folders: bool, each: int = 3) -> list[str]:
    """The benchmark's files, loose or in its folders; the third of four categories is empty."""
    names, types = ["Anorak", "Blazer", "Cape", "Jeans"], [1, 1, 3, 2]
    rows: dict[str, list[str]] = {"category": [], "box": [], "partition": []}
    images, number = {}, 0
    for split in ("train", "val", "test"):
        for label in (0, 1, 3):
            for _ in range(each):
                number += 1
                path = f"img/Sheer_{names[label]}_{number:04d}/img_00000001.jpg"
                images[path] = picture(number, label)
                rows["category"].append(f"{path}    {label + 1}")
                rows["box"].append(f"{path}   {' '.join(f'{c:03d}' for c in BOX)}")
                rows["partition"].append(f"{path}   {split}")
    texts = {
        "Anno/list_category_cloth.txt": ("category_name  category_type",
                                         [f"{n}   {t}" for n, t in zip(names, types)]),
        "Anno/list_category_img.txt": ("image_name  category_label", rows["category"]),
        "Anno/list_bbox.txt": ("image_name  x_1  y_1  x_2  y_2", rows["box"]),
        "Eval/list_eval_partition.txt": ("image_name  evaluation_status", rows["partition"]),
    }  # fmt: skip
    for name, (heading, lines) in texts.items():
        path = folder / "deepfashion" / name if folders else folder / pathlib.Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([str(len(lines)), heading, *lines]) + "\n")
    if folders:
        for name, data in images.items():
            path = folder / "deepfashion" / "Img" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    else:
        with zipfile.ZipFile(folder / "img.zip", "w") as archive:
            for name, data in images.items():
                archive.writestr(name, data)
    return names
