"""How good after how long? Every method on photographs, as whole commands from nothing.

    PYTHONPATH=. python benchmarks/seconds.py --manual_dir=FOLDER --data_dir=FOLDER

Each command runs in a process of its own, in an empty workdir, with nothing kept of others:
programs are compiled, features and stages are made anew. Prepared data and weights are there.
Seconds are the wall's, from the start of the command until its end, without pictures. They are
added to benchmarks/seconds.json as they come, so that a stopped benchmark goes on. Nothing else
may run meanwhile.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from fgjax.results import metric_of

HERE = pathlib.Path(__file__).parent
KEPT = HERE / "seconds.json"
HEADS = ("knn", "cosine", "linear", "attention")
# What is run, and the number that counts.
COMMANDS = {
    **{f"probe, {head}": ("cub:probe", [f"method.head={head}"], "top1") for head in HEADS},
    "cross-entropy": (
        "cub:lapm,small",
        ["method.views=single", "method.mixing=none", "method.lambda_=1", "method.margin.epochs=16",
         "method.margin.batch_size=32"],
        "top1",
    ),
    "LAPM": ("cub:lapm,small", ["method.margin.epochs=4"], "top1"),
    "CCFR": ("cub:ccfr,small", [], "top1"),
    "HDCL": ("cub:hdcl,recognition,small", [], "top1"),
    "GHNS": ("cub:ghns,small", ["method.objects=annotated"], "top1"),
}  # fmt: skip
_RUN = """
import pathlib, sys
from fgjax import config_files, main, study
from fgjax.config import override
main.setup()
config = config_files.load(sys.argv[1])
config = override(config, study.parse_overrides(config, sys.argv[3:]))
main.run(config, pathlib.Path(sys.argv[2]), figures=False)
"""


def measured(config: str, settings: list[str], metric: str) -> tuple[float, float]:
    """Seconds, and the number, of one command."""
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        began = time.monotonic()
        arguments = [sys.executable, "-c", _RUN, config, str(folder / "run"), *settings]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
        subprocess.run(arguments, check=True, env=os.environ | cache)
        seconds = time.monotonic() - began
        results = json.loads((folder / "run" / "results.json").read_text())
        return seconds, metric_of(results["metrics"], metric)
    finally:
        shutil.rmtree(folder)


def command():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manual_dir", required=True)
    parser.add_argument("--data_dir", required=True, help="prepared data; its features are removed")
    parser.add_argument("--only", nargs="*", default=list(COMMANDS))
    options = parser.parse_args()
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    shared = ["data.dataset=cub/subset", f"data.manual_dir={options.manual_dir}",
              f"data.data_dir={options.data_dir}"]  # fmt: skip
    for name in options.only:
        config, settings, metric = COMMANDS[name]
        if name not in known:
            shutil.rmtree(pathlib.Path(options.data_dir) / "features", ignore_errors=True)
            seconds, value = measured(config, [*settings, *shared], metric)
            known[name] = {"config": config, "settings": settings, "seconds": round(seconds, 1),
                           metric: value}  # fmt: skip
            KEPT.write_text(json.dumps(known, indent=2) + "\n")
        print(name, known[name], flush=True)


if __name__ == "__main__":
    command()
