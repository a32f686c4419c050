"""What changes a result on one machine, and by how much? One seed of a demo, one thing at a time.

    PYTHONPATH=. python benchmarks/spread.py                     all that is not in spread.json yet
    PYTHONPATH=. python benchmarks/spread.py --only="1 core"     one of them

Each is a whole run in a process of its own, from the same drawn images, with nothing else changed:
the same again, one core, two and four simulated devices, XLA's library of small kernels for
reductions, memory in small pages, other seeds for comparison. What is compared: the networks'
parameters, the first epoch's loss, accuracy.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from fgjax import huge_pages, xla_flags
from fgjax.results import commit
from fgjax.training.logging import read_metrics

KEPT = pathlib.Path(__file__).with_name("spread.json")
DEVICES = "--xla_force_host_platform_device_count="
AS_IT_IS = "as it is"
# (cores, XLA_FLAGS, seed), and whether memory has huge pages
VARIANTS = {
    AS_IT_IS: (2, "", 0),
    "the same again": (2, "", 0),
    "1 core": (1, "", 0),
    "2 devices": (2, f"{DEVICES}2", 0),
    "4 devices": (2, f"{DEVICES}4", 0),
    "library on": (2, f"--{xla_flags.OPTION}=LIBRARY_FUSION_TYPE_REDUCE", 0),
    "pages of 4 KiB": (2, "", 0, False),
    "seed 1": (2, "", 1),
    "seed 2": (2, "", 2),
}
_RUN = """
import os, pathlib, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[3])])
from fgjax import config_files, main
main.setup()
config = config_files.load(sys.argv[1])
config.seed = int(sys.argv[4])
main.run(config, pathlib.Path(sys.argv[2]), figures=False)
"""


def measured(config: str, cores: int, flags: str, seed: int, huge: bool = True) -> dict:
    """Accuracy of a run, the losses of its stages' first and last epochs, a digest of its end."""
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        words = [sys.executable, "-c", _RUN, config, str(folder), str(cores), str(seed)]
        environment = {"XLA_FLAGS": flags, "GLIBC_TUNABLES": f"{huge_pages.TUNABLE}={int(huge)}"}
        subprocess.run(words, check=True, env=os.environ | environment)
        results = json.loads((folder / "results.json").read_text())["metrics"]
        losses = {}
        for path in sorted(folder.glob("*/metrics.jsonl")):
            found = [row["loss"] for row in read_metrics(path.parent) if "loss" in row]
            losses[path.parent.name] = [found[0], found[-1]]
        return {"top1": results["top1"], "losses": losses, "commit": commit(),
                "parameters": float(np.sum(parameters(folder)))}  # fmt: skip
    finally:
        shutil.rmtree(folder)


def parameters(folder: pathlib.Path) -> np.ndarray:
    """Sums of squares of the last network's arrays, in float64."""
    import jax
    import orbax.checkpoint as ocp

    last = max(folder.glob("*/model"), key=lambda path: path.stat().st_mtime)
    with ocp.StandardCheckpointer() as reader:
        leaves = jax.tree.leaves(reader.restore(last))
    return np.array([np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in leaves])


def show(known: dict) -> None:
    """A table in Markdown: differences to the run as it is."""
    if AS_IT_IS not in known:
        return
    base = known[AS_IT_IS]
    print("| what changes | top1 (%) | first epochs' losses, relative | parameters |")
    print("|---|---|---|---|")
    for name, one in known.items():
        first = max(abs(a[0] - b[0]) / abs(b[0])
                    for a, b in zip(one["losses"].values(), base["losses"].values()))  # fmt: skip
        same = "the same" if one["parameters"] == base["parameters"] else "others"
        print(f"| {name} | {100 * one['top1']:.1f} | {first:.1e} | {same} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="aircraft:lapm,demo")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in options.only:
        of_config = known.setdefault(options.config, {})
        if name not in of_config:
            of_config[name] = measured(options.config, *VARIANTS[name])
            KEPT.write_text(json.dumps(known, indent=1) + "\n")
    for config, found in known.items():
        print(f"\n{config}\n")
        show(found)


if __name__ == "__main__":
    main()
