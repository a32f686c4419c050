"""Images a second from prepared files to a ready batch, beside PyTorch's DataLoader with Pillow.

    PYTHONPATH=. python benchmarks/input.py

needs benchmarks/requirements.txt. JPEGs of 800 × 600 pixels (detailed pictures, not the built-in
aircraft) become batches of 448 × 448: plain (random crop, resize, flip), and mixed by parts as LAPM
does, four images of each reference. Ours reads array_record through grain; theirs reads files with
`torch.utils.data.DataLoader`, Pillow's `draft` mode included, in as many processes as there are
cores. Both do the same work; ours runs in threads (`--config.data.workers=0`) and in as many
processes. The three take turns, and a ratio is the median of ours to theirs.
"""

import argparse
import gc
import os
import pathlib
import sys
import tempfile
import time

import cv2
import numpy as np
from absl import flags
from PIL import Image
from scipy import io as matlab

from fgjax.config import Augmentation, Data
from fgjax.data import datasets, images, loading, mixing

SIZE, WIDTH, HEIGHT, BATCH = 448, 800, 600, 16
PARTS = np.array([[0.2, 0.0, 0.6, 0.4], [0.3, 0.3, 0.7, 0.7], [0.2, 0.6, 0.6, 1.0]], np.float32)


def write_pictures(root: pathlib.Path, count: int, classes: int) -> np.ndarray:
    """Pictures with detail on several scales, as photographs have, in Oxford Flowers' layout."""
    (root / "jpg").mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for scale in (4, 16, 64):
            coarse = rng.normal(0, 30, (HEIGHT // scale + 1, WIDTH // scale + 1, 3))
            pixels += cv2.resize(coarse.astype(np.float32), (WIDTH, HEIGHT))
        picture = np.clip(pixels + 128, 0, 255).astype(np.uint8)
        path = root / "jpg" / f"image_{number + 1:05d}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    labels, numbers = np.arange(count) % classes, np.arange(1, count + 1)
    matlab.savemat(root / "imagelabels.mat", {"labels": labels[None] + 1})
    sets = {"trnid": numbers[None, :-8], "valid": numbers[None, -8:-4], "tstid": numbers[None, -4:]}
    matlab.savemat(root / "setid.mat", sets)
    return labels


def ours(split, mixed: bool, workers: int):
    """Batches of the pipeline, endless."""
    parts = np.broadcast_to(PARTS, (len(split), 3, 4))
    reader = loading.Reader(split, SIZE, Augmentation(), parts=parts)
    rows = np.arange(len(split))
    if mixed:
        sets = mixing.SetMixing(reader, mixing.Donors(split.labels, rows), 0)
        stream, size = loading.stream(rows, sets, seed=0), BATCH // 4
    else:
        stream, size = loading.training_stream(reader, rows, seed=0), BATCH
    data = Data(workers=workers, prefetch=2)
    return (batch["image"] for batch in loading.batches(stream, batch_size=size, data=data))


def theirs(root: pathlib.Path, labels: np.ndarray, mixed: bool, workers: int):
    """The same by PyTorch and Pillow, endless."""
    import torch

    files = sorted(root.rglob("*.jpg"))

    def read(index, rng):
        with Image.open(files[index]) as image:
            image.draft("RGB", (SIZE, SIZE))
            image = image.convert("RGB")
            side = rng.uniform(0.875, 1)
            x, y = rng.uniform(0, 1 - side, 2) * image.size
            box = (x, y, x + side * image.width, y + side * image.height)
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
            if rng.integers(2):
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return image

    def to_pixels(box):
        y0, x0, y1, x1 = (round(float(c) * SIZE) for c in box)
        return x0, y0, x1, y1

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return 10**9

        def __getitem__(self, position):
            rng = np.random.default_rng(position)
            index = int(rng.integers(len(files)))
            reference = read(index, rng)
            if not mixed:
                return np.asarray(reference)
            others = np.flatnonzero(labels != labels[index])
            donors = [read(int(d), rng) for d in rng.choice(others, 3, replace=False)]
            out = [reference, reference.copy(), reference.copy(), donors[2]]
            first, second = rng.permutation(3)[:2]
            for slot, pairs in ((1, [(0, first)]), (2, [(0, first), (1, second)])):
                for donor, part in pairs:
                    box = to_pixels(PARTS[part])
                    size = (box[2] - box[0], box[3] - box[1])
                    patch = donors[donor].resize(size, Image.Resampling.BILINEAR, box=box)
                    out[slot].paste(patch, box[:2])
            return np.stack([np.asarray(image) for image in out])

    size = BATCH // 4 if mixed else BATCH
    loader = torch.utils.data.DataLoader(
        Pictures(), batch_size=size, num_workers=workers, prefetch_factor=2
    )
    return iter(loader)


def rate(batches, count: int) -> float:
    """Images a second over `count` batches after the first few."""
    for _ in range(4):
        next(batches)
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - began)


def decoders(root: pathlib.Path, count: int = 100) -> dict[str, float]:
    """Milliseconds to decode an image in one thread."""
    data = [file.read_bytes() for file in sorted(root.rglob("*.jpg"))[:count]]
    ways = {
        "simplejpeg, what fgjax does": images.decode,
        "Pillow": images._by_pillow,
        "OpenCV": lambda d: cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR),
    }
    found = {}
    for name, way in ways.items():
        began = time.perf_counter()
        for one in data:
            way(one)
        found[name] = 1e3 * (time.perf_counter() - began) / len(data)
    return found


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batches", type=int, default=30)
    options = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as home:
        root = pathlib.Path(home) / "manual" / "flowers102"
        labels = write_pictures(root, 320, 8)
        split = datasets.load_dataset("flowers/subset", data_dir=home).train
        for name, cost in decoders(root).items():
            print(f"decoding, {name}: {cost:.2f} ms")
        print("\n| work | fgjax, threads | fgjax, processes | DataLoader and Pillow | ratios |")
        print("|---|---|---|---|---|")
        for mixed, title in ((False, "crop, resize, flip"), (True, "sets mixed by parts")):
            rates = []
            for _ in range(options.turns):
                row = [rate(ours(split, mixed, count), options.batches) for count in (0, workers)]
                gc.collect()  # each ends before the next one starts
                row.append(rate(theirs(root, labels, mixed, workers), options.batches))
                gc.collect()
                rates.append(row)
            rates = np.array(rates)
            middle, ratios = np.median(rates, 0), np.median(rates[:, :2] / rates[:, 2:], 0)
            cells = [f"{value:.0f}" for value in middle] + [f"{ratios[0]:.2f}, {ratios[1]:.2f}"]
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(_main())
