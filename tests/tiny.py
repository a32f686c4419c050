"""LAPM's demo, shrunk to seconds."""

from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.methods import lapm
from fgjax.methods.shared.parts import Grouping


def shrink(data_dir: str, *, epochs: int = 1) -> Config:
    """LAPM's demo on four images a class at 32 px."""

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
