"""FGVC-Aircraft: which of 100 variants.

    python train.py --config=configs/aircraft.py            LAPM, ResNet-50, 448 px
    python train.py --config=configs/aircraft.py:demo       LAPM on the built-in aircraft
    python train.py --config=configs/aircraft.py:ghns       GHNS, five ResNet-50
    python train.py --config=configs/aircraft.py:ghns,demo  GHNS on the built-in aircraft
    python train.py --config=configs/aircraft.py:hdcl       HDCL, zero-shot retrieval, 280 px
    python train.py --config=configs/aircraft.py:hdcl,demo  HDCL on the built-in aircraft
    python train.py --config=configs/aircraft.py:hdcl,recognition

| method | paper | ours | runtime |
|---|---|---|---|
| lapm, ResNet-50 | 94.43 (LAPM Table 3) | not measured: the dataset was not at hand | — |
| lapm, VGG-16 | 93.08 | likewise | — |
| lapm,demo | — | 84.2, built-in test split, seed 0 (README) | 6 minutes on two CPU cores |
| hdcl, ResNet-50, Recall@1 | 71.1 (HDCL Table 4) | not measured | — |
| hdcl,demo, Recall@1 | — | 46.2, unseen built-in variants, seed 0 | 4 minutes on two CPU cores |
| hdcl,recognition, ResNet-50, top-1 | 78.7, softmax 82.1 (HDCL Table 7) | not measured | — |
"""

from configs import common
from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.methods import ghns, hdcl, lapm
from fgjax.methods.stages.parts import Grouping


def get_config(argument: str = "") -> Config:
    """`lapm`, `ghns`, `hdcl`; `demo` for built-in data and a small network; `hdcl,recognition`."""
    known = ("demo", "recognition")
    method, flags = common.parse(argument, methods=("lapm", "ghns", "hdcl"), flags=known)
    common.refuse("recognition" in flags and method != "hdcl", "recognition is a flag of hdcl.")
    make = {
        ("lapm", False): _lapm, ("lapm", True): _lapm_demo,
        ("ghns", False): _ghns, ("ghns", True): _ghns_demo,
        ("hdcl", False): _hdcl, ("hdcl", True): _hdcl_demo,
    }[method, "demo" in flags]  # fmt: skip
    config = make()
    if "recognition" in flags:
        _for_recognition(config, demo="demo" in flags)
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


def _ghns() -> Config:
    # Section 4.2: SGD, 0.05 × 0.09 every 40 epochs; 300, 200 and 200 epochs; 200 hard negatives of
    # each class, fusion (0.4, 0.4, 0.2). Left open: sizes, batch, momentum, decay of weights.
    def training(epochs: int) -> Training:
        sgd = Optimizer("sgd", 0.05, schedule="step", decay_rate=0.09, decay_epochs=40)
        return Training(epochs=epochs, batch_size=16, optimizer=sgd)

    return Config(
        backbone="resnet50",
        pretrained="timm/resnet50.tv_in1k",
        data=Data(dataset="fgvc_aircraft", image_size=448),
        method=ghns.Config(
            classifier=Training(epochs=60, batch_size=16, optimizer=_sgd_for(60)),
            grouping=Grouping(warmup=Training(epochs=30, batch_size=16, optimizer=_sgd_for(30))),
            part_networks=training(300),
            filter=training(200),
            parts_classifier=training(200),
            image_classifiers=training(200),
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
        image_classifiers=training(8, 1e-3),
    )
    return config


def _hdcl() -> Config:
    # Section 4.1: SGD 0.001 throughout, weight decay 5e-6, 100 epochs, batch 60, crops of 280 px.
    # The first author's code: last stage of stride 1, max ‖ average pooling, clipping at 5.
    sgd = Optimizer("sgd", 1e-3, weight_decay=5e-6, schedule="constant", clip=5.0)
    return Config(
        backbone="resnet50",
        pretrained="timm/resnet50.tv_in1k",
        last_stride=1,
        pooling="max_average",
        data=Data(dataset="fgvc_aircraft", zero_shot=True, image_size=280, held_out=0.0),
        method=hdcl.Config(embedding=Training(epochs=100, batch_size=60, optimizer=sgd)),
    )


def _for_recognition(config: Config, *, demo: bool) -> None:
    # Section 5.3: batch 32, 400 epochs, weight decay 5e-4; softmax first (5 epochs, its advice).
    config.data.zero_shot = False
    config.pooling, config.last_stride = "average", 2
    method = config.method
    method.recognition, method.warmup_epochs = True, 5
    if not demo:
        config.data.image_size = 224
        sgd = Optimizer("sgd", 1e-3, weight_decay=5e-4, schedule="constant")
        method.embedding = Training(epochs=400, batch_size=32, optimizer=sgd)


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
