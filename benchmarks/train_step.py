"""One SGD step and one forward pass of a network, against PyTorch on the same machine.

    PYTHONPATH=. python benchmarks/train_step.py            steps and forward passes, CPU or GPU
    PYTHONPATH=. python benchmarks/train_step.py --compile  compile times of all networks
    PYTHONPATH=. taskset -c 0 python benchmarks/train_step.py --clock=cpu     one core, CPU seconds

needs `pip install --no-deps torchvision==0.28.0`, on a GPU also timm, beside
benchmarks/requirements.txt. PyTorch runs channels last: on a CPU eagerly in float32, on a GPU
through torch.compile in bfloat16. Each side lives in a process of its own; they run in turns, and a
ratio is the median over the turns of PyTorch's time by ours. A training step is forward, backward
and SGD with momentum and weight decay, batch norm in training mode, on images that are already on
the device. Of two steps in a turn the second counts, since in a training they follow each other.
Our side's memory comes in huge pages, as it does for fgjax's commands; PyTorch's as it does for who
types `python`. `--pages=both` gives them to both, `--pages=none` to none. CPU seconds on one core
are for a machine that others use, too: waiting for them does not count.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time

import numpy as np

from fgjax import huge_pages

CPU_CASES = (("resnet18", 96, 8), ("resnet18", 96, 32), ("resnet50", 224, 8), ("resnet50", 224, 32),
             ("vgg16", 224, 8), ("vgg16", 224, 32), ("efficientnet_lite0", 128, 32),
             ("efficientnet_lite0", 160, 32))  # fmt: skip
GPU_CASES = (("resnet50", 224, 128), ("resnet50", 448, 64), ("efficientnet_lite0", 224, 64),
             ("dinov2_vitb14_reg", 224, 64))  # fmt: skip
# Multiplications and additions of a forward pass for one image; a step takes three times as many.
FLOPS = {("resnet50", 224): 2 * 4.09e9, ("resnet50", 448): 4 * 2 * 4.09e9,
         ("efficientnet_lite0", 224): 2 * 0.385e9,
         ("dinov2_vitb14_reg", 224): 2 * 23.2e9}  # fmt: skip
TIMM = {"dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m"}
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # bfloat16, dense


def ours(name, size, batch, half):
    """`step()` and `forward()` that return when the work is done."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from fgjax import compilation, models
    from fgjax.config import Optimizer
    from fgjax.training import optimizer

    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (batch, size, size, 3)), jnp.uint8)
    labels = jnp.asarray(rng.integers(0, 1000, batch))
    model = models.build(
        name, num_classes=1000, rngs=nnx.Rngs(0), dtype=jnp.bfloat16 if half else jnp.float32,
        head="original",
    )  # fmt: skip
    update = optimizer.make(
        Optimizer("sgd", 0.01, schedule="constant"), steps_per_epoch=1, epochs=1
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def train(params, rest, moments, images, labels):
        def objective(params):
            merged = nnx.merge(graph, params, rest, copy=True)
            logits = merged(images)["logits"]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(loss), nnx.split(merged, nnx.Param, ...)[2]

        (loss, after), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        change, moments = update.update(gradient, moments, params)
        return optax.apply_updates(params, change), after, moments, loss

    compiled = compilation.jit(train, donate_argnums=(0, 1, 2))
    model.eval()
    fixed_graph, fixed = nnx.split(jax.tree.map(jnp.copy, model))
    infer = compilation.jit(lambda state, images: nnx.merge(fixed_graph, state)(images)["logits"])
    state = [params, rest, update.init(params)]

    def step():
        *state[:], loss = compiled(*state, images, labels)
        jax.block_until_ready(loss)

    return {"train": step, "forward": lambda: jax.block_until_ready(infer(fixed, images))}


def theirs(name, size, batch, half):
    """PyTorch's side of `ours`."""
    import torch

    from tests.models import golden

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("efficientnet"):
        from tests.models import torch_lite

        model = torch_lite.Lite(name)
    elif name.startswith("dinov2"):
        import timm

        model = timm.create_model(TIMM[name], img_size=size, num_classes=1000)
    else:
        model = getattr(golden.torchvision().models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = model.to(device, memory_format=torch.channels_last).train()
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(batch, 3, size, size)).astype(np.float32))
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(rng.integers(0, 1000, batch)).to(device)
    update = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    call = torch.compile(model) if device == "cuda" else model
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    cast = lambda: torch.autocast(device, torch.bfloat16, enabled=half)  # noqa: E731

    def step():
        model.train()
        update.zero_grad(set_to_none=True)
        with cast():
            loss = torch.nn.functional.cross_entropy(call(images), labels)
        loss.backward()
        update.step()
        wait()

    def forward():
        model.eval()
        with torch.inference_mode(), cast():
            call(images)
        wait()

    return {"train": step, "forward": forward}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def _serve(pipe, make, case, half, clock):
    """A side's process: runs what it is asked for and answers with the seconds."""
    sides, seconds = make(*case, half), CLOCKS[clock]
    while (what := pipe.recv()) is not None:
        sides[what]()  # after a pause it takes longer: its memory has gone back to the system
        began = seconds()
        sides[what]()
        pipe.send(seconds() - began)


# Whether memory comes in pages of 2 MiB: for us, for PyTorch.
PAGES = {"ours": (True, False), "both": (True, True), "none": (False, False)}


def compare(case, half, turns, clock, pages="ours"):
    """{what: (our median, their median, median ratio)} in seconds."""
    context, pipes = multiprocessing.get_context("spawn"), []
    for make, huge in zip((ours, theirs), PAGES[pages]):
        os.environ["GLIBC_TUNABLES"] = f"{huge_pages.TUNABLE}={int(huge)}"
        here, there = context.Pipe()
        context.Process(target=_serve, args=(there, make, case, half, clock), daemon=True).start()
        pipes.append(here)

    def run(pipe, what):
        pipe.send(what)
        return pipe.recv()

    found = {}
    for what in ("train", "forward"):
        for pipe in pipes:
            run(pipe, what)  # compile and warm up
        times = np.array([[run(pipe, what) for pipe in pipes] for _ in range(turns)])
        mine, other = np.median(times, axis=0)
        found[what] = (mine, other, float(np.median(times[:, 1] / times[:, 0])))
    for pipe in pipes:
        pipe.send(None)
    return found


def _compile_times():
    from tests.models.golden import NAMES

    print("| network | first call of a step, s | from the cache, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for name in NAMES:
            size = 299 if name.startswith("inception") else 224
            seconds = [_in_new_process(name, size, cache) for _ in range(2)]
            print(f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} |", flush=True)


def _in_new_process(name, size, cache):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_first_step, args=(there, name, size, cache))
    process.start()
    seconds = here.recv()
    process.join()
    return seconds


def _first_step(pipe, name, size, cache):
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    step = ours(name, size, 2, half=False)["train"]
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    began = time.perf_counter()
    step()
    pipe.send(first - (time.perf_counter() - began))


def _device():
    """Name of the accelerator, or None; asked in another process, so that none is held here."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_accelerator)


def _accelerator():
    import jax

    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="compile times instead")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds of what")
    parser.add_argument("--pages", choices=PAGES, default="ours", help="who has huge pages")
    parser.add_argument("--only", default="", help="cases of one network")
    options = parser.parse_args()
    if options.compile:
        _compile_times()
        return 0
    accelerator = _device()
    print(f"{accelerator or 'CPU'}, {options.turns} turns, {options.clock} time, "
          f"huge pages: {options.pages}")  # fmt: skip
    print("| network | px | batch | what | ours, ms | PyTorch, ms | images/s | ratio |"
          + (" share of peak |" if accelerator else ""))  # fmt: skip
    print("|---|---|---|---|---|---|---|---|" + ("---|" if accelerator else ""))
    for case in GPU_CASES if accelerator else CPU_CASES:
        name, size, batch = case
        if options.only not in ("", name):
            continue
        found = compare(case, bool(accelerator), options.turns, options.clock, options.pages)
        for what, (mine, other, ratio) in found.items():
            row = [name, size, batch, what, f"{1e3 * mine:.0f}", f"{1e3 * other:.0f}",
                   f"{batch / mine:.1f}", f"{ratio:.2f}"]  # fmt: skip
            peak = next((v for k, v in PEAKS.items() if k in (accelerator or "")), None)
            if accelerator:
                work = FLOPS[name, size] * batch * (3 if what == "train" else 1)
                row.append(f"{work / mine / peak:.0%}" if peak else "unknown")
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
