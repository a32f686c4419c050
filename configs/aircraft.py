"""FGVC-Aircraft: which of 100 variants.

    python train.py --config=configs/aircraft.py            LAPM, ResNet-50, 448 px
    python train.py --config=configs/aircraft.py:demo       LAPM on the built-in aircraft

| method | paper | ours | runtime |
|---|---|---|---|
| lapm, ResNet-50 | 94.43 (LAPM Table 3) | not measured: the dataset was not at hand | — |
| lapm, VGG-16 | 93.08 | likewise | — |
| lapm,demo | — | 79.0, built-in test split, seed 0 (README) | 6 minutes on two CPU cores |
"""

from configs import common
from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.methods import lapm
from fgjax.methods.stages.parts import Grouping


def get_config(argument: str = "") -> Config:
    """`lapm`, with `demo` for the built-in data and a small network."""
    method, flags = common.parse(argument, methods=("lapm",), flags=("demo",))
    config = {"lapm": _lapm_demo if "demo" in flags else _lapm}[method]()
    config.name = "-".join(["aircraft", method, *sorted(flags)])
    return config


def _lapm() -> Config:
    # Section IV.B: SGD, 0.001 × 0.09 every 50 epochs, α 1.0, λ 0.8. The paper leaves open: crops of
    # 448 px, batch 16, momentum 0.9, weight decay 1e-4, 200 epochs.
    sgd = Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.09, decay_epochs=50)
    return Config(
        backbone="resnet50",
        pretrained="timm/resnet50.tv_in1k",
        data=Data(dataset="fgvc_aircraft", image_size=448),
        method=lapm.Config(
            lambda_=0.8,
            alpha=1.0,
            classifier=Training(epochs=60, batch_size=16, optimizer=_sgd_for(60)),
            grouping=Grouping(warmup=Training(epochs=30, batch_size=16, optimizer=_sgd_for(30))),
            margin=Training(epochs=200, batch_size=16, optimizer=sgd),
        ),
    )


def _sgd_for(epochs: int) -> Optimizer:
    return Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.1, decay_epochs=max(epochs // 2, 1))


def _lapm_demo() -> Config:
    # From scratch on 1,296 images: AdamW takes off where plain SGD memorises; distances between
    # unit vectors keep the pair loss in proportion. No flips: with one heading, left and right of
    # a crop mean the same part everywhere.
    def training(epochs: int, rate: float, warmup: float, batch_size: int = 32) -> Training:
        adamw = Optimizer("adamw", rate, schedule="cosine", warmup_epochs=warmup)
        return Training(epochs, batch_size, adamw)

    return Config(
        backbone="resnet_small",
        data=Data(
            dataset="synthetic_aircraft",
            image_size=96,
            augmentation=Augmentation(crop_scale=0.875, flip=False, color=True),
            workers=0,
        ),
        method=lapm.Config(
            objects="scda",
            scda_threshold=1.3,
            lambda_=0.8,
            l2norm=True,
            fixed_m1=0.5,
            fixed_m2=0.75,
            samples=128,
            classifier=training(24, 2e-3, 2),
            grouping=Grouping(
                part_size=0.3,
                warmup=training(6, 1e-3, 0.5),
                rounds=1,
                classify_epochs=1,
                group_epochs=2,
            ),
            margin=training(14, 2e-3, 0.5, batch_size=16),
        ),
    )
