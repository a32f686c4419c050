"""kill -9 at random moments of whole runs, data's preparation included: the end is the same bits.

    PYTHONPATH=. python -m tests.killing --kills=100      what is written down
    pytest tests/test_killing.py                          twenty, in CI

A run has a data folder of its own. It is started, killed after a random time, started again and
killed again, some times in a row, and then left to end. Its results, its arrays and its networks
must be those of a run that nobody disturbed.
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests import finished
from tests.finished import HASTY, ROOT

_SHARED = ("--config.data.dataset=synthetic_aircraft/4", "--config.data.image_size=32",
           "--config.backbone=tests.tiny:Net", "--config.checkpoints.every_steps=2")  # fmt: skip
_PARTS = ("--config.method.classifier.epochs=1", "--config.method.grouping.warmup.epochs=1",
          "--config.method.grouping.classify_epochs=1", "--config.data.held_out=0.25")  # fmt: skip
METHODS = {
    "lapm": (*_PARTS, "--config.method.samples=8", "--config.method.margin.epochs=2"),
    "ghns": (*_PARTS, "--config.method.part_image_size=16", "--config.method.tau=0.05",
             "--config.method.hard_negatives=3",
             *[f"--config.method.{stage}.epochs=1" for stage in
               ("part_networks", "filter", "parts_classifier", "image_classifiers")]),
    "hdcl": ("--config.method.start.epochs=1", "--config.method.embedding.epochs=2"),
    "ccfr": ("--config.data.held_out=0.25", "--config.method.classifier.epochs=1",
             "--config.method.crop_size=16", "--config.method.pyramid_width=8",
             "--config.method.explore_epochs=1", "--config.method.navigator.epochs=2",
             "--config.method.pretrain.epochs=1", "--config.method.enhance.epochs=1",
             "--noconfig.method.beside_nts"),
    "probe": ("--config.data.held_out=0.25", "--config.pretrained="),
}  # fmt: skip
IN_A_ROW = 4


def command(method, workdir):
    """What a person types."""
    name = f"--config=configs/aircraft.py:{method},demo"
    return [sys.executable, "train.py", name, *_SHARED, *METHODS[method], f"--workdir={workdir}"]


def to_the_end(words, environment):
    """Seconds that the run takes from here."""
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=900, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return time.monotonic() - began


def killed(words, environment, seconds):
    """What it was at when SIGKILL came; None where it had ended before."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=errors, stderr=errors)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            errors.seek(0)
            said = re.findall(r"([\w :-]+?): +\d+%\|", errors.read())
            return said[-1].strip() if said else "between stages"
        errors.seek(0)
        assert code == 0, errors.read()[-3000:]
        return None


def contents(workdir):
    """{name: value} of all that a run leaves: results, arrays and networks."""
    found = {"results.json": json.loads((workdir / "results.json").read_text())}
    for path in sorted(workdir.rglob("*.npz")):
        with np.load(path) as arrays:
            found |= {f"{path.relative_to(workdir)}/{k}": arrays[k] for k in arrays.files}
    with ocp.StandardCheckpointer() as reader:
        for path in sorted(workdir.glob("*/model")):
            flat, _ = jax.tree_util.tree_flatten_with_path(reader.restore(path))
            found |= {f"{path.relative_to(workdir)}/{k}": np.asarray(v) for k, v in flat}
    return found


def differences(one, other):
    """Names of what is not the same, bit by bit."""
    different = sorted(one.keys() ^ other.keys())
    for name in one.keys() & other.keys():
        if isinstance(one[name], np.ndarray):
            same = np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        else:
            same = one[name] == other[name]
        if not same:
            different.append(name)
    return different


def trial(method, kills, number, folder, *, say=print):
    """So many kills of runs of one method; returns where they came, and fails if one mattered."""
    draw, places = random.Random(f"{method} {number}"), []
    environment = finished.environment(str(folder / "data"), folder, XLA_FLAGS=HASTY,
                                       XDG_CACHE_HOME=str(folder / "cache"))  # fmt: skip
    environment["FGJAX_DATA"] = str(folder / "whole-data")
    # What is killed finds programs compiled, and so takes less.
    seconds = 0.6 * to_the_end(command(method, folder / "whole"), environment)
    whole = contents(folder / "whole")
    while len(places) < kills:
        run = f"run{len(places)}"
        environment["FGJAX_DATA"] = str(folder / f"{run}-data")
        words, before = command(method, folder / run), len(places)
        for _ in range(min(IN_A_ROW, kills - len(places))):
            place = killed(words, environment, draw.uniform(0.1, seconds))
            if place is None:
                break
            places.append(place)
        to_the_end(words, environment)
        wrong = differences(whole, contents(folder / run))
        say(f"{method}: killed in {', '.join(places[before:])}: {wrong or 'the same bits'}")
        assert not wrong, wrong
    return places


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="over all methods")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    methods = options.methods.split(",")
    for number, method in enumerate(methods):
        kills = options.kills // len(methods) + (number < options.kills % len(methods))
        with tempfile.TemporaryDirectory() as folder:
            places = trial(method, kills, options.seed, pathlib.Path(folder),
                           say=lambda text: print(text, flush=True))  # fmt: skip
        print(f"{method}: {len(places)} kills, none of which mattered", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
