"""CCFR as its paper trains it (section 4.2), dataset by dataset, and its demo."""

from functools import partial

from fgjax.config import Config, Data, Optimizer, Training
from fgjax.methods import ccfr
from fgjax.methods.ccfr.reranking import Reranking
from fgjax.methods.shared import presets


def preset(dataset: str, *, probability_threshold: float = 0.7) -> Config:
    """Batch 16, SGD 0.001 × 0.1 every 30 epochs, weight decay 1e-4.

    `probability_threshold` is the preset of T_sf. The paper leaves open: 60 epochs of each stage,
    momentum 0.9.
    """

    def training() -> Training:
        sgd = Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.1, decay_epochs=30)
        return Training(epochs=60, batch_size=16, optimizer=sgd)

    return Config(
        backbone="resnet50",
        data=Data(dataset=dataset, image_size=448),
        method=ccfr.Config(
            rerank=Reranking(probability_threshold=probability_threshold),
            classifier=Training(epochs=60, batch_size=16, optimizer=presets.sgd_for(60)),
            pretrain=training(),
            navigator=training(),
            enhance=training(),
        ),
    )


def demo() -> Config:
    """On the drawn aircraft: 12 × 12 and 6 × 6 anchors; from scratch, so random regions first."""
    return Config(
        backbone="resnet_small",
        data=presets.drawn_aircraft(),
        method=ccfr.Config(
            crop_size=40,
            pyramid_width=64,
            explore_epochs=4,
            beside_nts=True,
            classifier=presets.adamw(16, 2e-3, warmup=2),
            pretrain=presets.adamw(10, 2e-3),
            navigator=presets.adamw(8, 2e-3),
            enhance=presets.adamw(8, 1e-3),
        ),
    )


def small(config: Config, *, demo: bool) -> None:
    """Photographs on a laptop: see `fgjax.methods.shared.presets.small`."""
    presets.small(config, demo=demo)
    method = config.method
    method.crop_size, method.pyramid_width = 64, 64
    method.classifier = presets.adamw(3, 1e-3)
    method.pretrain = presets.adamw(5, 1e-3)
    method.navigator = presets.adamw(1, 1e-3)
    method.enhance = presets.adamw(2, 2e-4)


def paper(config: Config, *, demo: bool) -> None:
    """No held-out images, and the thresholds of section 4.2."""
    presets.paper(config, demo=demo)
    config.method.rerank.thresholds = "preset"


PRESETS = {
    "fgvc_aircraft": preset,
    "cub": partial(preset, probability_threshold=0.5),
    # The paper did not try the others: FGVC-Aircraft's values.
    **dict.fromkeys(("cars", "deepfashion", "dogs", "flowers", "pets", "folder"), preset),
}
DEMO = demo
FLAGS = {"small": small, "paper": paper}
