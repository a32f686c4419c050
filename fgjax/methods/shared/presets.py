"""What the papers' presets have in common, and those of the drawn demos."""

from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.errors import UserError
from fgjax.methods.shared.localization import Localization
from fgjax.methods.shared.parts import Grouping

FROZEN = "stem,stage1,stage2,stage3"


def sgd_for(epochs: int) -> Optimizer:
    """SGD of 0.001, a tenth of it in the second half: where the papers say nothing."""
    return Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.1, decay_epochs=max(epochs // 2, 1))


def localizer(part_size: int) -> dict:
    """The stages before LAPM's and GHNS's own; part boxes of `part_size` of 448 px (MA-CNN)."""
    return {
        "classifier": Training(epochs=60, batch_size=16, optimizer=sgd_for(60)),
        "grouping": Grouping(
            part_size=part_size / 448,
            warmup=Training(epochs=30, batch_size=16, optimizer=sgd_for(30)),
        ),
    }


def adamw(
    epochs: int, rate: float, *, warmup: float = 0.5, batch_size: int = 32, clip: float = 0.0
) -> Training:
    """How the demos train: from scratch, AdamW takes off where plain SGD memorises."""
    schedule = {"schedule": "cosine", "warmup_epochs": warmup, "clip": clip}
    return Training(epochs, batch_size, Optimizer("adamw", rate, **schedule))


def small(config: Config, *, demo: bool) -> None:
    """What the flag `small` changes for every method: photographs on a laptop.

    EfficientNet-Lite0 from ImageNet at 128 px, whose early blocks stay as they are.

    Raises:
      UserError: together with `demo`.
    """
    if demo:
        raise UserError(
            "small is for photographs and demo for the drawn aircraft: name one of them."
        )
    config.backbone = "efficientnet_lite0"
    config.freeze = FROZEN
    config.data.image_size, config.data.workers = 128, 0
    if config.data.held_out:
        config.data.held_out = 0.1


def paper(config: Config, *, demo: bool) -> None:
    """What the flag `paper` changes for every method: all training images train, none choose.

    The papers hold no images out; what a search on them would find is the preset's. Beside `demo`
    or `small` it changes nothing else of these.
    """
    del demo
    config.data.held_out = 0.0


def small_localizer(config: Localization) -> None:
    """What `small` changes in the stages before LAPM's and GHNS's own: the same, to be shared."""
    config.classifier = adamw(3, 1e-3)
    config.grouping.warmup = adamw(1, 3e-4)
    config.grouping.rounds, config.grouping.classify_epochs = 1, 1
    config.grouping.group_epochs = 1
    config.grouping.part_size = 0.3


def drawn_aircraft() -> Data:
    """The demos' data. No flips: with one heading, left and right mean the same part everywhere."""
    return Data(
        dataset="synthetic_aircraft",
        image_size=96,
        augmentation=Augmentation(crop_scale=0.875, flip=False, color=True),
        workers=0,
    )


def drawn_localizer() -> dict:
    """The stages before LAPM's and GHNS's own, in the demos: the same, so that runs share them."""
    return {
        "objects": "scda",
        "scda_threshold": 1.3,
        "classifier": adamw(24, 2e-3, warmup=2),
        "grouping": Grouping(
            part_size=0.3,
            size_of="crop",
            compact_share=0.7,  # all of them head the same way
            warmup=adamw(6, 1e-3),
            rounds=1,
            classify_epochs=1,
            group_epochs=2,
        ),
    }
