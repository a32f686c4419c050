"""Do the tests notice faults? Runs mutmut, and says which share of its mutants they caught.

python -m tests.mutation                       # all mutants: hours
python -m tests.mutation --sample 60           # of each module, drawn by --seed
python -m tests.mutation fgjax/losses/tuples.py
"""

import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tomllib

try:
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name
except ImportError:
    sys.exit("The mutation tester is not installed: pip install 'mutmut==3.8.*'")

ROOT = pathlib.Path(__file__).parents[2]
# Of these modules only what decides which stage is which.
IDENTITY = {
    "fgjax/config.py": "flatten identity differences before without_added",
    "fgjax/training/run.py": "stage _identity _reused _own _begin _changed",
}
SURVIVED = 0  # pytest's exit status: all tests passed
UNTESTED = 33


def modules(wanted: list[str]) -> list[str]:
    """The modules of pyproject.toml's [tool.mutmut], or those of them that are wanted."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    found = [p for pattern in settings["only_mutate"] for p in sorted(ROOT.glob(pattern))]
    names = [str(path.relative_to(ROOT)) for path in found if path.name != "__init__.py"]
    unknown = set(wanted) - set(names)
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))} is not mutated; these are: {', '.join(names)}")
    return wanted or names


def mutants(module: str) -> list[str]:
    """The names of all mutants of a module."""
    path = pathlib.Path(module)
    made = mutate_file_contents(module, (ROOT / path).read_text())
    names = [get_mutant_name(path, name) for name in made.mutant_names]
    if module not in IDENTITY:
        return names
    # module.x_function__mutmut_1, module.xǁClassǁmethod__mutmut_1
    functions = [re.split(r"\.x_|ǁ", name.rpartition("__mutmut_")[0])[-1] for name in names]
    wanted = IDENTITY[module].split()
    return [name for name, function in zip(names, functions) if function in wanted]


def environment() -> dict[str, str]:
    """One cache of compiled programs for all mutants: most of their operations are the same."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / "mutants" / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **os.environ,
    }


def report(chosen: dict[str, list[str]]) -> None:
    """A line for each module, then every mutant that no test noticed."""
    left, caught, tried = [], 0, 0
    for module, names in chosen.items():
        record = ROOT / "mutants" / f"{module}.meta"
        codes = json.loads(record.read_text())["exit_code_by_key"] if record.exists() else {}
        ended = [name for name in names if codes.get(name) is not None]
        missed = [name for name in ended if codes[name] in (SURVIVED, UNTESTED)]
        left += missed
        tried, caught = tried + len(ended), caught + len(ended) - len(missed)
        share = f"{1 - len(missed) / len(ended):.1%}" if ended else "none tried"
        print(f"{module:36} {len(names):5} drawn {len(ended):5} tried {share:>8} caught")
    print(f"{'all':36} {caught} of {tried} caught, {caught / max(tried, 1):.1%}")
    for name in left:
        print(f"mutmut show {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help="paths; all by default")
    parser.add_argument("--sample", type=int, help="mutants of each module; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only-report", action="store_true", help="what the last run found")
    options = parser.parse_args()
    chosen = {}
    for module in modules(options.modules):
        names = mutants(module)
        if options.sample is not None:  # a smaller sample is a part of a larger one
            random.Random(f"{options.seed} {module}").shuffle(names)
        chosen[module] = names[: options.sample]
    if not options.only_report:
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1"]
        every = [name for names in chosen.values() for name in names]
        subprocess.run([*command, *every], cwd=ROOT, env=environment(), check=True)
    report(chosen)


if __name__ == "__main__":
    main()
