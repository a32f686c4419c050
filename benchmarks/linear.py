"""Does a run's time grow as its images do? Once, twice, four and eight times as many.

    PYTHONPATH=. python benchmarks/linear.py [--methods lapm hdcl]

Each demo with one pass of every loop on 32 px and a network of three layers, so that everything
besides the network weighs as much as it can: reading, statistics, clustering, generated samples,
search. Programs are compiled already, by a run before it that is not counted.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

METHODS = ("lapm", "ghns", "hdcl", "ccfr", "probe")
BASE, TIMES = 16, (1, 2, 4, 8)  # images a class of the first
_RUN = """
import pathlib, sys
from fgjax import config_files, main
from fgjax.testing import shrink
main.setup()
config = config_files.load(f"aircraft:{sys.argv[1]},demo")
config = shrink(config, sys.argv[2])
config.data.dataset, config.backbone = f"synthetic_aircraft/{sys.argv[3]}", "tests.tiny:Net"
if hasattr(config.method, "explore_epochs"):
    config.method.explore_epochs = 0
main.run(config, pathlib.Path(sys.argv[4]), figures=False)
"""


def seconds(method: str, images: int, data: str, cache: str) -> float:
    """A whole run's, the process's start included."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        words = [method, data, str(images), str(pathlib.Path(folder) / "run")]
        subprocess.run([sys.executable, "-c", _RUN, *words], check=True, env=environment,
                       capture_output=True)  # fmt: skip
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    print("| demo | " + " | ".join(f"{n}×, s" for n in TIMES) + " | a further 1×, s, from 1× to 4×"
          " | from 4× to 8× |\n" + "|---" * (len(TIMES) + 3) + "|")  # fmt: skip
    with tempfile.TemporaryDirectory() as data:
        for method in parser.parse_args().methods:
            found = []
            for factor in TIMES:
                with tempfile.TemporaryDirectory() as cache:
                    found.append([seconds(method, BASE * factor, data, cache) for _ in "12"][-1])
            early = np.polyfit(TIMES[:3], found[:3], 1)[0]
            late = (found[3] - found[2]) / (TIMES[3] - TIMES[2])
            cells = [f"{value:.1f}" for value in (*found, early, late)]
            print(f"| {method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
