"""Bytes of each method's training step at the papers' sizes, by XLA's analysis: nothing is trained.

    python -m benchmarks.memory                      all that is not in memory.json yet
    python -m benchmarks.memory --rows=lapm,hdcl     of some methods
    python -m benchmarks.memory --print              the tables of what is there

Each row is compiled for 1, 4 and 8 simulated CPU devices in a process of its own; CUB's numbers of
images and classes are assumed, so neither data nor weights are needed. Options stand alone, on one
device.
"""

import argparse
import json
import pathlib
import subprocess
import sys

RESULTS = pathlib.Path(__file__).with_name("memory.json")
METHODS = ("lapm", "ghns", "hdcl", "ccfr")  # the probe has no step
DEVICES = (1, 4, 8)
# What each option saves of a step with one device.
OPTIONS = {
    "as it is": {},
    "remat": {"remat": True},
    "accumulate=4": {"{loop}.optimizer.accumulate": 4},
    "bfloat16": {"dtype": "bfloat16"},
    "all three": {"remat": True, "{loop}.optimizer.accumulate": 4, "dtype": "bfloat16"},
}
# The loop that an option is set for, and the stage that it trains.
LOOPS = {"lapm": ("method.margin", "margin"), "hdcl": ("method.embedding", "embedding"),
         "ccfr": ("method.enhance", "enhance"),
         "ghns": ("method.image_classifiers", "original_classifier")}  # fmt: skip
_PLAN = """
import json, pathlib, sys
from fgjax import config_files, dry_run
from fgjax.config import override
dry_run.simulate_devices(int(sys.argv[2]))
config = override(config_files.load(sys.argv[1]), json.loads(sys.argv[3]))
plan = dry_run.plan(config, pathlib.Path("nowhere"))
print(json.dumps([{
    "stage": cost.name, "steps": cost.steps, "operations": cost.operations,
    **(cost.memory._asdict() if cost.memory else {}),
} for cost in plan.costs]))
"""


def measure(config: str, devices: int, overrides: dict) -> list[dict]:
    """The stages of a config, with the bytes of their steps on each device."""
    done = subprocess.run(
        [sys.executable, "-c", _PLAN, config, str(devices), json.dumps(overrides)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def wanted(methods: list[str]) -> list[tuple[str, int, str, dict]]:
    """(config, devices, option, overrides) of every row."""
    rows = [(f"cub:{m}", devices, "as it is", {}) for m in methods for devices in DEVICES]
    for method in methods:
        for name, changes in OPTIONS.items():
            changes = {k.format(loop=LOOPS[method][0]): v for k, v in changes.items()}
            rows.append((f"cub:{method}", 1, name, changes))
    return rows


def known() -> dict[str, list[dict]]:
    """What was measured: {"config | devices | option": stages}."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def largest(stages: list[dict]) -> tuple[float, str]:
    """GiB at the peak of the stage that needs most, and its name."""
    peaks = [(stage.get("peak", 0), stage["stage"]) for stage in stages]
    peak, name = max(peaks)
    return peak / 2**30, name


def show() -> None:
    """Tables in Markdown."""
    found = known()
    print("| config | stage | 1 device | 4 devices | 8 devices |\n|---|---|---|---|---|")
    for method in METHODS:
        cells = [found.get(f"cub:{method} | {n} | as it is") for n in DEVICES]
        if any(cells):
            name = next(largest(cell)[1] for cell in cells if cell)
            shown = [f"{largest(cell)[0]:.2f} GiB" if cell else "–" for cell in cells]
            print(f"| cub:{method} | {name} |", " | ".join(shown), "|")
    print("\n| option | " + " | ".join(f"cub:{m}" for m in LOOPS), "|")
    print("|---" * (len(LOOPS) + 1) + "|")
    for option in OPTIONS:
        cells = []
        for method, (_, stage) in LOOPS.items():
            stages = found.get(f"cub:{method} | 1 | {option}", [])
            peaks = [one["peak"] for one in stages if one["stage"] == stage]
            cells.append(f"{max(peaks) / 2**30:.2f} GiB" if peaks else "–")
        print(f"| {option} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(METHODS))
    parser.add_argument("--print", action="store_true", dest="only_print")
    options = parser.parse_args()
    if not options.only_print:
        for config, devices, name, overrides in wanted(options.rows.split(",")):
            key, found = f"{config} | {devices} | {name}", known()
            if key not in found:
                found[key] = measure(config, devices, overrides)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                print(f"{key}: {largest(found[key])[0]:.2f} GiB", flush=True)
    show()


if __name__ == "__main__":
    main()
