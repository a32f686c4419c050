"""The probe, dataset by dataset, and on the drawn aircraft."""

from fgjax.config import Config, Data
from fgjax.methods import probe
from fgjax.methods.shared import presets


def preset(dataset: str) -> Config:
    """EfficientNet-Lite0 at the size that it was trained at; all training images are used."""
    return Config(
        backbone="efficientnet_lite0",
        data=Data(dataset=dataset, image_size=224, held_out=0.0, workers=0),
        method=probe.Config(),
    )


def demo() -> Config:
    """ImageNet's features of drawn aircraft."""
    data = presets.drawn_aircraft()
    data.held_out = 0.0
    return Config(backbone="efficientnet_lite0", data=data, method=probe.Config())


def small(config: Config, *, demo: bool) -> None:
    """At the size of the other methods' `small`."""
    presets.small(config, demo=demo)
    config.freeze = ""  # nothing is trained anyway


_DATASETS = ("fgvc_aircraft", "cub", "cars", "deepfashion", "dogs", "flowers", "pets", "folder")
PRESETS = {name: preset for name in _DATASETS}
DEMO = demo
FLAGS = {"small": small}
