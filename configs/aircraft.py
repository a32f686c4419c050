"""FGVC-Aircraft: which of 100 variants.

    python train.py --config=configs/aircraft.py            LAPM, ResNet-50, 448 px
    python train.py --config=configs/aircraft.py:demo       LAPM on the built-in aircraft
    python train.py --config=configs/aircraft.py:ghns       GHNS, five ResNet-50
    python train.py --config=configs/aircraft.py:ghns,demo  GHNS on the built-in aircraft
    python train.py --config=configs/aircraft.py:hdcl       HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/aircraft.py:hdcl,demo  HDCL on the built-in aircraft
    python train.py --config=configs/aircraft.py:hdcl,recognition
    python train.py --config=configs/aircraft.py:ccfr       CCFR, re-ranking by retrieval, 448 px
    python train.py --config=configs/aircraft.py:ccfr,demo  CCFR on the built-in aircraft

| method | paper | ours | runtime |
|---|---|---|---|
| lapm, ResNet-50 | 94.43 (LAPM Table 3) | not measured: the dataset was not at hand | — |
| lapm, VGG-16 | 93.08 | likewise | — |
| ghns, ResNet-50 | 94.40 (GHNS Table 3) | not measured | — |
| lapm,demo | — | 76.9, built-in test split, seed 0 (README) | 6 minutes on two CPU cores |
| ghns,demo | — | 66.9, built-in test split, seed 0 (README) | 7 minutes on two CPU cores |
| hdcl, ResNet-50, Recall@1 | 71.1 (HDCL Table 4) | not measured | — |
| hdcl,demo, Recall@1 | — | 49.9 (softmax 56.4), unseen variants, seed 0 | 6 minutes, likewise |
| ccfr, ResNet-50 | 94.1, without re-ranking 93.0 (CCFR Table 2) | not measured | — |
| ccfr,demo | — | 61.2, without re-ranking 60.0, built-in test split, seed 0 | 8 minutes, likewise |
| hdcl,recognition, ResNet-50, top-1 | 78.7, softmax 82.1 (HDCL Table 7) | not measured | — |
"""

import dataclasses

from configs import common
from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.methods import ccfr, ghns, hdcl, lapm
from fgjax.methods.stages.parts import Grouping


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns`, `hdcl`, `ccfr`; `demo`: built-in data, a small network; `recognition`."""
    name = "fgvc_aircraft"
    return common.choose(
        argument,
        "aircraft",
        {
            "lapm": lambda: common.lapm_of(name, lambda_=0.8),
            "ghns": lambda: common.ghns_of(name, hard_negatives=200, fusion=(0.4, 0.4, 0.2)),
            "hdcl": lambda: common.hdcl_of(name),
            "ccfr": lambda: common.ccfr_of(name, probability_threshold=0.7),
        },
        {"lapm": _lapm_demo, "ghns": _ghns_demo, "hdcl": _hdcl_demo, "ccfr": _ccfr_demo},
    )


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


def _ghns_demo() -> Config:
    # The stages classifier, objects and parts are LAPM's demo's: --config.reuse=… takes them.
    def training(epochs: int, rate: float, batch_size: int = 32) -> Training:
        adamw = Optimizer("adamw", rate, schedule="cosine", warmup_epochs=0.5)
        return Training(epochs, batch_size, adamw)

    config = _lapm_demo()
    shared = config.method
    config.method = ghns.Config(
        objects=shared.objects,
        scda_threshold=shared.scda_threshold,
        classifier=shared.classifier,
        grouping=shared.grouping,
        part_image_size=48,
        extractors="frozen",
        embedding=128,
        hard_negatives=100,
        part_networks=training(16, 2e-3),
        filter=training(30, 3e-3),
        parts_classifier=training(30, 1e-3),
        image_classifiers=training(8, 2e-3, batch_size=16),  # as LAPM's last stage
    )
    return config


def _hdcl_demo() -> Config:
    # From scratch: a softmax classifier of the training classes stands for ImageNet's weights. 24
    # variants of three families train, 24 of three other families are searched.
    def training(epochs: int, rate: float) -> Training:
        adamw = Optimizer("adamw", rate, schedule="cosine", warmup_epochs=1, clip=5.0)
        return Training(epochs, 60, adamw)

    return Config(
        backbone="resnet_small",
        pooling="max_average",
        data=Data(
            dataset="synthetic_aircraft/30x8",
            zero_shot=True,
            image_size=96,
            held_out=0.0,
            augmentation=Augmentation(crop_scale=0.875, flip=False, color=True),
            workers=0,
        ),
        method=hdcl.Config(
            start=training(20, 2e-3), embedding=training(20, 1e-3), beside_softmax=True
        ),
    )


def _ccfr_demo() -> Config:
    # 12 × 12 and 6 × 6 anchors. From scratch, so the pyramid looks at random regions first.
    def training(epochs: int, rate: float) -> Training:
        adamw = Optimizer("adamw", rate, schedule="cosine", warmup_epochs=0.5)
        return Training(epochs, 32, adamw)

    config = _lapm_demo()
    config.method = ccfr.Config(
        crop_size=40,
        pyramid_width=64,
        explore_epochs=4,
        beside_nts=True,
        classifier=dataclasses.replace(config.method.classifier, epochs=16),
        pretrain=training(10, 2e-3),
        navigator=training(8, 2e-3),
        enhance=training(8, 1e-3),
    )
    return config
