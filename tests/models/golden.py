"""What the reference implementations compute with weights drawn from a seed per key.

    PYTHONPATH=. python tests/models/golden.py          compares every number with PyTorch's
    PYTHONPATH=. python tests/models/golden.py --write  and writes golden.json.gz anew
    PYTHONPATH=. python tests/models/golden.py --write efficientnet_lite0     this network's alone

They are torchvision's, but for EfficientNet-Lite (tests/models/torch_lite.py), ConvNeXt and
EfficientNet-B0 (timm's) and DINOv2 (transformers'; tests/models/torch_modern.py).

needs `pip install torch==2.13.0`, then `pip install --no-deps torchvision==0.28.0 timm==1.0.31` and
`pip install transformers==5.24.0`.
The tests read golden.json.gz instead: key names, shapes, and for every array its norm and some
random projections. PyTorch computes in float64, so that what differs is ours.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
from flax import nnx

from fgjax import models
from fgjax.models.backbone import IMAGENET

PATH = pathlib.Path(__file__).with_name("golden.json.gz")
NAMES = tuple(name for name in models.NAMES if name != "resnet_small")
MODERN = ("convnext", "efficientnet_b", "dinov2")  # beginnings of names; see torch_modern.py
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes most of the time
CLASSES, BATCH, TOLERANCE = 1000, 4, 1e-4


def generator(text):
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(list(digest[:8]))


def weights(shapes):
    """Arrays that keep activations in proportion, each from its key's own seed."""
    arrays = {}
    for key, shape in shapes.items():
        rng = generator(key)
        if key.endswith("num_batches_tracked"):
            arrays[key] = np.array(0)
        elif len(shape) == 3:  # tokens, and their places
            arrays[key] = rng.normal(0, 0.5, shape).astype(np.float32)
        elif len(shape) > 1:
            deviation = np.sqrt(2 / np.prod(shape[1:]))
            arrays[key] = rng.standard_normal(shape, np.float32) * np.float32(deviation)
        elif key.endswith("running_var"):
            arrays[key] = rng.uniform(0.8, 1.2, shape).astype(np.float32)
        elif key.endswith(
            ("bn3.weight", "_bn2.weight")
        ):  # large branches would amplify rounding block by block
            arrays[key] = rng.uniform(0.05, 0.15, shape).astype(np.float32)
        elif key.endswith("weight"):
            arrays[key] = rng.uniform(0.2, 0.5, shape).astype(np.float32)
        else:
            arrays[key] = rng.normal(0, 0.1, shape).astype(np.float32)
    return arrays


def batch(name):
    """Normalised images NHWC and labels; Inception needs larger ones.

    EfficientNet's are of a size that is halved from even and odd ones, with kernels of 3 and of 5,
    ConvNeXt's of one that its patches do not divide, DINOv2's are wider than high.
    """
    sizes = {"inception": (139, 139), "efficientnet": (90, 90), "convnext": (101, 101),
             "dinov2": (84, 112)}  # fmt: skip
    rng, size = generator("images"), sizes.get(name.partition("_")[0], (96, 96))
    images = rng.standard_normal((BATCH, *size, 3), np.float32)
    return images, np.array([3, 141, 592, 653])


def projections(name, array):
    """‖a‖ and inner products of a/‖a‖ with normal vectors: they move as far as a does."""
    flat = np.asarray(array, np.float64).ravel()
    norm = np.linalg.norm(flat)
    random = generator(name).standard_normal((4, flat.size), np.float32)
    return [float(norm), *(random @ flat / max(norm, 1e-30)).tolist()]


def load(name, path, dtype=jnp.float32):
    options = {"num_classes": CLASSES, "dtype": dtype, "head": "original"}
    # Nothing is drawn: the file fills everything.
    model = nnx.eval_shape(lambda: models.build(name, rngs=nnx.Rngs(0), **options))
    models.load_pretrained(model, str(path))
    return model


def ours(name, path, dtype=jnp.float32):
    """Arrays by name: maps and logits of evaluation and training, statistics after, gradients."""
    images, labels = batch(name)
    model = load(name, path, dtype)
    # PyTorch is given what is left after scaling: torchvision by ImageNet's, Inception's too.
    mean, deviation = model.pixels if name.startswith("efficientnet") else IMAGENET
    images = jnp.asarray(images, dtype) * jnp.array(deviation, dtype) + jnp.array(mean, dtype)
    model.eval()
    graph, *state = nnx.split(model, nnx.Param, ...)
    params, rest = jax.tree.map(lambda x: x.astype(dtype), state)
    evaluate = jax.jit(
        lambda params, rest: nnx.merge(graph, params, rest)(images), compiler_options=QUICK
    )
    model.train()
    graph_train = nnx.split(model, nnx.Param, ...)[0]

    def objective(params):
        merged = nnx.merge(graph_train, params, rest, copy=True)
        outputs = merged(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], labels)
        return jnp.mean(loss), (outputs, nnx.state(merged, nnx.BatchStat))

    gradient, (outputs, statistics) = jax.jit(
        jax.grad(objective, has_aux=True), compiler_options=QUICK
    )(params)
    found = {f"eval/{k}": v for k, v in evaluate(params, rest).items()}
    found |= {f"train/{k}": v for k, v in outputs.items()}
    found |= leaves("gradient", gradient) | leaves("after", statistics)
    if name.startswith("dinov2"):
        positions = nnx.merge(graph, params, rest).embeddings.positions(40, 37)
        found |= {"eval/positions": positions, "train/positions": positions}
    return {k: np.asarray(v) for k, v in found.items()}


def others(name, path, dtype=jnp.float32):
    """What a file of another library's keys makes of `other_images`: logits, DINOv2's features."""
    model = load(name, path, dtype)
    model.eval()
    graph, state = nnx.split(model)
    # A file without a classifier leaves ours as it was: nothing yet.
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype) + getattr(x, "real", 0), state)
    mean, deviation = (jnp.array(value, dtype) for value in IMAGENET)
    images = jnp.asarray(other_images(name), dtype) * deviation + mean
    run = jax.jit(lambda state: nnx.merge(graph, state)(images), compiler_options=QUICK)
    return np.asarray(run(state)["pooled" if name.startswith("dinov2") else "logits"])


def other_images(name):
    """At sizes at which the libraries agree: timm resamples DINOv2's places in its own way, and
    transformers pads EfficientNet as if all sizes were even.
    """
    size, count = (518, 1) if name.startswith("dinov2") else (96, 2)
    return generator("other images").standard_normal((count, size, size, 3), np.float32)


def leaves(prefix, state):
    flat = dict(nnx.to_flat_state(state))
    return {f"{prefix}/{'.'.join(map(str, k))}": v[...] for k, v in flat.items()}


def read():
    return json.loads(gzip.decompress(PATH.read_bytes()))


# PyTorch's side


def torchvision():
    """The package without its compiled operators, which need another build of PyTorch."""
    import torch

    register, torch.library.register_fake = torch.library.register_fake, lambda *a, **k: lambda f: f
    try:
        import torchvision
    finally:
        torch.library.register_fake = register
    return torchvision


def _torch_model(name):
    if name.startswith(MODERN):
        from tests.models import torch_modern

        return torch_modern.build(name).eval()
    if name.startswith("efficientnet"):
        from tests.models import torch_lite

        return torch_lite.Lite(name).eval()
    options = {"weights": None}
    if name.startswith("inception"):
        options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    elif name.startswith("vgg"):
        options |= {"dropout": 0.0, "init_weights": False}
    model = getattr(torchvision().models, name)(**options)
    return model.eval() if not name.startswith("inception") else _without_dropout(model)


def _without_dropout(model):
    model.dropout.p = 0.0
    return model


def _taps(name, model):
    """Modules whose outputs are our maps, by our names."""
    if name.startswith("efficientnet"):
        return {"stem": model.stem, "stage1": model.ends[1], "stage2": model.ends[2],
                "stage3": model.ends[4], "stage4": model.head}  # fmt: skip
    if name.startswith("resnet"):
        return {
            "stem": model.maxpool,
            **{f"stage{i}": getattr(model, f"layer{i}") for i in range(1, 5)},
        }
    if name.startswith("vgg"):
        pools = [m for m in model.features if type(m).__name__ == "MaxPool2d"]
        return {f"stage{i}": pool for i, pool in enumerate(pools, 1)}
    if name.startswith("densenet"):
        f = model.features
        blocks = {f"stage{i}": getattr(f, f"denseblock{i}") for i in range(1, 4)}
        return {"stem": f.pool0, **blocks, "stage4": f.norm5}
    return {"stem": model.maxpool2, "stage1": model.Mixed_5d, "stage2": model.Mixed_6e,
            "stage3": model.Mixed_7c}  # fmt: skip


def _run(name, model):
    """A function of images NCHW: maps NHWC by our names, pooled feature and logits."""
    if name.startswith(MODERN):
        from tests.models import torch_modern

        return lambda x: torch_modern.run(name, model, x)
    maps = {}
    for own, module in _taps(name, model).items():
        module.register_forward_hook(
            lambda m, i, o, own=own: maps.__setitem__(own, o.detach().clone())
        )

    def run(x):
        logits, found = model(x), {}
        for own, value in maps.items():
            value = value.relu() if name.startswith("densenet") and own == "stage4" else value
            found[own] = value.permute(0, 2, 3, 1)
        last = max(own for own in maps if own.startswith("stage"))
        return {**found, "pooled": found[last].mean((1, 2)), "logits": logits}

    return run


def _filled(model, arrays):
    """A network in float64 with these arrays."""
    import torch

    model.double().load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in arrays.items()})
    return model


def _nchw(images):
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def theirs(name, arrays):
    import torch

    images, labels = batch(name)
    model = _filled(_torch_model(name), arrays)
    run, x, found = _run(name, model), _nchw(images), {}
    for mode in ("eval", "train"):
        model.train(mode == "train")
        outputs = run(x)
        logits = outputs["logits"]
        found |= {f"{mode}/{own}": value.detach().numpy() for own, value in outputs.items()}
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    # Gradients and statistics under the keys of a weights file, so that the port places them.
    state = {k: b.numpy().astype(np.float32) for k, b in model.named_buffers()}
    state |= {
        k: p.grad.numpy().astype(np.float32)
        for k, p in model.named_parameters()
        if p.grad is not None  # DINOv2's token of hidden patches
    }
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        safetensors.numpy.save_file(
            {k: np.ascontiguousarray(v) for k, v in state.items()}, file.name
        )
        placed = load(name, file.name)
    found |= leaves("gradient", nnx.state(placed, nnx.Param))
    return found | leaves("after", nnx.state(placed, nnx.BatchStat))


def _others(name):
    """Shapes by another library's keys, and projections of what it says; whether ours says so."""
    from tests.models import torch_modern

    if (made := torch_modern.other(name)) is None:
        return {}
    model, call = made
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    arrays = weights(shapes)
    _filled(model.eval(), arrays)
    wanted = call(_nchw(other_images(name))).detach().numpy()
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        safetensors.numpy.save_file(arrays, file.name)
        with jax.enable_x64(True):
            found = others(name, file.name, jnp.float64)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    print(f"{name:13} float64 {'others':9} {error:.1e}  by {type(model).__name__}'s keys")
    return {"shapes": shapes, "said": _shorter(projections("others", wanted)), "error": error}


def _shorter(numbers):
    """To ten digits."""
    return [float(f"{number:.10g}") for number in numbers]


def errors(found, wanted, group):
    """‖found − wanted‖ / ‖wanted‖ by name.

    A gradient that is zero on paper is compared with the largest one's thousandth.
    """
    names = [name for name in wanted if name.startswith(group)]
    norms = {name: np.linalg.norm(wanted[name]) for name in names}
    floor = 1e-3 * max(norms.values(), default=0) if group == "gradient" else 0
    return {
        n: float(np.linalg.norm(found[n] - wanted[n]) / max(norms[n], floor, 1e-30)) for n in names
    }


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    golden, worst = read() if options.names else {}, {}
    torchvision()
    import timm

    for name in options.names or NAMES:
        shapes = {k: list(v.shape) for k, v in _torch_model(name).state_dict().items()}
        arrays = weights(shapes)
        path = pathlib.Path(tempfile.gettempdir()) / f"golden-{name}.safetensors"
        safetensors.numpy.save_file(arrays, path)
        wanted, found = theirs(name, arrays), {"float32": ours(name, path)}
        with jax.enable_x64(True):
            found["float64"] = ours(name, path, jnp.float64)
        path.unlink()
        for dtype, values in found.items():
            for group in ("eval", "train", "after", "gradient"):
                if measured := errors(values, wanted, group):
                    largest = max(measured, key=measured.get)
                    print(f"{name:13} {dtype} {group:9} {measured[largest]:.1e}  {largest}")
                    key = f"{group}, {dtype}"
                    worst[key] = max(worst.get(key, 0.0), measured[largest])
        if name.startswith(MODERN):
            arrays = {k: _shorter(projections(k, v)) for k, v in wanted.items()}
            golden[name] = {"reference": shapes, "arrays": arrays, "others": _others(name)}
            worst["others"] = max(worst.get("others", 0.0), golden[name]["others"].get("error", 0))
            continue
        timm_shapes = {}  # its Lite has other keys throughout, which are not read
        if not name.startswith("efficientnet"):
            there = timm.create_model(name).state_dict()
            timm_shapes = {k: list(v.shape) for k, v in there.items()}
        golden[name] = {
            "torchvision": shapes,
            "timm": {k: v for k, v in timm_shapes.items() if shapes.get(k) != v},
            "arrays": {k: projections(k, v) for k, v in wanted.items()},
        }
    print("worst:", {group: f"{value:.1e}" for group, value in worst.items()})
    if options.write:
        PATH.write_bytes(gzip.compress(json.dumps(golden).encode(), mtime=0))
    # In float32 a ReLU that falls on the other side of zero changes a gradient by a step, in
    # PyTorch as here: the gradients are judged in float64.
    worst.pop("gradient, float32")
    return int(any(value > TOLERANCE for value in worst.values()))


if __name__ == "__main__":
    sys.exit(_main())
