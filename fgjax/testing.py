"""Small experiments for tests and notebooks: any config, shrunk to seconds."""

import dataclasses
from typing import Any

from fgjax.config import Augmentation, Config, Data, Optimizer, Training


def shrink_in_place(settings: Any, *, epochs: int = 1, batch_size: int = 8) -> None:
    """Cut every `Training` inside a dataclass to `epochs` and `batch_size`."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Training):
            value.epochs, value.batch_size = min(value.epochs, epochs), batch_size
        elif dataclasses.is_dataclass(value):
            shrink_in_place(value, epochs=epochs, batch_size=batch_size)


def shrink(data_dir: str, *, epochs: int = 1) -> Config:
    """LAPM's demo on four images a class at 32 px."""
    from fgjax.methods import lapm
    from fgjax.methods.shared.parts import Grouping

    def training() -> Training:
        return Training(epochs, 8, Optimizer("adamw", 1e-3, schedule="constant"))

    return Config(
        name="tiny",
        backbone="resnet_small",
        data=Data(
            dataset="synthetic_aircraft/4",
            data_dir=data_dir,
            image_size=32,
            augmentation=Augmentation(flip=False, color=True),
            held_out=0.25,
            workers=0,
        ),
        method=lapm.Config(
            objects="scda",
            samples=8,
            l2norm=True,
            classifier=training(),
            grouping=Grouping(
                part_size=0.3, warmup=training(), rounds=1, classify_epochs=1, group_epochs=1
            ),
            margin=training(),
        ),
    )
