"""HDCL as its paper trains it (sections 4.1 and 5.3), dataset by dataset, and its demo."""

import dataclasses
from functools import partial

from fgjax.config import Config, Data, Optimizer, Training
from fgjax.methods import hdcl
from fgjax.methods.shared import presets


def preset(dataset: str) -> Config:
    """Section 4.1: SGD 0.001 throughout, weight decay 5e-6, 100 epochs, batch 60, 280 px.

    From the first author's code: last stage of stride 1, max ‖ average pooling, clipping at 5; the
    shorter side is resized, and a square of the image is seen.
    """
    sgd = Optimizer("sgd", 1e-3, weight_decay=5e-6, schedule="constant", clip=5.0)
    return Config(
        backbone="resnet50",
        last_stride=1,
        pooling="max_average",
        data=Data(dataset=dataset, zero_shot=True, image_size=280, held_out=0.0),
        method=hdcl.Config(
            embedding=Training(epochs=100, batch_size=60, optimizer=sgd), square=True
        ),
    )


def demo() -> Config:
    """24 drawn variants of three families train, 24 of three other families are searched.

    From scratch: a softmax classifier of the training classes stands for ImageNet's weights.
    """
    training = partial(presets.adamw, warmup=1, batch_size=60, clip=5.0)
    data = dataclasses.replace(
        presets.drawn_aircraft(), dataset="synthetic_aircraft/30x8", zero_shot=True, held_out=0.0
    )
    return Config(
        backbone="resnet_small",
        pooling="max_average",
        data=data,
        method=hdcl.Config(
            start=training(20, 2e-3), embedding=training(20, 1e-3), beside_softmax=True
        ),
    )


def recognition(config: Config, *, demo: bool) -> None:
    """Section 5.3: batch 32, 400 epochs, weight decay 5e-4; softmax for 5 epochs first."""
    config.data.zero_shot = False
    config.pooling, config.last_stride = "average", 2
    method = config.method
    method.recognition, method.warmup_epochs = True, 5
    if not demo:
        config.data.image_size = 224
        sgd = Optimizer("sgd", 1e-3, weight_decay=5e-4, schedule="constant")
        method.embedding = Training(epochs=400, batch_size=32, optimizer=sgd)
        method.start = dataclasses.replace(method.start, epochs=0)


def small(config: Config, *, demo: bool) -> None:
    """Photographs on a laptop: see `fgjax.methods.shared.presets.small`.

    Found on held-out classes: where batch norm trains, too, the frozen features get worse. To
    recognise known classes it trains as cross-entropy does there, the first passes by softmax.
    """
    presets.small(config, demo=demo)
    if config.method.recognition:
        config.method.warmup_epochs = 2
        config.method.embedding = presets.adamw(8, 1e-3)
        return
    config.freeze += ",batch_norms"
    config.method.alpha = 16.0
    config.method.square = False  # as the published rows were measured
    config.method.embedding = presets.adamw(3, 3e-4, batch_size=60)


_DATASETS = ("fgvc_aircraft", "cub", "cars", "dogs", "flowers", "pets", "folder")
PRESETS = {name: preset for name in _DATASETS}
DEMO = demo
FLAGS = {"recognition": recognition, "small": small, "paper": presets.paper}
