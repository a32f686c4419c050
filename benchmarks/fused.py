"""What GHNS's fused prediction costs: three part networks, object and original classifier.

    PYTHONPATH=. python benchmarks/fused.py

Milliseconds per image of the five networks with the fusion of their scores, medians; and of what
comes before them: the classifier whose CAM finds the object, and the part localizer.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax import compilation, models
from fgjax.localization import cam
from fgjax.methods.ghns.part_networks import PartNetworks, PartsClassifier, PartsHead
from fgjax.methods.shared.parts import PartNetwork

WEIGHTS = (0.4, 0.4, 0.2)


def build(backbone, classes=100):
    rngs = nnx.Rngs(0)
    make = lambda: models.build(backbone, num_classes=classes, rngs=rngs)  # noqa: E731
    networks = PartNetworks([make() for _ in range(3)], rngs=rngs)
    head = PartsHead(3 * networks.backbones[0].features, classes, embedding=0, rngs=rngs)
    system = nnx.List([make(), make(), PartsClassifier(networks, head)])
    finders = nnx.List([make(), PartNetwork(make(), 3, rngs=rngs)])
    system.eval()
    finders.eval()
    return system, finders


def fused(system, whole, crops, parts):
    original, object_, of_parts = system
    logits = (
        original(whole)["logits"],
        object_(crops)["logits"],
        of_parts.head(of_parts.features({"image": parts})),
    )
    return sum(w * jax.nn.softmax(o) for w, o in zip(WEIGHTS, logits))


def located(finders, whole, crops, parts):
    classifier, localizer = finders
    outputs = classifier(whole)
    label = jnp.argmax(outputs["logits"], axis=-1)
    features = models.last_map(outputs)
    activation = cam.class_activation_map(features, classifier.fc.kernel[...], label)
    return activation, localizer(crops)["centers"]


def milliseconds(function, model, batch, turns):
    graph, state = nnx.split(model)
    step = compilation.jit(lambda state, *images: function(nnx.merge(graph, state), *images))
    times = []
    jax.block_until_ready(step(state, *batch))
    for _ in range(turns):
        began = time.perf_counter()
        jax.block_until_ready(step(state, *batch))
        times.append(time.perf_counter() - began)
    return 1e3 * np.median(times) / len(batch[0])


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--backbones", nargs="*", default=["resnet50", "vgg16"])
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}\n\n| network | batch | five networks, ms an image | "
          "finding object and parts |\n|---|---|---|---|")  # fmt: skip
    rng = np.random.default_rng(0)
    for name in options.backbones:
        system, finders = build(name)
        for size in (1, 8):
            draw = lambda *shape: rng.integers(0, 255, shape, np.uint8)  # noqa: E731
            batch = (draw(size, 448, 448, 3), draw(size, 448, 448, 3),
                     draw(size, 3, 224, 224, 3))  # fmt: skip
            five = milliseconds(fused, system, batch, options.turns)
            before = milliseconds(located, finders, batch, options.turns)
            print(f"| {name} | {size} | {five:.0f} | {before:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(_main())
