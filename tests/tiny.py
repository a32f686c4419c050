"""Experiments of seconds: each method on four images a class, with a network of three layers."""

import jax
from flax import nnx

from fgjax.config import Augmentation, Config, Data, Optimizer, Training
from fgjax.methods import ccfr, ghns, hdcl, lapm, probe
from fgjax.methods.shared.parts import Grouping
from fgjax.models import layers
from fgjax.models.backbone import Backbone, Options


class Net(Backbone):
    """Three convolutions: a tenth of the demo's network to compile, and maps of its sizes."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        widths = (16, 24, 32)
        super().__init__(widths[-1], options, rngs=rngs)
        conv = lambda *a, **k: layers.Conv(*a, **k, dtype=options.dtype, rngs=rngs)  # noqa: E731
        self.conv1 = conv(3, widths[0], 3, stride=2)
        self.conv2 = conv(widths[0], widths[1], 3, stride=2)
        self.conv3 = conv(widths[1], widths[2], 3, stride=options.last_stride)
        self.norms = nnx.List([layers.BatchNorm(width) for width in widths])

    def modules_of_maps(self) -> dict[str, tuple[str, ...]]:
        """A convolution and its norm."""
        return {f"stage{n}": (f"conv{n}", f"norms.{n - 1}") for n in (1, 2, 3)}

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Pixels [B, H, W, 3] to maps by name, `pooled` and `logits`."""
        x, outputs = self.normalize(images), {}
        convolutions = (self.conv1, self.conv2, self.conv3)
        for number, (conv, norm) in enumerate(zip(convolutions, self.norms), 1):
            x = jax.nn.relu(norm(conv(x)))
            outputs[f"stage{number}"] = x
        return self.classify(outputs, key)


def training(epochs: int = 1, batch_size: int = 8) -> Training:
    return Training(epochs, batch_size, Optimizer("adamw", 1e-3, schedule="constant"))


def shrink(data_dir: str, *, epochs: int = 1, backbone: str = "tests.tiny:Net") -> Config:
    """LAPM's demo on four images a class at 32 px."""
    return Config(
        name="tiny",
        backbone=backbone,
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
            classifier=training(epochs),
            grouping=Grouping(
                part_size=0.3,
                warmup=training(epochs),
                rounds=1,
                classify_epochs=1,
                group_epochs=1,
            ),
            margin=training(epochs),
        ),
    )


def ghns_config(data_dir: str) -> Config:
    """GHNS's demo likewise, with parts on a grid and frozen extractors."""
    config = shrink(data_dir)
    config.method = ghns.Config(
        objects="scda",
        parts="grid",
        classifier=training(),
        grouping=config.method.grouping,
        part_image_size=16,
        extractors="frozen",
        embedding=8,
        per_class=2,
        tau=0.05,
        hard_negatives=3,
        max_attempts=1024,
        part_networks=training(),
        filter=training(),
        parts_classifier=training(),
        image_classifiers=training(),
    )
    return config


def hdcl_config(data_dir: str) -> Config:
    """HDCL's demo likewise: 12 classes train, 12 are searched."""
    config = shrink(data_dir)
    config.data.zero_shot, config.data.held_out = True, 0.0
    config.pooling = "max_average"
    config.method = hdcl.Config(start=training(), embedding=training(), per_class=2)
    return config


def recognition_config(data_dir: str) -> Config:
    """HDCL as a classifier of all 24 classes, softmax in the first epoch."""
    config = hdcl_config(data_dir)
    config.data.zero_shot = False
    config.method.recognition, config.method.warmup_epochs = True, 1
    return config


def ccfr_config(data_dir: str) -> Config:
    """CCFR's demo likewise; anchors on grids of 4 and 2."""
    config = shrink(data_dir)
    config.method = ccfr.Config(
        crop_size=16,
        pyramid_width=8,
        per_class=2,
        classifier=training(batch_size=24),
        pretrain=training(batch_size=24),
        navigator=training(batch_size=24),
        enhance=training(batch_size=24),
    )
    return config


def probe_config(data_dir: str) -> Config:
    """The probe on features of a network that was never trained."""
    config = shrink(data_dir)
    config.method = probe.Config(batch_size=24, strengths=(1.0, 10.0), folds=2)
    return config
