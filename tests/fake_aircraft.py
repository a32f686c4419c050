"""A tiny FGVC-Aircraft 2013b archive in the official layout."""

import io
import pathlib
import tarfile

import cv2
import numpy as np

VARIANTS = ("707-320", "A330-200/300", "Gulfstream IV", "F-A 18")
FAMILIES = ("Boeing 707", "A330", "Gulfstream", "F-A 18")
MAKERS = ("Boeing", "Airbus", "Gulfstream Aerospace", "McDonnell Douglas")
HEIGHT, WIDTH, BANNER = 80, 120, 20


def image(number: int, variant: int) -> np.ndarray:
    """A bright rectangle whose colour is the variant's, above a black banner."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    pixels[20:50, 30:90] = 80
    pixels[20:50, 30:90, variant % 3] = 230
    pixels[HEIGHT - BANNER :] = 0
    return pixels


def write(folder: pathlib.Path, *, per_class: int = 3, corrupt: str | None = None) -> pathlib.Path:
    """Write fgvc-aircraft-2013b.tar.gz into a folder; `corrupt` names an image to cut short."""
    files: dict[str, bytes] = {
        "variants.txt": "\n".join(VARIANTS).encode() + b"\n",
        "families.txt": "\n".join(FAMILIES).encode() + b"\n",
        "manufacturers.txt": "\n".join(MAKERS).encode() + b"\n",
    }
    boxes = []
    number = 1000
    for split in ("trainval", "test"):
        lines: dict[str, list[str]] = {"variant": [], "family": [], "manufacturer": []}
        for variant in range(len(VARIANTS)):
            for _ in range(per_class):
                name = f"{number:07d}"
                data = cv2.imencode(".jpg", image(number, variant)[..., ::-1])[1].tobytes()
                if name == corrupt:
                    data = data[: len(data) // 3]
                files[f"images/{name}.jpg"] = data
                lines["variant"].append(f"{name} {VARIANTS[variant]}")
                lines["family"].append(f"{name} {FAMILIES[variant]}")
                lines["manufacturer"].append(f"{name} {MAKERS[variant]}")
                boxes.append(f"{name} 31 21 90 50")
                number += 1
        for level, rows in lines.items():
            files[f"images_{level}_{split}.txt"] = "\n".join(rows).encode() + b"\n"
    files["images_box.txt"] = "\n".join(boxes).encode() + b"\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fgvc-aircraft-2013b.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"fgvc-aircraft-2013b/data/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
