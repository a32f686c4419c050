"""LAPM as its paper trains it (section IV.B), dataset by dataset, and its demo."""

from functools import partial

from fgjax.config import Config, Data, Optimizer, Training
from fgjax.methods import lapm
from fgjax.methods.shared import presets


def preset(
    dataset: str,
    *,
    lambda_: float,
    alpha: float = 1.0,
    part_size: int = 96,
    held_out: float = 0.0,
) -> Config:
    """SGD, 0.001 × 0.09 every 50 epochs; nothing is selected, so all training images train.

    The paper leaves open: crops of 448 px, batch 16, momentum 0.9, weight decay 1e-4, 200 epochs.
    """
    sgd = Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.09, decay_epochs=50)
    return Config(
        backbone="resnet50",
        data=Data(dataset=dataset, image_size=448, held_out=held_out),
        method=lapm.Config(
            lambda_=lambda_,
            alpha=alpha,
            margin=Training(epochs=200, batch_size=16, optimizer=sgd),
            **presets.localizer(part_size),
        ),
    )


def demo() -> Config:
    """From scratch on 1,296 drawn images; unit vectors keep the pair loss in proportion."""
    return Config(
        backbone="resnet_small",
        data=presets.drawn_aircraft(),
        method=lapm.Config(
            lambda_=0.8,
            l2norm=True,
            samples=128,
            margin=presets.adamw(14, 2e-3, batch_size=16),
            **presets.drawn_localizer(),
        ),
    )


def small(config: Config, *, demo: bool) -> None:
    """Photographs on a laptop: see `fgjax.methods.shared.presets.small`."""
    presets.small(config, demo=demo)
    method = config.method
    presets.small_localizer(method)
    config.data.held_out, method.l2norm = 0.1, True
    method.lambda_ = 0.9  # chosen on held-out images of CUB-100: docs/photographs.md
    method.margin = presets.adamw(2, 1e-3, batch_size=8)


PRESETS = {
    "fgvc_aircraft": partial(preset, lambda_=0.8),
    "cub": partial(preset, lambda_=0.75, part_size=128),
    "cars": partial(preset, lambda_=0.8, alpha=1.2),
    "deepfashion": partial(preset, lambda_=0.75),
    "folder": partial(preset, lambda_=0.8, held_out=0.1),  # FGVC-Aircraft's values
}
DEMO = demo
FLAGS = {"small": small, "paper": presets.paper}
