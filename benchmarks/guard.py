"""Has anything become slower? Under two minutes, and nothing to install.

    PYTHONPATH=. python benchmarks/guard.py             beside what is recorded for this processor
    PYTHONPATH=. python benchmarks/guard.py --record    record it

Each piece of work is timed beside a yardstick that does not change with fgjax: a product of
NumPy's, OpenCV reading the same files, importing JAX. The ratio is the yardstick's time by ours,
the median over turns. It has lost where it lies more than 15 % below the recorded one; what has
lost is timed once more, and only who loses twice fails the guard.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import cv2
import numpy as np

from fgjax import huge_pages

RECORDED = pathlib.Path(__file__).with_name("guard.json")
LOSS = 0.15
TURNS = 5
Pair = tuple[Callable[[], object], Callable[[], object]]  # the yardstick, our work


def product(rows: int = 2048) -> Callable[[], object]:
    """A product of NumPy's: 2 · rows³ operations."""
    one = np.random.default_rng(0).standard_normal((rows, rows), np.float32)
    return lambda: one @ one


def step(name: str, size: int, batch: int) -> Pair:
    """Forward, backward and an update of a network."""
    from benchmarks.train_step import ours

    return product(), ours(name, size, batch, half=False)["train"]


def search() -> Pair:
    """The 33 nearest of 4,000 rows, beside the product that all scores take."""
    from fgjax.evaluation import nearest

    rows = np.random.default_rng(0).standard_normal((4000, 512), np.float32)
    return lambda: rows @ rows.T, lambda: nearest(rows, rows, count=33)


def loss(name: str) -> Pair:
    """Value and gradient of a loss of 512 rows, ten times."""
    import jax
    import jax.numpy as jnp

    from fgjax import compilation, losses

    labels = jnp.repeat(jnp.arange(256), 2)
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(512, 512)) * 0.05, jnp.float32)
    function = getattr(losses, name)
    both = compilation.jit(jax.value_and_grad(lambda x: function(x, labels)))

    def ours():
        for _ in range(10):
            jax.block_until_ready(both(rows))

    return product(1024), ours


def reading(folder: str) -> Pair:
    """Crops of JPEGs of 800 × 600 in one thread, beside OpenCV's decoding and resizing."""
    from fgjax.data.images import Encoded
    from fgjax.data.loading import read_window

    rng, files = np.random.default_rng(0), []
    for number in range(24):
        coarse = rng.normal(128, 40, (75, 100, 3)).astype(np.float32)
        picture = np.clip(cv2.resize(coarse, (800, 600)), 0, 255).astype(np.uint8)
        path = f"{folder}/{number}.jpg"
        cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        files.append(pathlib.Path(path).read_bytes())
    window = np.array([0.05, 0.05, 0.95, 0.95], np.float32)

    def theirs():
        for data in files:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            cv2.resize(pixels[30:570, 40:760], (224, 224), interpolation=cv2.INTER_AREA)

    def ours():
        for number, data in enumerate(files):
            read_window(Encoded(data, str(number)), window, 224)

    return theirs, ours


def importing() -> Pair:
    """What `fgjax train` imports, beside JAX alone; each in a process of its own."""

    def run(module: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    return run("jax"), run("fgjax.main")


def pieces(folder: str) -> dict[str, Callable[[], Pair]]:
    """What is guarded, by name; built when its turn comes."""
    return {
        "step, ResNet-18, 64 px, batch 16": lambda: step("resnet18", 64, 16),
        "step, Lite0, 64 px, batch 8": lambda: step("efficientnet_lite0", 64, 8),
        "search, 4,000 × 512": search,
        "contrastive loss, batch 512": lambda: loss("contrastive_loss"),
        "N-pairs loss, batch 512": lambda: loss("n_pairs_loss"),
        "reading JPEGs": lambda: reading(folder),
        "importing fgjax.main": importing,
    }


def ratio(pair: Pair, turns: int = TURNS) -> float:
    """Median over turns of the yardstick's time by ours, after one turn that does not count."""
    found = []
    for _ in range(turns + 1):
        times = []
        for work in pair:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        found.append(times[0] / times[1])
    return statistics.median(found[1:])


def lost(found: float, recorded: float | None) -> bool:
    """Whether a ratio lies more than 15 % below the recorded one."""
    return recorded is not None and found < (1 - LOSS) * recorded


def judged(measure: Callable[[], float], recorded: float | None) -> tuple[list[float], bool]:
    """What was measured, and whether it has lost twice in a row."""
    found = [measure()]
    if lost(found[0], recorded):
        found.append(measure())
    return found, len(found) == 2 and lost(found[1], recorded)


def main() -> int:
    huge_pages.ask()  # as commands do
    import jax

    from fgjax.results import device_name

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    processor, failed = device_name(jax.devices()[0].device_kind), []
    before = {} if options.record else known.get(processor, {})
    print(f"{processor}" + ("" if before else ": nothing is recorded for it"))
    print("| work | ratio | recorded |\n|---|---|---|")
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, build in pieces(folder).items():
            pair = build()
            found, twice = judged(lambda pair=pair: ratio(pair), before.get(name))
            measured[name] = round(found[-1], 3)
            failed += [name] * twice
            shown = ", ".join(f"{value:.3f}" for value in found)
            print(f"| {name} | {shown} | {before.get(name, '–')} |", flush=True)
    if options.record:
        RECORDED.write_text(json.dumps(known | {processor: measured}, indent=1) + "\n")
    if failed:
        print(f"Slower than recorded, twice: {'; '.join(failed)}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
