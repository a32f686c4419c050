"""Random settings of every field: each is carried out, in shapes, or refused in a sentence.

    PYTHONPATH=. python -m tests.fuzzing --count=10000 --train=200      what is written down
    pytest tests/test_fuzzing.py                                        a thousand demos, in CI

A refusal names a field that was set and says what it may be, before anything is built. What is
accepted passes through the method's own code with shapes in the place of numbers.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import math
import pathlib
import resource
import sys
import tempfile
import time
import traceback

import jax
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fgjax import config_files, main, methods
from fgjax.config import override
from fgjax.data.datasets import assumed
from fgjax.errors import UserError
from fgjax.ranges import Choices, Range
from fgjax.testing import shrink
from fgjax.training.dry import DryRun

DEMOS = ("aircraft:lapm,demo", "aircraft:ghns,demo", "aircraft:hdcl,demo", "aircraft:ccfr,demo",
         "aircraft:probe,demo", "aircraft:hdcl,recognition,demo")  # fmt: skip
LARGE = ("cub:lapm,small", "cub:ghns,small", "cub:hdcl,small", "cub:ccfr,small",
         "cub:probe,small")  # fmt: skip
CONFIGS = (*DEMOS * 5, *LARGE)  # the large networks take five times as long to pass through
# What texts without a list of words are tried with.
TEXTS = {
    "backbone": ("resnet18", "vgg16", "efficientnet_lite0", "dinov2_vits14", "convnext_tiny",
                 "inception_v3", "resnet_smal", "nowhere:Network", ""),
    "pretrained": ("", "default", "nowhere/nothing", "missing.safetensors"),
    "freeze": ("", "stem", "stem,stage1", "batch_norms", "stages.0.*", "stage9", ","),
    "dataset": ("synthetic_aircraft/2", "synthetic_aircraft/0", "cub/subset", "cars", "folder",
                "fgvc_aircraft", "cube", ""),
    "ratio": ("1:1", "2:1", "0:1", "1:0", "0:0", "1", "a:b", "1:1:1", "-1:1", "1000000:1"),
    "reuse": ("", "/nowhere"), "path": ("", "/nowhere"), "annotations": ("", "/nowhere.csv"),
    "data_dir": ("",), "manual_dir": ("", "/nowhere"), "name": ("", "a run"),
    "writers": ("", "tensorboard", "wandb,mlflow", "paper", "nowhere:Writer"),
}  # fmt: skip
USUAL = 200  # most numbers lie below it, and what is done so many times lies below the next
# Most draws have three convolutions in the place of the config's network: they pass through the
# same methods in a quarter of the time. Fields that speak of a network are drawn with its own.
SMALL = "tests.tiny:Net"
OF_A_NETWORK = {"backbone", "pretrained", "freeze"}
OFTEN = {"epochs", "rounds", "classify_epochs", "group_epochs"}


def fields(config, prefix=""):
    """(dotted name, value, range) of all fields of a config."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{name}.")
        else:
            yield name, value, field.metadata.get("range")


def values(name, value, allowed):
    """A strategy for one field: mostly what it may be, ends and what lies beyond them, too."""
    if isinstance(value, tuple):
        each = values(name, value[0], allowed)
        return st.lists(each, max_size=4).map(tuple)
    if isinstance(allowed, Choices):
        return st.sampled_from((*allowed.words, *allowed.words, "nonsense", ""))
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, str):
        return st.sampled_from(TEXTS[name.rsplit(".", 1)[-1]])
    allowed = allowed or Range()
    usual = 8 if name.rsplit(".", 1)[-1] in OFTEN else USUAL
    low, high = max(allowed.low, -usual), min(allowed.high, usual)
    beyond = [x for x in (allowed.low, allowed.high) if not math.isinf(x)]
    if isinstance(value, int):
        ends = [int(x) + step for x in beyond for step in (-1, 0, 1) if abs(x) < 600]
        odd = st.sampled_from((*ends, -1, 0, 1, 2**40, -(2**40)))
        return st.one_of(st.integers(int(low), int(high)), st.integers(int(low), int(high)), odd)
    odd = st.sampled_from((*beyond, 0.0, -1.0, 1e-300, 1e300, math.inf, -math.inf, math.nan))
    inside = st.floats(low, high, exclude_min=allowed.open_low, exclude_max=allowed.open_high)
    return st.one_of(inside, inside, odd)


@st.composite
def overrides(draw, configs=CONFIGS, own=True):
    """A config's name and one to three fields; most draws have the small network, or all."""
    name = draw(st.sampled_from(configs))
    known = {key: (key, *rest) for key, *rest in fields(config_files.load(name))}
    chosen = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True))
    changes = {key: draw(values(*known[key])) for key in chosen}
    small = not own or draw(st.sampled_from((True,) * 7 + (False,)))
    if small and not changes.keys() & OF_A_NETWORK:
        changes |= {"backbone": SMALL, "pretrained": "", "freeze": ""}
    return name, changes


def tried(name, changes):
    """("refused", sentence), ("accepted", "") or ("wrong", what happened) for some settings."""
    config = override(config_files.load(name), changes)
    with tempfile.TemporaryDirectory() as scratch:
        workdir = pathlib.Path(scratch) / "run"
        try:
            run = begun(config, workdir, pathlib.Path(scratch))
        except UserError as error:
            return judged(str(error), changes, workdir)
        except Exception:
            return "wrong", f"not a refusal: {_last(traceback.format_exc())}"
        try:
            methods.of(config).run(run)
        except UserError as error:
            return "wrong", f"refused after the first stage: {error}"
        except Exception:
            return "wrong", _last(traceback.format_exc())
    return "accepted", ""


def begun(config, workdir, scratch):
    """All that a run does before its first stage."""
    main.check_values(config)
    main.check_owner(workdir, config)
    dataset, assumption = assumed.without_images(config.data)
    run = DryRun(config, dataset, workdir, None, scratch=scratch, known=not assumption,
                 compiles=False)  # fmt: skip
    methods.check(run)
    return run


def judged(sentence, changes, workdir):
    """Whether a refusal is one, for people: it names a field, or what one was set to."""
    said = [str(value) for value in changes.values() if value not in ("", ())]
    said += [key.rsplit(".", 1)[-1] for key in changes]
    if "config." not in sentence and not any(word in sentence for word in said):
        return "wrong", f"names no field: {sentence}"
    if "\n" in sentence or not sentence.endswith(".") or len(sentence) > 500:
        return "wrong", f"not a sentence: {sentence}"
    if workdir.exists():
        return "wrong", f"written before it was refused: {sentence}"
    return "refused", sentence


def largest():
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _last(text):
    lines = [line.strip() for line in text.strip().splitlines()]
    places = [line for line in lines if line.startswith("File") and "fgjax" in line]
    return f"{lines[-1][:300]} | {places[-1] if places else ''}"


def trained(name, changes, data_dir):
    """Carry accepted settings out on a few drawn images of 32 pixels, one pass of everything."""
    config = override(config_files.load(name), changes)
    config = shrink(config, data_dir)
    if hasattr(config.method, "explore_epochs"):  # fewer than the one that is left
        config.method.explore_epochs = 0
    if hasattr(config.method, "tau"):  # networks of one pass are sure of nothing
        config.method.tau = 0.01
    with tempfile.TemporaryDirectory() as scratch:
        try:
            main.run(config, pathlib.Path(scratch) / "run")
        except UserError as error:  # what the real images, so few of them, do not allow
            return "refused", str(error)
        except Exception:
            return "wrong", _last(traceback.format_exc())
    return "trained", ""


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--train", type=int, default=0, help="how many of the demos that were accepted to train"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="JSON lines of all that was wrong")
    parser.add_argument("--memory", type=float, default=16, help="GiB that may be addressed")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (int(options.memory * 2**30),) * 2)
    counts, wrong, accepted, began = collections.Counter(), [], {}, time.time()

    @settings(max_examples=options.count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(overrides())
    def each(given_one):
        name, changes = given_one
        start, before = time.time(), largest()
        outcome, said = tried(name, changes)
        if largest() > before + 1:
            print(f"{name} {changes}: {before:.1f} to {largest():.1f} GiB", flush=True)
        counts[outcome] += 1
        counts["slow"] += time.time() - start > 30
        if outcome == "accepted" and name.startswith("aircraft"):
            accepted.setdefault(name, []).append(changes)
        if outcome == "wrong" or time.time() - start > 30:
            note(name, changes, said or f"{time.time() - start:.0f} s")
        if sum(counts.values()) % 500 == 0:
            print(dict(counts), f"{time.time() - began:.0f} s, {largest():.1f} GiB", flush=True)
            jax.clear_caches()

    def note(name, changes, said):
        wrong.append({"config": name, "set": repr(changes), "said": said})
        print(f"{name} {changes}: {said}", flush=True)
        if options.out:
            options.out.write_text("".join(json.dumps(w) + "\n" for w in wrong))

    seed(options.seed)(each)()
    print(dict(counts), f"{time.time() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as data_dir:
        for name in itertools.cycle(sorted(accepted)):  # one of each, again and again
            if counts["trained"] == options.train or not any(accepted.values()):
                break
            if not accepted[name]:
                continue
            changes = accepted[name].pop()
            outcome, said = trained(name, changes, data_dir)
            counts[outcome if outcome == "trained" else f"{outcome} in training"] += 1
            if outcome == "wrong":
                note(name, changes, f"in training: {said}")
            elif outcome == "refused":
                print(name, changes, said, flush=True)
            if counts["trained"] % 10 == 0:
                print(dict(counts), f"{time.time() - began:.0f} s, {largest():.1f} GiB", flush=True)
                jax.clear_caches()
    print(dict(counts), f"{time.time() - began:.0f} s", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(_main())
