"""GHNS as its paper trains it (section 4.2), dataset by dataset, and its demo."""

from functools import partial

from fgjax.config import Config, Data, Optimizer, Training
from fgjax.methods import ghns
from fgjax.methods.shared import presets


def preset(
    dataset: str,
    *,
    hard_negatives: int,
    fusion: tuple[float, float, float],
    weights: tuple[float, float, float] = (1.0, 0.8, 1.0),
    part_size: int = 96,
) -> Config:
    """SGD, 0.05 × 0.09 every 40 epochs; 300, 200 and 200 epochs.

    `weights` are α, β, γ, `fusion` the preset of a, b, c. The paper leaves open: image sizes, batch
    16, momentum 0.9, weight decay 1e-4.
    """

    def training(epochs: int) -> Training:
        sgd = Optimizer("sgd", 0.05, schedule="step", decay_rate=0.09, decay_epochs=40)
        return Training(epochs=epochs, batch_size=16, optimizer=sgd)

    alpha, beta, gamma = weights
    original, object_, parts = fusion
    return Config(
        backbone="resnet50",
        data=Data(dataset=dataset, image_size=448),
        method=ghns.Config(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            hard_negatives=hard_negatives,
            fusion_original=original,
            fusion_object=object_,
            fusion_parts=parts,
            part_networks=training(300),
            filter=training(200),
            parts_classifier=training(200),
            image_classifiers=training(200),
            **presets.localizer(part_size),
        ),
    )


def demo() -> Config:
    """On the drawn aircraft; stages classifier, objects and parts are those of LAPM's demo."""
    return Config(
        backbone="resnet_small",
        data=presets.drawn_aircraft(),
        method=ghns.Config(
            part_image_size=48,
            extractors="frozen",
            embedding=128,
            unit_features=False,  # its weak parts would pass no filter of them
            hard_negatives=100,
            part_networks=presets.adamw(16, 2e-3),
            filter=presets.adamw(30, 3e-3),
            parts_classifier=presets.adamw(30, 1e-3),
            image_classifiers=presets.adamw(8, 2e-3, batch_size=16),
            **presets.drawn_localizer(),
        ),
    )


def small(config: Config, *, demo: bool) -> None:
    """Photographs on a laptop: see `fgjax.methods.shared.presets.small`.

    Larger parts, centres between the map's cells and crops of their own: by held-out images.
    """
    presets.small(config, demo=demo)
    method = config.method
    presets.small_localizer(method)
    method.grouping.centers, method.grouping.part_size = "refined", 0.45
    method.own_crops = True
    method.part_image_size = 64
    method.extractors, method.embedding = "frozen", 128
    method.part_networks = presets.adamw(4, 1e-3)
    method.filter = presets.adamw(20, 3e-3)
    method.parts_classifier = presets.adamw(20, 1e-3)
    method.image_classifiers = presets.adamw(4, 1e-3)


def paper(config: Config, *, demo: bool) -> None:
    """No held-out images, and the weights of the fusion as printed (Eq. 11)."""
    presets.paper(config, demo=demo)
    config.method.fusion = "preset"


PRESETS = {
    "fgvc_aircraft": partial(preset, hard_negatives=200, fusion=(0.4, 0.4, 0.2)),
    "cub": partial(preset, hard_negatives=150, fusion=(0.3, 0.3, 0.4), part_size=128),
    "cars": partial(preset, hard_negatives=200, fusion=(0.5, 0.2, 0.3)),
    "deepfashion": partial(
        preset, hard_negatives=150, fusion=(0.35, 0.3, 0.35), weights=(1.0, 1.0, 0.5)
    ),
    "folder": partial(preset, hard_negatives=200, fusion=(0.4, 0.4, 0.2)),  # FGVC-Aircraft's
}
DEMO = demo
FLAGS = {"small": small, "paper": paper}
