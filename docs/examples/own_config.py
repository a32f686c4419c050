"""A config of your own: fgjax train --config=own_config.py."""

import own_method

from fgjax.config import Config, Data, Optimizer, Training


def get_config(argument: str = "") -> Config:
    """`quick` shrinks it to seconds."""
    quick = argument == "quick"
    adamw = Optimizer("adamw", 2e-3, schedule="cosine", warmup_epochs=1)
    return Config(
        name="aircraft-means",
        backbone="resnet_small",
        data=Data(
            dataset="synthetic_aircraft/4" if quick else "synthetic_aircraft",
            image_size=32 if quick else 96,
            workers=0,
        ),
        method=own_method.Config(
            classifier=Training(epochs=1 if quick else 24, batch_size=32, optimizer=adamw)
        ),
    )
