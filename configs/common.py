"""What the config files share: reading the argument, and each method as its paper trains it."""

import dataclasses
from collections.abc import Callable

from fgjax.config import Config, Data, Optimizer, Training
from fgjax.errors import UserError
from fgjax.methods import ccfr, ghns, hdcl, lapm
from fgjax.methods.stages.parts import Grouping
from fgjax.methods.stages.reranking import Reranking

RESNET50 = "timm/resnet50.tv_in1k"


def parse(argument: str, *, methods: tuple[str, ...], flags: tuple[str, ...]):
    """Method and flags of a comma list such as `lapm,demo`; the first method is the default.

    Raises:
      UserError: a word is neither.
    """
    words = [word for word in (argument or "").split(",") if word]
    for word in words:
        if word not in (*methods, *flags):
            listed = f"; flags are {', '.join(flags)}" if flags else ""
            raise UserError(
                f"{word!r} is neither a method nor a flag of this config: methods are "
                f"{', '.join(methods)}{listed}."
            )
    chosen = [word for word in words if word in methods]
    if len(chosen) > 1:
        raise UserError(f"this config got two methods, {' and '.join(chosen)}: name one.")
    return (chosen or list(methods[:1]))[0], frozenset(words) - set(chosen)


def refuse(condition: bool, why: str) -> None:
    """Raise UserError with the reason if the condition holds."""
    if condition:
        raise UserError(why)


def choose(
    argument: str,
    name: str,
    methods: dict[str, Callable[[], Config]],
    demos: dict[str, Callable[[], Config]] | None = None,
) -> Config:
    """The config of an argument: its method as the paper trains it, or that method's demo.

    Args:
      argument: such as `hdcl,recognition`.
      name: of the dataset, for the workdir.
      methods: by name; the first one is the default.
      demos: by name, for the flag `demo`.

    Raises:
      UserError: a word of the argument is unknown or does not fit the others.
    """
    demos = demos or {}
    flags = ("demo",) * bool(demos) + ("recognition",) * ("hdcl" in methods)
    method, found = parse(argument, methods=tuple(methods), flags=flags)
    refuse("recognition" in found and method != "hdcl", "recognition is a flag of hdcl.")
    config = (demos if "demo" in found else methods)[method]()
    if "recognition" in found:
        for_recognition(config, demo="demo" in found)
    config.name = "-".join([name, method, *sorted(found)])
    return config


def sgd_for(epochs: int) -> Optimizer:
    """SGD of 0.001, a tenth of it in the second half: where the papers say nothing."""
    return Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.1, decay_epochs=max(epochs // 2, 1))


def _localizer(part_size: int) -> dict:
    """The stages before LAPM's and GHNS's own; part boxes of `part_size` of 448 px (MA-CNN)."""
    return {
        "classifier": Training(epochs=60, batch_size=16, optimizer=sgd_for(60)),
        "grouping": Grouping(
            part_size=part_size / 448,
            warmup=Training(epochs=30, batch_size=16, optimizer=sgd_for(30)),
        ),
    }


def lapm_of(dataset: str, *, lambda_: float, alpha: float = 1.0, part_size: int = 96) -> Config:
    """LAPM's section IV.B: SGD, 0.001 × 0.09 every 50 epochs.

    The paper leaves open: crops of 448 px, batch 16, momentum 0.9, weight decay 1e-4, 200 epochs.
    """
    sgd = Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.09, decay_epochs=50)
    return Config(
        backbone="resnet50",
        pretrained=RESNET50,
        data=Data(dataset=dataset, image_size=448),
        method=lapm.Config(
            lambda_=lambda_,
            alpha=alpha,
            margin=Training(epochs=200, batch_size=16, optimizer=sgd),
            **_localizer(part_size),
        ),
    )


def ghns_of(
    dataset: str,
    *,
    hard_negatives: int,
    fusion: tuple[float, float, float],
    weights: tuple[float, float, float] = (1.0, 0.8, 1.0),
    part_size: int = 96,
) -> Config:
    """GHNS's section 4.2: SGD, 0.05 × 0.09 every 40 epochs; 300, 200 and 200 epochs.

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
        pretrained=RESNET50,
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
            **_localizer(part_size),
        ),
    )


def hdcl_of(dataset: str) -> Config:
    """HDCL's section 4.1: SGD 0.001 throughout, weight decay 5e-6, 100 epochs, batch 60, 280 px.

    From the first author's code: last stage of stride 1, max ‖ average pooling, clipping at 5.
    """
    sgd = Optimizer("sgd", 1e-3, weight_decay=5e-6, schedule="constant", clip=5.0)
    return Config(
        backbone="resnet50",
        pretrained=RESNET50,
        last_stride=1,
        pooling="max_average",
        data=Data(dataset=dataset, zero_shot=True, image_size=280, held_out=0.0),
        method=hdcl.Config(embedding=Training(epochs=100, batch_size=60, optimizer=sgd)),
    )


def ccfr_of(dataset: str, *, probability_threshold: float) -> Config:
    """CCFR's section 4.2: batch 16, SGD 0.001 × 0.1 every 30 epochs, weight decay 1e-4.

    `probability_threshold` is the preset of T_sf. The paper leaves open: 60 epochs of each stage,
    momentum 0.9.
    """

    def training() -> Training:
        sgd = Optimizer("sgd", 1e-3, schedule="step", decay_rate=0.1, decay_epochs=30)
        return Training(epochs=60, batch_size=16, optimizer=sgd)

    return Config(
        backbone="resnet50",
        pretrained=RESNET50,
        data=Data(dataset=dataset, image_size=448),
        method=ccfr.Config(
            rerank=Reranking(probability_threshold=probability_threshold),
            classifier=Training(epochs=60, batch_size=16, optimizer=sgd_for(60)),
            pretrain=training(),
            navigator=training(),
            enhance=training(),
        ),
    )


def for_recognition(config: Config, *, demo: bool) -> None:
    """HDCL's section 5.3: batch 32, 400 epochs, weight decay 5e-4; softmax for 5 epochs first."""
    config.data.zero_shot = False
    config.pooling, config.last_stride = "average", 2
    method = config.method
    method.recognition, method.warmup_epochs = True, 5
    if not demo:
        config.data.image_size = 224
        sgd = Optimizer("sgd", 1e-3, weight_decay=5e-4, schedule="constant")
        method.embedding = Training(epochs=400, batch_size=32, optimizer=sgd)
        method.start = dataclasses.replace(method.start, epochs=0)
