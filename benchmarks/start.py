"""Seconds from `fgjax train` to the end of its first training step.

    PYTHONPATH=. python benchmarks/start.py [--methods lapm hdcl]

Each demo's command in a process of its own, twice: with an empty cache of compiled programs, and
with the one that the first left. The data are there. Shown apart: until `fgjax.main` is imported,
until the first loop begins (its network built, its data opened), until its first step has ended
(traced, compiled or read from the cache, computed). The process ends there.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

METHODS = ("lapm", "ghns", "hdcl", "ccfr")
_RUN = """
import os, sys, time
began = float(sys.argv[1])
from fgjax import cli, main
from fgjax.training import fit
said = [time.time() - began]
import jax
real = fit.make_step

def make_step(*arguments, **options):
    step = real(*arguments, **options)
    said.append(time.time() - began)
    def first(*arguments):
        jax.block_until_ready(step(*arguments))
        said.append(time.time() - began)
        print("SAID", *said, flush=True)
        os._exit(0)
    first.programs = step.programs
    return first

fit.make_step = make_step
sys.argv = ["fgjax", *sys.argv[2:]]
cli.main()
"""


def seconds(method: str, folder: pathlib.Path, cache: pathlib.Path) -> list[float]:
    """Until imported, until the loop begins, until its first step has ended."""
    words = ["train", f"--config=aircraft:{method},demo", f"--workdir={folder / 'run'}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(time.time()), *words], env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    if not said:
        raise SystemExit(done.stderr[-2000:])
    return [float(word) for word in said[-1].split()[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    print("| demo | cache | imported | the loop begins | first step, s |\n|---|---|---|---|---|")
    for method in parser.parse_args().methods:
        with tempfile.TemporaryDirectory() as scratch:
            cache = pathlib.Path(scratch) / "programs"
            for turn in ("empty", "filled"):
                row = seconds(method, pathlib.Path(scratch) / turn, cache)
                print(f"| {method} | {turn} | " + " | ".join(f"{s:.1f}" for s in row) + " |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
